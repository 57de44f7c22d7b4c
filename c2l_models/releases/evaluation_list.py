"""Read evaluation lists (text, CSV, exports of spreadsheets) and recognise image names and patient ids in them."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import C2LError

CHEST, KNEE, RSNA = "chestxray14", "knee_kl", "rsna"
FRACATLAS, IMPLANTS = "fracatlas", "shoulder_implants"
NAMED = (CHEST, KNEE, RSNA, FRACATLAS, IMPLANTS)
"""The data sets whose image names are recognised."""
DATASETS = (*NAMED, "chexpert", "mimic_cxr", "mura")
"""The data sets of full ids, `DATASET:PATIENT`. An id with another prefix has an unknown form."""

WITHOUT_PATIENTS = (FRACATLAS, IMPLANTS)
"""Data sets without patient ids: each image counts as a patient of its own, and two images may be of one patient."""

LAST_CHEST_PATIENT = 30_805
"""ChestX-ray14's last patient number; the first is 1. Patient numbers of knee_kl have seven digits, the first a 9."""

_IMAGE = (
    r"(?:"
    r"(?P<chest>\d{8})_\d{3}|(?P<knee>9\d{6})[LR]|(?P<rsna>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|"
    r"(?P<fracatlas>IMG000\d{4})|(?P<implant>(?:Cofield|Depuy|Tornier|Zimmer)\.\d{1,3})"
    r")(?:\.\w{1,5}){0,2}"
)
_NAME = re.compile(rf"(?:.*[/\\])?{_IMAGE}", re.IGNORECASE | re.ASCII)
_NAME_BEFORE = re.compile(rf"(?<![0-9a-z]){_IMAGE}[^\w./\\-]", re.IGNORECASE | re.ASCII)
"""A name that is followed by another one, not by a slash: "a/00001336_000.png b/00000013_000.png"."""
_OURS = re.compile(r"(?P<dataset>[a-z]\w+):(?P<patient>[^\s/\\]+)")
_NUMBER = re.compile(r"[0-9]{1,8}")
_PATIENT = re.compile(r"(?:patient|subject)s?[\W_]*(?:id|ids|no|nr|num|number)?", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")
_AROUND = " \t\r\"'"


class Entry(NamedTuple):
    """The image or patient that a field of a list names.

    `patient` is a full id, `DATASET:PATIENT`. For an RSNA image it is the ChestX-ray14 patient that the mapping names,
    or "rsna:IMAGE" if the image is not mapped. `image` is empty if the field names only a patient. `also` is
    "rsna:IMAGE" if a mapping was used. `bare`: whether the field was only a number.
    """

    patient: str
    image: str = ""
    also: str = ""
    bare: bool = False


@dataclass(frozen=True)
class EvaluationList:
    """An evaluation list as it was read.

    `column`: name of the chosen column, or its number from 1. `header`, `rows`: all fields, unchanged, for writing.
    `lines`: the line number of each row. `fields`: each row's field in the chosen column. `beside`: the image names and
    ids in each row's other fields; empty if the user chose the column. `delimiter` is empty if lines are not split
    into fields.
    """

    path: Path
    column: str
    header: list[str] | None
    rows: list[list[str]]
    lines: list[int]
    fields: list[str]
    beside: list[list[str]]
    delimiter: str
    line_end: str


def recognise(field: str, rsna: Mapping[str, str]) -> Entry | None:
    """Parse a field of a list; None if its form is unknown. `rsna` maps RSNA image ids to ChestX-ray14 images."""
    if match := _NAME.fullmatch(field):
        if _NAME_BEFORE.search(field, 0, match.start(match.lastgroup or 0)):
            return None
        if match["chest"]:
            if not 1 <= int(match["chest"]) <= LAST_CHEST_PATIENT:
                return None
            return Entry(f"{CHEST}:{match['chest']}", f"{CHEST}:{_stem(field)}")
        if match["knee"]:
            return Entry(f"{KNEE}:{match['knee']}", f"{KNEE}:{_stem(field)}")
        if match["fracatlas"]:
            image = f"{FRACATLAS}:{match['fracatlas'].upper()}"
            return Entry(image, image)
        if match["implant"]:
            image = f"{IMPLANTS}:images/{match['implant'].capitalize()}.jpg"
            return Entry(image, image)
        image = match["rsna"].lower()
        if image in rsna and (mapped := recognise(rsna[image], {})):
            return mapped._replace(also=f"{RSNA}:{image}")
        return Entry(f"{RSNA}:{image}", f"{RSNA}:{image}")
    if match := _OURS.fullmatch(field):
        dataset, inner = match.groups()
        if dataset not in DATASETS:
            return None
        if dataset not in NAMED:
            return Entry(field)
        found = recognise(inner, rsna)
        return found._replace(bare=False) if found and (dataset == RSNA or found.patient.startswith(dataset)) else None
    if _NUMBER.fullmatch(field):
        number = int(field)
        if 1 <= number <= LAST_CHEST_PATIENT:
            return Entry(f"{CHEST}:{number:08d}", bare=True)
        if len(field) == 7 and field[0] == "9":
            return Entry(f"{KNEE}:{field}", bare=True)
    return None


def _stem(field: str) -> str:
    return re.split(r"[/\\]", field)[-1].partition(".")[0].upper()


def read_list(path: Path, column: str | None = None) -> EvaluationList:
    """Read a list and choose the column with the names of images or patients. Raises `C2LError`."""
    text = _text(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    if delimiter not in first:
        delimiter = ""
    if delimiter:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            numbered = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
        except csv.Error as error:
            raise C2LError(
                f"{path}, line {reader.line_num}: expected a table separated by {delimiter!r}; {error}"
            ) from None
    else:
        numbered = [(n, [line.rstrip("\r")]) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not numbered:
        raise C2LError(f"{path}: expected names of images or patients, one per line; found an empty list")
    rows = [row for _, row in numbered]
    index, by_name = _column(path, rows, column)
    has_header = by_name or _is_header(rows, index)
    header, body = (rows[0], rows[1:]) if has_header else (None, rows)
    return EvaluationList(
        path=path,
        column=header[index].strip(_AROUND) if header else f"{index + 1}",
        header=header,
        rows=body,
        lines=[line for line, _ in numbered[has_header:]],
        fields=[row[index].strip(_AROUND) if index < len(row) else "" for row in body],
        beside=[[] if column else _names_beside(row, index) for row in body],
        delimiter=delimiter,
        line_end="\r\n" if first.endswith("\r") else "\n",
    )


def _text(path: Path) -> str:
    """Read a text file as spreadsheets write it: UTF-8, with or without a byte-order mark, or UTF-16 with one."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise C2LError(f"{path}: expected UTF-8 text; save the list as plain text or CSV") from None
    except OSError as error:
        raise C2LError(f"{path}: cannot read the list of images or patients: {error.strerror}") from None
    return text if "\n" in text else text.replace("\r", "\n")  # Excel's "CSV (Macintosh)" ends lines with CR


def _column(path: Path, rows: Sequence[Sequence[str]], column: str | None) -> tuple[int, bool]:
    """Return the index of the chosen column, and whether it was found by its name, so that the first row is a header.

    By default it is the column with the most image names or full ids.

    If no column holds such names, the one with a header like "patient id" is returned. Bare numbers do not count,
    because they may be ages or counts, except in a list of a single column.
    """
    names = [name.strip(_AROUND) for name in rows[0]]
    if column is not None:
        if column in names:
            return names.index(column), recognise(column, {}) is None
        if column.isdecimal() and 1 <= int(column) <= len(names):
            return int(column) - 1, False
        raise C2LError(
            f"{path}: expected a column's name or a number from 1 to {len(names)} as --column, found {column!r}"
        )
    if len(names) == 1:
        return 0, False
    sample = rows[:1000]
    counts = [sum(_is_full(row[i].strip(_AROUND)) for row in sample if i < len(row)) for i in range(len(names))]
    if max(counts):
        return counts.index(max(counts)), False
    if named := [i for i, name in enumerate(names) if _PATIENT.fullmatch(name)]:
        return named[0], True
    raise C2LError(
        f"{path}: expected a column of image names or ids, found none among {len(names)} columns; choose one with "
        "--column"
    )


def _names_beside(row: Sequence[str], index: int) -> list[str]:
    """Return the image names and full ids in a row's other fields."""
    others = (field.strip(_AROUND) for i, field in enumerate(row) if i != index)
    return [field for field in others if _is_full(field)]


def _is_full(field: str) -> bool:
    return bool(_NAME.fullmatch(field) or _OURS.fullmatch(field))


def _is_header(rows: Sequence[Sequence[str]], index: int) -> bool:
    """Whether the first row is a header: it has no name in any field, and its field in the column is not a bare number.

    A row that is wrongly taken as a header is never judged, so a field with a dot or a slash is no header, nor is one
    with digits if a field below begins with the same letters ("IMG12" above "IMG0000044.jpg"), or none below is a name.
    """
    fields = [row[index].strip(_AROUND) if index < len(row) else "" for row in rows]
    first, below = fields[0], fields[1:]
    if any(_is_full(field.strip(_AROUND)) for field in rows[0]) or recognise(first, {}) or re.search(r"[./\\]", first):
        return False
    if not re.search(r"\d", first):
        return True
    letters = _LETTERS.match(first)
    if letters is None or any(field.lower().startswith(letters[0].lower()) for field in below):
        return False
    return any(recognise(field, {}) for field in below)


def read_rsna_mapping(path: Path) -> dict[str, str]:
    """Read a mapping of RSNA images to ChestX-ray14 images: `nih_image_index.csv` or RSNA's own JSON.

    The CSV has the columns patientId and Image Index. Raises `C2LError` if the file has another form.
    """
    text = _text(path)
    pairs: Iterable[tuple[str, str]]
    try:
        if text.lstrip().startswith("["):
            pairs = [(entry["subset_img_id"], entry["img_id"]) for entry in json.loads(text)]
        else:
            pairs = [(row["patientId"], row["Image Index"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
        mapping = {rsna.strip().lower(): image.strip() for rsna, image in pairs}
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error):
        mapping = {}
    is_image = partial(re.fullmatch, r"\d{8}_\d{3}\.png")
    if not mapping or not all(map(is_image, mapping.values())):
        raise C2LError(
            f"{path}: expected a CSV with the columns patientId and Image Index, or RSNA's "
            "pneumonia-challenge-dataset-mappings_2018.json; found no mapping of RSNA images"
        )
    return mapping
