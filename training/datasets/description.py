"""`dataset.toml`: a folder of radiographs that describes itself, so that a data set needs no code."""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError

from .constants import constants

FILE, TABLE = "dataset.toml", "labels.csv"
DESCRIPTIONS = Path(__file__).parent / "descriptions"
"""Descriptions of public data sets that are distributed without one."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
FACTS = ("title", "license", "citation", "url", "public_patient_ids")
"""Keys that a store records, for the provenance and the model card of weights that were trained on the data set."""
COLUMNS = ("path", "patient", "study", "view", "split", "source")
"""Columns of the table that are not labels."""

Patterns = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Description:
    """A data set in any folder. The fields are the keys of `dataset.toml`; all but `name` are optional.

    A pattern is compared with an image's path relative to the folder; `*` matches any characters, `/` included.

    Attributes:
        name: the data set's name in stores, recipes and tasks: lower-case letters, digits and underscores.
        title: the data set's title.
        license: its license.
        citation: how to cite it.
        url: its address.
        public_patient_ids: whether patients keep the ids of the table, which a release may list. Only for a data set
            whose distribution publishes these ids; otherwise keyed hashes replace them.
        body_part: body part of all images, a code of `datasets.toml`.
        table: CSV file in the folder with one row per image. Without one, every image of the folder is used; but if the
            description names it, its columns or its label columns, it must exist.
        columns: the table's column for each of `COLUMNS`, if its name differs. `source` is read only if listed here.
        label_columns: the table's columns with labels; by default all further columns.
        labels: label -> patterns. The label is 1 if the path matches one of them, and 0 otherwise.
        splits: split -> patterns, in place of a column. Each path must match the patterns of one split.
        pretraining_only: patterns of the images that pretraining may use and labelled tasks may not.
    """

    name: str
    title: str = ""
    license: str = ""
    citation: str = ""
    url: str = ""
    public_patient_ids: bool = False
    body_part: str = ""
    table: str = TABLE
    columns: Mapping[str, str] = field(default_factory=dict)
    label_columns: tuple[str, ...] = ()
    labels: Patterns = field(default_factory=dict)
    splits: Patterns = field(default_factory=dict)
    pretraining_only: tuple[str, ...] = ()

    @property
    def needs_table(self) -> bool:
        """Whether the description names the table, its columns or its label columns."""
        return self.table != TABLE or bool(self.columns or self.label_columns)

    def facts(self) -> dict[str, Any]:
        """The facts that a store records: the values of `FACTS` that differ from "" and False."""
        return {key: getattr(self, key) for key in FACTS if getattr(self, key)}


def load_description(file: Path) -> Description:
    """Read a `dataset.toml`.

    Raises DatasetError, which names the file and the key: the file is unreadable or not TOML, a key is unknown or has
    a value of another type, `name` is missing or has other characters, or a body part or split is not a code of
    `datasets.toml`.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}; check its path and permissions") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not valid TOML in UTF-8: {error}; correct the file") from None
    try:
        return _build(table)
    except _Unexpected as error:
        raise DatasetError(f"{file}: {error}; correct the file") from None


def matching(path: str, patterns: Patterns) -> list[str]:
    """The keys with a pattern that matches the path."""
    return [key for key, alternatives in patterns.items() if matches(path, alternatives)]


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches the path; the same on every operating system."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


class _Unexpected(Exception):
    """A value that a description must not have."""


def _build(table: dict[str, Any]) -> Description:
    keys = [key.name for key in fields(Description)]
    _check_keys(table, keys, "the file")
    _expect("name" in table, "name", "a name such as my_hospital", "nothing")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("labels", "splits", "columns"):
            _expect(isinstance(value, dict), key, "a table", value)
        if key in ("labels", "splits"):
            values[key] = {name: _texts(text, f"{key}.{name}") for name, text in value.items()}
        elif key == "columns":
            _check_keys(value, COLUMNS, key)
            values[key] = {name: _text(text, f"{key}.{name}") for name, text in value.items()}
        elif key == "public_patient_ids":
            _expect(isinstance(value, bool), key, "true or false", value)
            values[key] = value
        elif key in ("label_columns", "pretraining_only"):
            values[key] = _texts(value, key)
        else:
            values[key] = _text(value, key)
    name, part = values["name"], values.get("body_part", "")
    _expect(bool(NAME.fullmatch(name)), "name", "lower-case letters, digits and underscores (at most 40)", name)
    parts = constants()["body_parts"]
    _expect(part in ("", *parts), "body_part", f"one of {', '.join(parts)}", part)
    _check_keys(values.get("splits", {}), constants()["splits"], "splits")
    return Description(**values)


def _text(value: Any, key: str) -> str:
    _expect(isinstance(value, str) and bool(value.strip()), key, "text", value)
    return str(value).strip()


def _texts(value: Any, key: str) -> tuple[str, ...]:
    """A text or a list of texts."""
    values = value if isinstance(value, list) else [value]
    _expect(bool(values), key, "text, or a list of texts", value)
    return tuple(_text(one, key) for one in values)


def _check_keys(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if unknown := [key for key in table if key not in known]:
        raise _Unexpected(f"{where}: expected keys among {', '.join(known)}, found {', '.join(unknown)}")


def _expect(condition: bool, key: str, expected: str, found: Any) -> None:
    if not condition:
        raise _Unexpected(f"{key}: expected {expected}, found {found!r}")
