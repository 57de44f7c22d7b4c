"""Any folder of radiographs, with or without a `labels.csv`."""

import math
from collections.abc import Iterator
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import IMAGE_SUFFIXES, image_files

from .constants import constants
from .dicom_header import dicom_header
from .label_tables import UniqueRows, read_table
from .pseudonym import patient_key, pseudonym
from .record import Record

NAME = "folder"
TABLE = "labels.csv"
NOT_LABELS = frozenset({"path", "patient", "study", "view", "split"})
MIN_LABEL, MAX_LABEL = -1, 10
"""Range of a label. Record numbers, dates and most ages, which must not enter a store, are outside it."""


def records(root: Path) -> list[Record]:
    """One record per row of `root/labels.csv` if that file exists, otherwise one per image under `root`.

    `labels.csv` has the columns path (relative to `root`), patient, study, view and split; all but path are optional.
    Further columns are labels and contain numbers. An empty field means unknown. An image without a split is in
    "train". An image without a patient belongs to its DICOM PatientID; if it has none, each file is its own patient.
    Patients and studies become keyed hashes. Paths are stored unchanged: they must not contain patient names.

    Raises DatasetError for a folder without images, a path outside `root`, a path with two rows, a view or split that
    is not a code of `datasets.toml`, a label that is not a number from -1 to 10, or a patient in two splits. Messages
    name the line and never quote the field, which may be free text.
    """
    table, key = root / TABLE, patient_key()
    if table.is_file():
        found, unique = [], UniqueRows()
        for line, fields, labels in _rows(table):
            record = _record(root, fields, labels, key)
            unique.check(str(record.path), record.patient, record.split, table, line)
            found.append(record)
    else:
        found = [_record(root, {"path": path}, {}, key) for path in image_files(root)]
    if not found:
        raise DatasetError(
            f"{root}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}, or DICOM without a suffix), found none; "
            "give a folder of radiographs"
        )
    return found


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str], dict[str, float]]]:
    for line, row in read_table(table, ("path",)):
        fields = {name: row[name].strip() for name in NOT_LABELS & row.keys()}
        path = Path(fields["path"])
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{table}, line {line}: path must name a file under {table.parent}; correct the line")
        for name in ("view", "split"):
            codes = constants()[f"{name}s"]
            if fields.get(name) and fields[name] not in codes:
                raise DatasetError(
                    f"{table}, line {line}: {name} must be empty or one of {', '.join(codes)}; correct the line"
                )
        labels = {name: _number(row[name], name, table, line) for name in row if name and name not in NOT_LABELS}
        yield line, fields, labels


def _number(text: str, name: str, table: Path, line: int) -> float:
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or MIN_LABEL <= value <= MAX_LABEL):
        raise DatasetError(
            f"{table}, line {line}: {name} is not a label; expected a number from {MIN_LABEL} to {MAX_LABEL}, or an "
            "empty field; remove columns of text, patient numbers, dates and ages"
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
