"""What `c2l prepare` has to do: the records of the sources, in order, and the plan that a part of the work keeps to."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError

from .. import datasets
from ..datasets import Record
from .store_format import FORMAT

Shard = tuple[int, int]
"""(k, n): the k-th of n parts of the work, from 1."""


@dataclass(frozen=True)
class Source:
    """A data set under its root, and its records in the order of what the index calls them."""

    name: str
    root: Path
    records: tuple[Record, ...]
    with_others: bool = True

    @cached_property
    def others(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of what else is under the root, if asked for; the folders are gone through at first use."""
        return tuple(_others(self)) if self.with_others else ()


def shown(record: Record, root: Path) -> str:
    """What the index calls an image: the path under the root, or a name where that holds numbers of patients."""
    return datasets.as_utf8(record.name or datasets.below(record.path, root))


def load(sources: Sequence[tuple[str, Path]], others: bool = True) -> list[Source]:
    """The sources; their `others` stay empty unless asked for.

    Records come in the order of what the index calls them: in that of their paths, the k-th hash of CheXpert's
    index would be patient k's. Raises DatasetError for an unknown data set, one given twice, one that is not laid
    out as it should be, or a record outside the root.
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
    if not os.path.isdir(root):  # noqa: PTH112 - pathlib's raises where the folder above may not be entered
        raise DatasetError(f"{root} is not a folder; give the one that holds {name}")
    try:
        records = datasets.ADAPTERS[name](root)
        return Source(name, root, tuple(sorted(records, key=lambda record: shown(record, root))), others)
    except OSError as error:  # its file's name may be that of a patient's folder
        raise DatasetError(
            f"{root}: something in it cannot be read: {error.strerror}; give yourself the right to, or move it away"
        ) from None


def _others(source: Source) -> list[tuple[str, str]]:
    """What is under a root beside the records' files; only counted where paths hold numbers of patients."""
    known = {datasets.below(record.path, source.root) for record in source.records}
    listing = datasets.list_images(source.root)
    found = [
        *((path, "on disk, but in no row of the label file") for path in listing.images if path not in known),
        *((path, f"a folder that cannot be read: {reason}") for path, reason in listing.unreadable),
    ]
    if source.name in datasets.NUMBERED_PATHS:
        reasons = Counter(reason for _, reason in found)
        return [("", f"{reason} ({count})") for reason, count in sorted(reasons.items())]
    return [(datasets.as_utf8(path), reason) for path, reason in found]


def make_plan(sources: Sequence[Source], size: int) -> dict[str, Any]:
    """What a store is made of: a part made under another plan is no part of it."""
    digest = hashlib.sha256()
    for source in sources:
        for record in source.records:
            row = vars(record) | {"path": datasets.below(record.path, source.root), "labels": dict(record.labels)}
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
