"""Folders of small synthetic images, and the stores that `prepare` makes from them."""

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


def write_image(path: Path, seed: int) -> np.ndarray:
    """Save noise of SIZE x SIZE pixels; returns the pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_dicom(path: Path, pixels: np.ndarray, view: str = "") -> None:
    """Write pixels uint8 [H, W] as a DICOM file, optionally with a view; skips the test without pydicom."""
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


def write_images(root: Path, count: int) -> Path:
    """Write `count` images 0000.png, 0001.png … to `root`."""
    for number in range(count):
        write_image(root / f"{number:04}.png", number)
    return root


def prepare_folder(root: Path, out: Path, **options) -> PrepareReport:
    """Prepare a folder in this process."""
    return prepare([("folder", root)], out, **{"size": SIZE, "workers": 1, "progress": False} | options)


def store_bytes(store: Path) -> dict[str, bytes]:
    """The bytes of each file of a store, by name."""
    return {path.name: path.read_bytes() for path in store.iterdir()}


def refusal_reasons(store: Path) -> dict[str, str]:
    """The reason by refused path."""
    table = pq.read_table(store / "refused.parquet")
    return dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Simulate a full disk: this process cannot write more than `size` bytes to a file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def stopped_at(module: object, name: str) -> Iterator[None]:
    """Simulate Ctrl-C when this function is called."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, stop)
        with pytest.raises(KeyboardInterrupt):
            yield
