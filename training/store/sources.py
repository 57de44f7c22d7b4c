"""Data sets given to `c2l prepare`: their records in index order, and the files that no record names."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import as_utf8, list_images

from ..datasets.adapters import ADAPTERS
from ..datasets.constants import NUMBERED_PATHS
from ..datasets.record import Record, relative_path


@dataclass(frozen=True)
class Source:
    """A data set in its root folder.

    Attributes:
        name: the data set's name.
        root: its folder.
        records: its records, in the order of their index paths.
        list_unused: whether `unused` lists files; if not, it is empty.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    list_unused: bool = True

    @cached_property
    def unused(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each image without a record and each unreadable folder; the first use lists the folders."""
        return tuple(_unused(self)) if self.list_unused else ()


def index_path(record: Record, root: Path) -> str:
    """The image's path in the index: relative to the root, or a substitute if paths contain patient numbers."""
    return as_utf8(record.name or relative_path(record.path, root))


def load_sources(sources: Sequence[tuple[str, Path]], list_unused: bool = True) -> list[Source]:
    """Load the records of data sets from (name, root folder) pairs.

    Records are sorted by index path. If they were sorted by original path, the k-th patient hash in CheXpert's index
    would belong to patient k, so the order would reveal the patient numbers.

    Raises DatasetError for an unknown data set, a data set listed twice, a root folder with another layout than the
    distribution, or a record outside the root.
    """
    names = [name for name, _ in sources]
    if unknown := [name for name in names if name not in ADAPTERS]:
        raise DatasetError(f"unknown data set {', '.join(unknown)}; choose from {', '.join(ADAPTERS)}")
    if not names or len(set(names)) < len(names):
        raise DatasetError(
            f"expected each data set once, found {', '.join(names) or 'none'}; give one root folder per data set"
        )
    return [_load(name, Path(root), list_unused) for name, root in sources]


def _load(name: str, root: Path, list_unused: bool) -> Source:
    if not os.path.isdir(root):  # noqa: PTH112 - pathlib's method raises if the parent folder may not be entered
        raise DatasetError(f"{root} is not a folder; give the root folder of the data set {name}")
    try:
        records = ADAPTERS[name](root)
        return Source(name, root, tuple(sorted(records, key=lambda record: index_path(record, root))), list_unused)
    except OSError as error:  # its file name is not shown: it may be the folder of a patient
        raise DatasetError(
            f"{root}: a file or folder in it cannot be read: {error.strerror}; check its permissions, or move it away"
        ) from None


def _unused(source: Source) -> list[tuple[str, str]]:
    """Images without a record and unreadable folders; only their counts if paths contain patient numbers."""
    known = {relative_path(record.path, source.root) for record in source.records}
    listing = list_images(source.root)
    found = [
        *((path, "on disk, but not in the label file") for path in listing.images if path not in known),
        *((path, f"folder cannot be read: {reason}") for path, reason in listing.unreadable),
    ]
    if source.name in NUMBERED_PATHS:
        reasons = Counter(reason for _, reason in found)
        return [("", f"{reason} ({count})") for reason, count in sorted(reasons.items())]
    return [(as_utf8(path), reason) for path, reason in found]
