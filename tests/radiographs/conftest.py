"""Fixtures of the tests that read DICOM files."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from c2l_models.radiographs.reading import read_radiograph

if TYPE_CHECKING:
    from pydicom import Dataset


@pytest.fixture
def quiet() -> Iterator[None]:
    """Turn warnings into errors, because a warning could quote the text of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def shown(tmp_path: Path) -> "Callable[[Dataset | bytes], np.ndarray]":
    """Write a file with a wrong extension and return the pixels that `read_radiograph` reads."""
    from dicom_files import encode

    def shown(film: "Dataset | bytes") -> np.ndarray:
        path = tmp_path / "film.png"
        path.write_bytes(film if isinstance(film, bytes) else encode(film))
        image = read_radiograph(path)
        assert image.mode == "L"
        assert image.info == {}
        return np.asarray(image)

    return shown
