"""What a DICOM file's header tells without its pixels."""

import os
from pathlib import Path

from c2l_models.errors import DatasetError

from .record import constants

SUFFIXES = frozenset({".dcm", ".dicom"})


def dicom_header(path: Path) -> dict[str, str]:
    """PatientID and ViewPosition (a known code or absent) of a DICOM file; empty for any other file.

    A third of a millisecond a file, besides its first read. Raises DatasetError if the reader is not installed.
    """
    found = _read(path, "PatientID", "ViewPosition")
    if found.get("ViewPosition") not in constants()["views"]:
        found.pop("ViewPosition", None)
    return found


def dicom_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels that a DICOM file's header tells; None where it tells none.

    Raises DatasetError if the reader is not installed.
    """
    found = _read(path, "Columns", "Rows")
    try:
        return int(found["Columns"]), int(found["Rows"])
    except (KeyError, ValueError):
        return None


def _read(path: Path, *tags: str) -> dict[str, str]:
    """These tags of a DICOM file's header, empty where there is no such; nothing for any other file."""
    is_dicom = path.suffix.lower() in SUFFIXES or (not path.suffix and has_dicom_magic(path))
    if not is_dicom or not _is_file(path):
        return {}
    try:
        from pydicom import dcmread
        from pydicom.config import disable_value_validation
    except ImportError:
        raise DatasetError("DICOM files need their reader: pip install 'c2l-models[dicom]', then call again") from None
    try:
        with disable_value_validation():  # its warnings quote the values they are about
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(tags), force=True)
            return {tag: str(header.get(tag, "") or "").strip() for tag in tags}
    except Exception:  # a broken file: `prepare` refuses it, with the reader's reason
        return {}


def has_dicom_magic(path: Path) -> bool:
    """Whether it is a file that can be read and has DICOM's magic."""
    if not _is_file(path):  # opening a pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - pathlib's raises where the folder may not be entered
