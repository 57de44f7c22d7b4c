"""Any folder of radiographs, with or without a `labels.csv` and a `dataset.toml`."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import IMAGE_SUFFIXES, from_utf8, image_files

from .constants import constants
from .description import COLUMNS, Description, matching
from .dicom_header import dicom_header
from .label_tables import UniqueRows, read_table
from .pseudonym import patient_key, pseudonym
from .record import Record

UNDESCRIBED = Description("folder")
"""A folder without a `dataset.toml`."""
MIN_LABEL, MAX_LABEL = -1, 10
"""Range of a label. Record numbers, dates and most ages, which must not enter a store, are outside it."""
IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,40}")
"""Form of a source, and of a public patient or study id, so that free text cannot enter a store."""

NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""Form of a label. `float` reads more: 1_0 as 10."""
UNKNOWN = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Fields without a value, as spreadsheets, pandas and R write them; in any case."""

Row = tuple[int, dict[str, str], dict[str, float]]
"""The line of an image, its fields by the names of `COLUMNS`, and its labels."""


def records(root: Path, description: Description = UNDESCRIBED) -> list[Record]:
    """One record per row of `root/labels.csv` if that file exists, otherwise one per image under `root`.

    `labels.csv` has the columns path (relative to `root`), patient, study, view and split; all but path are optional.
    Further columns are labels and contain numbers, with a decimal point or comma. Views and splits may be in any case.
    An empty field means unknown, and so do NA, NaN, null and none. An image without a split is in "train". An image
    without a patient belongs to its DICOM PatientID; if it has none, each file is its own patient. Patients and studies
    become keyed hashes. Paths are stored unchanged: they must not contain patient names.

    A description (see `description.Description`) can rename the table and its columns, derive splits and labels from
    paths, and add a source per image, which enters the store as "NAME/SOURCE". If it says that the patient ids are
    public, patients and studies keep their ids, an image without a patient has its path as patient, and PatientID of
    DICOM files is not read.

    Raises DatasetError for a folder without images, a path outside `root`, a path with two rows, a view or split that
    is not a code of `datasets.toml`, a label that is not a number from -1 to 10, a source or public id that is not an
    identifier, a path without exactly one split, a patient in two splits, a table that is described and missing, or a
    label that is a column and has patterns too. Messages name the line and never quote the field, which may be free
    text.
    """
    table, key = root / description.table, patient_key()
    if table.is_file() or description.needs_table:
        found, unique = [], UniqueRows()
        for line, fields, labels in _rows(table, description):
            record = _record(root, fields, labels, key, description)
            unique.check(str(record.path), record.patient, record.split, table, line)
            found.append(record)
    else:
        found = [_record(root, {"path": path}, {}, key, description) for path in image_files(root)]
        _check_one_split(root, found)
    if not found:
        raise DatasetError(
            f"{root}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}; other names by their content), found none; "
            "give a folder of radiographs"
        )
    return found


def _rows(table: Path, description: Description) -> Iterator[Row]:
    columns = {name: description.columns.get(name, name) for name in COLUMNS}
    if "source" not in description.columns:
        del columns["source"]
    required = [columns["path"], *description.columns.values(), *description.label_columns]
    for line, row in read_table(table, dict.fromkeys(required), optional=columns.values()):
        fields = {name: _known(row[column]) for name, column in columns.items() if column in row}
        fields["path"] = from_utf8(fields["path"])
        path = Path(fields["path"])
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{table}, line {line}: path must name a file under {table.parent}; correct the line")
        for name in ("view", "split"):
            codes = constants()[f"{name}s"]
            known = {code.casefold(): code for code in codes}
            fields[name] = known.get(fields.get(name, "").casefold(), fields.get(name, ""))
            if fields[name] and fields[name] not in codes:
                raise DatasetError(
                    f"{table}, line {line}: {name} must be empty or one of {', '.join(codes)}; correct the line"
                )
        for name in ("source", "patient", "study") if description.public_patient_ids else ("source",):
            if fields.get(name) and not IDENTIFIER.fullmatch(fields[name]):
                raise DatasetError(
                    f"{table}, line {line}: {name} must be empty, or at most 40 letters, digits, '_', '-' and '.'; "
                    "correct the line"
                )
        names = description.label_columns or [name for name in row if name and name not in columns.values()]
        if twice := ", ".join(name for name in names if name in description.labels):
            raise DatasetError(
                f"{table}: expected each label in a column or in [labels] of the description, found {twice} in both; "
                "remove one"
            )
        yield line, fields, {name: _number(row[name], name, table, line) for name in names}


def _known(text: str) -> str:
    """A field without spaces around it; "" if it says that the value is unknown."""
    text = text.strip()
    return "" if text.casefold() in UNKNOWN else text


def _number(text: str, name: str, table: Path, line: int) -> float:
    if not (text := _known(text)):
        return math.nan
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) else math.inf
    if not MIN_LABEL <= value <= MAX_LABEL:
        raise DatasetError(
            f"{table}, line {line}: {name} is not a label; expected a number from {MIN_LABEL} to {MAX_LABEL}, or an "
            f"empty field; remove columns of text, patient numbers, dates and ages, and replace a grade above "
            f"{MAX_LABEL} by columns of 0 and 1"
        )
    return value


def _record(
    root: Path, fields: dict[str, str], labels: dict[str, float], key: bytes, description: Description
) -> Record:
    path, name = root / fields["path"], description.name
    inside = Path(fields["path"]).as_posix()
    header = {} if fields.get("patient") and fields.get("view") else dicom_header(path)
    patient, study = fields.get("patient"), fields.get("study")
    if description.public_patient_ids:
        patient = patient or inside
        study = study and f"{patient}/{study}"
    else:
        patient = patient or header.get("PatientID")
        identity = f"patient {patient}" if patient else f"file {inside}"
        patient = pseudonym(identity, key)
        study = study and pseudonym(f"study {study} of {identity}", key)
    shown = matching(inside, description.labels)
    return Record(
        path=path,
        dataset=name,
        patient=f"{name}:{patient}",
        view=fields.get("view") or header.get("ViewPosition", ""),
        split=_split(root, inside, description) if description.splits else fields.get("split") or "train",
        labels=labels | {label: float(label in shown) for label in description.labels},
        study=f"{name}:{study}" if study else "",
        body_part=description.body_part,
        source=f"{name}/{source}" if (source := fields.get("source")) else "",
    )


def _check_one_split(root: Path, records: list[Record]) -> None:
    """Raise DatasetError if the patterns of [splits] put the DICOM files of a patient into two splits."""
    splits: dict[str, str] = {}
    for record in records:
        if (first := splits.setdefault(record.patient, record.split)) != record.split:
            raise DatasetError(
                f"{root}: expected all images of a patient in one split, found a patient with images in {first} and "
                f"in {record.split}; correct [splits] of the description, or move the files"
            )


def _split(root: Path, path: str, description: Description) -> str:
    found = matching(path, description.splits)
    if len(found) != 1:
        raise DatasetError(
            f"{root}: expected each image to match the patterns of one split, found an image that matches "
            f"{' and '.join(found) or 'none'}; correct [splits] of the description"
        )
    return found[0]
