"""Any folder of radiographs, with or without a `labels.csv`."""

import math
from collections.abc import Iterator
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import IMAGE_SUFFIXES, image_files

from .dicom_header import dicom_header
from .pseudonym import patient_key, pseudonym
from .record import OneRowEach, Record, constants, read_table

NAME = "folder"
TABLE = "labels.csv"
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
    table, key = root / TABLE, patient_key()
    if table.is_file():
        found, once = [], OneRowEach()
        for line, fields, labels in _rows(table):
            record = _record(root, fields, labels, key)
            once.check(str(record.path), record.patient, record.split, table, line)
            found.append(record)
    else:
        found = [_record(root, {"path": path}, {}, key) for path in image_files(root)]
    if not found:
        raise DatasetError(f"{root} holds no image; wanted {', '.join(sorted(IMAGE_SUFFIXES))} or DICOM")
    return found


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str], dict[str, float]]]:
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
        yield line, fields, labels


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
    header = {} if fields.get("patient") and fields.get("view") else dicom_header(path)
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
