"""What `c2l prepare` has to do: the records of the sources, in order, and the plan that a part of the work keeps to."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError

from . import datasets
from .datasets import Record
from .store_files import FORMAT

Shard = tuple[int, int]
"""(k, n): the k-th of n parts of the work, from 1."""


@dataclass(frozen=True)
class Source:
    """A data set under its root: its records by path, and (path, reason) of what else there is."""

    name: str
    root: Path
    records: tuple[Record, ...]
    others: tuple[tuple[str, str], ...]


def shown(record: Record, root: Path) -> str:
    """What the index calls an image: the path under the root, or a name where that holds numbers of patients."""
    return record.name or record.path.relative_to(root).as_posix()


def load(sources: Sequence[tuple[str, Path]], others: bool = True) -> list[Source]:
    """The sources, their records in the order of their paths.

    Raises DatasetError for an unknown data set, one given twice, or one that is not laid out as it should be.
    """
    names = [name for name, _ in sources]
    if unknown := [name for name in names if name not in datasets.ADAPTERS]:
        known = ", ".join(datasets.ADAPTERS)
        raise DatasetError(f"no data set is called {', '.join(unknown)}; there are: {known}")
    if not names or len(set(names)) < len(names):
        given = ", ".join(names) or "none"
        raise DatasetError(f"sources given: {given}; wanted each data set once, its folders under one root")
    return [_load(name, Path(root), others) for name, root in sources]


def _load(name: str, root: Path, others: bool) -> Source:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the one that holds {name}")
    try:
        records = sorted(datasets.ADAPTERS[name](root), key=lambda r: r.path.relative_to(root).as_posix())
        return Source(name, root, tuple(records), tuple(_others(root, records)) if others else ())
    except OSError as error:
        raise DatasetError(
            f"{error.filename or root} cannot be read: {error.strerror}; give yourself the right to, or move it away"
        ) from error


def _others(root: Path, records: Sequence[Record]) -> list[tuple[str, str]]:
    """What is under `root` beside the records' files; only counted where paths hold numbers of patients."""
    known = {record.path.relative_to(root).as_posix() for record in records}
    unreadable: list[OSError] = []
    for _ in os.walk(root, onerror=unreadable.append):
        pass
    found = [
        *(
            (path, "on disk, but in no row of the label file")
            for path in datasets.image_files(root)
            if path not in known
        ),
        *(
            (Path(error.filename).relative_to(root).as_posix(), f"a folder that cannot be read: {error.strerror}")
            for error in unreadable
        ),
    ]
    if any(record.name for record in records):
        reasons = [reason for _, reason in found]
        return [("", f"{reason} ({reasons.count(reason)})") for reason in sorted(set(reasons))]
    return found


def make_plan(sources: Sequence[Source], size: int) -> dict[str, Any]:
    """What a store is made of: a part made under another plan is no part of it."""
    digest = hashlib.sha256()
    for source in sources:
        for record in source.records:
            row = vars(record) | {
                "path": record.path.relative_to(source.root).as_posix(),
                "labels": dict(record.labels),
            }
            digest.update(json.dumps(row, sort_keys=True).encode())
    return {
        "format": FORMAT,
        "version": version("c2l-models"),
        "size": size,
        "sources": [source.name for source in sources],
        "records": sum(len(source.records) for source in sources),
        "sha256 of the records": digest.hexdigest(),
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """What two plans differ in, with a likely cause; empty if they agree."""
    differ = [key for key in other if one.get(key) != other[key]]
    hint = ""
    if differ == ["sha256 of the records"]:
        hint = " (other files or labels, or another patient key: C2L_PATIENT_KEY must name the same key everywhere)"
    return ", ".join(differ) + hint


def part(count: int, shard: Shard | None) -> slice:
    """Which of `count` records are a shard's: contiguous parts that differ by one record at most."""
    number, of = shard or (1, 1)
    if not 1 <= number <= of:
        raise DatasetError(f"shard {number}/{of}; wanted K/N with K from 1 to N, such as 3/16")
    return slice((number - 1) * count // of, number * count // of)


def check_roots(sources: Sequence[Source]) -> None:
    """Raise DatasetError if a root has become empty: a disk that went away is not a million missing files."""
    for source in sources:
        try:
            with os.scandir(source.root) as entries:
                gone = next(entries, None) is None
        except OSError:
            gone = True
        if gone:
            raise DatasetError(f"{source.root} was there and is not any more; mount it, then the same call goes on")
