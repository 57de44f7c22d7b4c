"""Fixtures for miniature data sets: CSV files, small images and a fixed patient key."""

import csv
import gzip
import hmac
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_helpers import write_dicom

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fixed patient key, so that no hash contains by chance the number that it replaces."""
    path = tmp_path_factory.mktemp("key") / "patient.key"
    path.write_bytes(KEY)
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


@pytest.fixture(scope="session")
def hashed() -> Callable[[str], str]:
    """The pseudonym of an identity, computed with the standard library."""
    return lambda identity: hmac.new(KEY, identity.encode(), "sha256").hexdigest()[:16]


@pytest.fixture(scope="session")
def write_csv() -> Callable[..., None]:
    """Writes rows to a CSV file: gzipped if its suffix is .gz, with a byte-order mark if `bom`."""

    def write(path: Path, *rows: list[str], bom: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoding = "utf-8-sig" if bom else "utf-8"
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", newline="", encoding=encoding) as file:
            csv.writer(file).writerows(rows)

    return write


@pytest.fixture(scope="session")
def draw() -> Callable[..., None]:
    """Writes a small grey ramp as PNG, JPEG or DICOM, depending on the suffix; `view` is written to DICOM files."""

    def write(*paths: Path, view: str = "") -> None:
        ramp = np.add.outer(np.arange(24), np.arange(16)).astype(np.uint8) * 6
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".dcm":
                write_dicom(path, ramp, view)
            else:
                Image.fromarray(ramp).save(path)

    return write
