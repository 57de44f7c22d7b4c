"""Data sets given to `c2l prepare`: their records in index order, and the files that no record names."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import as_utf8, list_images

from ..datasets import folder
from ..datasets.adapters import ADAPTERS, find_description
from ..datasets.constants import NUMBERED_PATHS
from ..datasets.description import FILE, Description, matches
from ..datasets.record import Record, relative_path


@dataclass(frozen=True)
class Source:
    """A data set in its root folder.

    Attributes:
        name: the data set's name.
        root: its folder.
        records: its records, in the order of their index paths.
        list_unused: whether `unused` lists files; if not, it is empty.
        tables: files of the root folder that were read.
        facts: title, license, … from the data set's description (`description.FACTS`); empty without one.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    list_unused: bool = True
    tables: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def unused(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each image without a record, and of each folder and file left out.

        The first use lists the folders. A public data set's files that are no images are not listed.
        """
        return tuple(_unused(self)) if self.list_unused else ()


def index_path(record: Record, root: Path) -> str:
    """The image's path in the index: relative to the root, or a substitute if paths contain patient numbers."""
    return as_utf8(record.name or relative_path(record.path, root))


def load_sources(
    sources: Sequence[tuple[str, Path]], list_unused: bool = True, pretraining_only: Sequence[str] = ()
) -> list[Source]:
    """Load the records of data sets.

    Records are sorted by index path. If they were sorted by original path, the k-th patient hash in CheXpert's index
    would belong to patient k, so the order would reveal the patient numbers.

    Args:
        sources: (name, root folder) pairs; `adapters.find_description` says which names are allowed.
        list_unused: whether `Source.unused` lists files.
        pretraining_only: "NAME:PATTERN". Images of the data set NAME whose index path matches PATTERN are marked, in
            addition to the images that its description marks; `*` matches any characters, `/` included.

    Raises DatasetError for an unknown data set, a data set listed twice, a root folder with another layout than the
    distribution, a bad description, a record outside the root, or a pattern without images.
    """
    described = [(name, Path(root), find_description(name, Path(root))) for name, root in sources]
    names = [description.name if description else name for name, _, description in described]
    if not names or len(set(names)) < len(names):
        raise DatasetError(
            f"expected each data set once, found {', '.join(names) or 'none'}; give one root folder per data set, and "
            f"each folder a name of its own in its {FILE}"
        )
    own = [f"{one.name}:{pattern}" for _, _, one in described if one for pattern in one.pretraining_only]
    return _mark([_load(*data_set, list_unused) for data_set in described], [*own, *pretraining_only])


def _load(name: str, root: Path, description: Description | None, list_unused: bool) -> Source:
    if not os.path.isdir(root):  # noqa: PTH112 - pathlib's method raises if the parent folder may not be entered
        raise DatasetError(f"{root} is not a folder; give the root folder of the data set {name}")
    try:
        records = folder.records(root, description) if description else ADAPTERS[name](root)
    except OSError as error:  # its file name is not shown: it may be the folder of a patient
        raise DatasetError(
            f"{root}: a file or folder in it cannot be read: {error.strerror}; check its permissions, or move it away"
        ) from None
    records = sorted(records, key=lambda record: index_path(record, root))
    if description is None:
        tables = (folder.UNDESCRIBED.table,) if name == "folder" else ()
        return Source(name, root, tuple(records), list_unused, tables)
    return Source(description.name, root, tuple(records), list_unused, (FILE, description.table), description.facts())


def _mark(sources: Sequence[Source], pretraining_only: Sequence[str]) -> list[Source]:
    """The sources with `Record.pretraining_only` set for the images of these patterns, "NAME:PATTERN" each."""
    found = {source.name: source for source in sources}
    for text in pretraining_only:
        name, colon, pattern = text.partition(":")
        if not colon or name not in found:
            raise DatasetError(
                f"--pretraining-only {text}: expected NAME:PATTERN with a data set among {', '.join(found)}; correct "
                "the name"
            )
        source = found[name]
        marked = [matches(index_path(record, source.root), [pattern]) for record in source.records]
        if not any(marked):
            raise DatasetError(
                f"pretraining only, {text}: expected a pattern of paths in {source.root}, found no image that matches "
                "it; give a pattern such as 'images_002/*'"
            )
        records = [
            replace(record, pretraining_only=True) if mark else record
            for record, mark in zip(source.records, marked, strict=True)
        ]
        found[name] = replace(source, records=tuple(records))
    return list(found.values())


def _unused(source: Source) -> list[tuple[str, str]]:
    """As `Source.unused`; only the numbers by reason if paths contain patient numbers."""
    known = {relative_path(record.path, source.root) for record in source.records}
    listing = list_images(source.root)
    found = [(path, "on disk, but not in the label file") for path in listing.images if path not in known]
    if source.name in ADAPTERS and source.name != "folder":  # its other files are the data set's own tables
        listing = replace(listing, left_out=[])
    found += [(path, reason) for path, reason in listing.all_left_out() if path not in source.tables]
    if source.name in NUMBERED_PATHS:
        reasons = Counter(reason for _, reason in found)
        return [("", f"{reason} ({count})") for reason, count in sorted(reasons.items())]
    return [(as_utf8(path), reason) for path, reason in found]
