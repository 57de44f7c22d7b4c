"""DICOM data sets for tests, and the grey levels that the standard gives them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.reading import read_radiograph

pydicom = pytest.importorskip("pydicom")
from pydicom import Dataset, FileMetaDataset, Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
)

NAME = "Doe^John"


def dicom(array: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DICOM data set with the pixels `array`, a patient, and the given elements."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientName = film.PatientComments = NAME
    film.Rows, film.Columns = array.shape[:2]
    film.SamplesPerPixel = 1 if array.ndim == 2 else 3
    film.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    if array.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = film.BitsStored = array.dtype.itemsize * 8
    film.PixelRepresentation = int(array.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    film.PixelData = array.astype(array.dtype.newbyteorder(order)).tobytes()
    film.PixelData += b"\0" * (len(film.PixelData) % 2)
    film["PixelData"].VR = "OW" if film.BitsAllocated > 8 else "OB"
    for name, value in elements.items():
        if value is None and name in film:
            delattr(film, name)
        else:
            setattr(film, name, value)
    film.HighBit = elements.get("HighBit", film.BitsStored - 1)
    return film


def encode(film: Dataset) -> bytes:
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def table(first: int, bits: int, entries: list[int], words: bool = False) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    if words:
        item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", entries)
    return Sequence([item])


FILM = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)


def exposure(low: float, high: float, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A smooth bright spot with noise, from `low` to `high`: int64 [H, W]."""
    y, x = np.mgrid[-1 : 1 : 1j * shape[0], -1 : 1 : 1j * shape[1]]
    spot = np.exp(-2 * (x**2 + y**2)) + np.random.default_rng(1).normal(0, 0.01, shape)
    return np.rint(low + (high - low) * spot.clip(0, 1)).astype(np.int64)


def grey(values: np.ndarray, film: Dataset) -> np.ndarray:
    """Grey levels, 0 to 255, of stored values: PS3.3 C.11.1 (rescale), C.11.2.1.2 (window) and C.7.6.3.1.2."""
    rescaled = values * float(film.get("RescaleSlope", 1)) + float(film.get("RescaleIntercept", 0))
    levels = np.array([[windowed(x, film) for x in row] for row in rescaled]) if "WindowCenter" in film else None
    levels = scaled(rescaled) if levels is None else 255 * levels
    return 255 - levels if film.PhotometricInterpretation == "MONOCHROME1" else levels


def windowed(x: float, film: Dataset) -> float:
    c, w = (v if isinstance(v, int | float) else v[0] for v in (film.WindowCenter, film.WindowWidth))
    function = film.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR":
        c, w = c - 0.5, w - 1
    return 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5


def attempt(path: Path) -> Image.Image | str:
    """The image that is read from a file, or the message of the error."""
    try:
        return read_radiograph(path)
    except RadiographError as error:
        return str(error)
