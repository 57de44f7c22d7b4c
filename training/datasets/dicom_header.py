"""What a DICOM file's header tells without its pixels."""

from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import DICOM_SUFFIXES, has_dicom_magic, is_file

from .record import constants


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
    is_dicom = path.suffix.lower() in DICOM_SUFFIXES or (not path.suffix and has_dicom_magic(path))
    if not is_dicom or not is_file(path):
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
