"""Any folder of radiographs, with or without a `labels.csv`."""

import math
from collections.abc import Iterator
from pathlib import Path

from c2l_models.errors import DatasetError

from .pseudonym import patient_key, pseudonym
from .record import Record, constants, read_table, refuse_duplicates, refuse_shared_patients

NAME = "folder"
TABLE = "labels.csv"
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"}) | DICOM_SUFFIXES
NO_LABELS = frozenset({"path", "patient", "study", "view", "split"})
LOWEST, HIGHEST = -1, 10
"""Findings and grades lie between; record numbers, dates and most ages do not, and must not enter a store."""


def records(root: Path) -> list[Record]:
    """One record an image under `root`, or one a row of `root/labels.csv` where there is one.

    `labels.csv` has the columns path (under `root`), patient, study, view and split, all but the first optional,
    and any further columns of numbers, which are labels; an empty field is unknown. Without a split, an image
    is in "train"; without a patient, it is a DICOM file's PatientID, else each file is its own patient.
    Patients and studies are keyed hashes. Paths are kept as they are: they must not hold names of patients.

    Raises DatasetError for a folder without images, a path outside `root`, a path named twice, a view or
    split that is not a code of `datasets.toml`, a label that is no number, or a patient in two splits.
    Messages give the line, never the field: it may be free text.
    """
    table = root / TABLE
    rows = _rows(table) if table.is_file() else (({"path": p}, {}) for p in image_files(root))
    key = patient_key()
    found = [_record(root, fields, labels, key) for fields, labels in rows]
    if not found:
        raise DatasetError(f"{root} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))} or DICOM")
    refuse_duplicates((str(record.path.relative_to(root)) for record in found), table)
    refuse_shared_patients(found, table)
    return found


def image_files(root: Path) -> Iterator[str]:
    """Sorted relative paths of the images under `root`, by suffix, or by DICOM's magic if without one.

    `._image1.png` and the like are no images: macOS keeps attributes in them.
    """
    for path in sorted(root.rglob("*")):
        if path.name.startswith("._"):
            continue
        is_image = path.suffix.lower() in IMAGE_SUFFIXES or (not path.suffix and _has_dicom_magic(path))
        if is_image and path.is_file():
            yield path.relative_to(root).as_posix()


def _rows(table: Path) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    for line, row in read_table(table, ("path",)):
        fields = {name: row[name].strip() for name in NO_LABELS & row.keys()}
        path = Path(fields["path"])
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{table}, line {line}: path must be that of a file under {table.parent}")
        for name in ("view", "split"):
            codes = constants()[f"{name}s"]
            if fields.get(name) and fields[name] not in codes:
                raise DatasetError(f"{table}, line {line}: {name} must be empty or one of {', '.join(codes)}")
        labels = {name: _number(row[name], name, table, line) for name in row if name and name not in NO_LABELS}
        yield fields, labels


def _number(text: str, name: str, table: Path, line: int) -> float:
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or LOWEST <= value <= HIGHEST):
        raise DatasetError(
            f"{table}, line {line}: {name} is not a label, which is a number from {LOWEST} to {HIGHEST} or empty; "
            "drop columns of text, numbers of patients, dates and ages"
        )
    return value


def _record(root: Path, fields: dict[str, str], labels: dict[str, float], key: bytes) -> Record:
    path = root / fields["path"]
    header = {} if fields.get("patient") and fields.get("view") else _dicom_header(path)
    patient = fields.get("patient") or header.get("PatientID")
    identity = f"patient {patient}" if patient else f"file {Path(fields['path']).as_posix()}"
    return Record(
        path=path,
        dataset=NAME,
        patient=f"{NAME}:{pseudonym(identity, key)}",
        view=fields.get("view") or header.get("ViewPosition", ""),
        split=fields.get("split") or "train",
        labels=labels,
        study=f"{NAME}:{pseudonym(f'study {study} of {identity}', key)}" if (study := fields.get("study")) else "",
    )


def _has_dicom_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _dicom_header(path: Path) -> dict[str, str]:
    """PatientID and ViewPosition (a known code or absent) of a DICOM file; empty for any other file."""
    is_dicom = path.suffix.lower() in DICOM_SUFFIXES or (not path.suffix and _has_dicom_magic(path))
    if not is_dicom or not path.is_file():
        return {}
    try:
        from pydicom import dcmread
        from pydicom.config import disable_value_validation
    except ImportError:
        raise DatasetError(f"{path} is DICOM; install its reader: pip install 'c2l-models[dicom]'") from None
    try:
        with disable_value_validation():  # its warnings quote the values they are about
            tags = ["PatientID", "ViewPosition"]
            header = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            found = {tag: str(header.get(tag, "") or "").strip() for tag in tags}
    except Exception:  # a broken file: `prepare` refuses it, with the reader's reason
        return {}
    if found["ViewPosition"] not in constants()["views"]:
        del found["ViewPosition"]
    return found
