"""Folders of small made-up films, and the stores that `prepare` makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from c2l_models.training.store.finished_store import PrepareReport
from c2l_models.training.store.prepare import prepare

SIZE = 8


def film(path: Path, seed: int) -> np.ndarray:
    """Noise of SIZE x SIZE pixels, saved; its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_dicom(path: Path, pixels: np.ndarray, view: str = "") -> None:
    """Pixels uint8 [H, W] as a DICOM film, with a view where one is given; skips without the reader."""
    pydicom = pytest.importorskip("pydicom")
    film = pydicom.Dataset()
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    if view:
        film.ViewPosition = view
    film.Rows, film.Columns = pixels.shape
    film.PhotometricInterpretation, film.SamplesPerPixel, film.PixelRepresentation = "MONOCHROME2", 1, 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 8, 8, 7
    film.PixelData = pixels.tobytes()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, film, enforce_file_format=True)


def films(root: Path, count: int) -> Path:
    """0000.png, 0001.png …, under `root`."""
    for number in range(count):
        film(root / f"{number:04}.png", number)
    return root


def make(root: Path, out: Path, **options) -> PrepareReport:
    """`prepare` of a folder in this process."""
    return prepare([("folder", root)], out, **{"size": SIZE, "workers": 1, "progress": False} | options)


def content(store: Path) -> dict[str, bytes]:
    """The bytes of each file of a store."""
    return {path.name: path.read_bytes() for path in store.iterdir()}


def refused(store: Path) -> dict[str, str]:
    """What was refused, and why."""
    table = pq.read_table(store / "refused.parquet")
    return dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A full disk, for files of this process: writing beyond `size` bytes fails as it does there."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def stopped_at(module: object, name: str) -> Iterator[None]:
    """Ctrl-C at the moment at which this function would be called."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, stop)
        with pytest.raises(KeyboardInterrupt):
            yield
