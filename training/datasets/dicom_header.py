"""Values from the header of a DICOM file, read without its pixels."""

from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.dicom import LimitedReads
from c2l_models.radiographs.listing import is_dicom_file, is_file
from c2l_models.radiographs.quiet_pydicom import quiet_pydicom

from .constants import constants


def dicom_header(path: Path) -> dict[str, str]:
    """PatientID and ViewPosition of a DICOM file; empty for any other file.

    ViewPosition is left out if it is not a view code of `datasets.toml`. Takes a third of a millisecond for a cached
    file. Raises DatasetError if pydicom is not installed.
    """
    found = _read(path, "PatientID", "ViewPosition")
    if found.get("ViewPosition") not in constants()["views"]:
        found.pop("ViewPosition", None)
    return found


def dicom_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels from the header of a DICOM file; None if the header lacks them.

    Raises DatasetError if pydicom is not installed.
    """
    found = _read(path, "Columns", "Rows")
    try:
        return int(found["Columns"]), int(found["Rows"])
    except (KeyError, ValueError):
        return None


def _read(path: Path, *tags: str) -> dict[str, str]:
    """The values of these header tags; empty text for an absent tag, no entries if the file is not DICOM."""
    if not is_dicom_file(path) or not is_file(path):
        return {}
    try:
        from pydicom import dcmread
        from pydicom.config import disable_value_validation
    except ImportError:
        raise DatasetError(
            "DICOM files need pydicom, which is not installed; run: pip install 'c2l-models[dicom]'"
        ) from None
    quiet_pydicom()
    try:
        with path.open("rb") as file, disable_value_validation():  # its warnings quote the values
            header = dcmread(LimitedReads(file), stop_before_pixels=True, specific_tags=list(tags), force=True)
            return {tag: str(header.get(tag, "") or "").strip() for tag in tags}
    except Exception:  # damaged file: `prepare` refuses it later and records the decoder's reason
        return {}
