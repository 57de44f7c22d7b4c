"""Distinguish an unmounted disk from missing files, so that a lost mount is not recorded as thousands of bad files."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from ..datasets.record import Record

STEP = 64
"""Every `STEP`-th file of a data set, in path order, is a sentinel, if its folder is not empty."""


def find_sentinels(records: Sequence[Record]) -> list[int]:
    """Row numbers of the sentinels, in path order: files whose folder is not empty now; the file may be missing."""
    order = sorted(range(len(records)), key=lambda number: _key(records[number]))
    found: list[int] = []
    for _, numbers in groupby(order, key=lambda number: records[number].dataset):
        found += [number for number in list(numbers)[::STEP] if _is_not_empty(records[number].path.parent)]
    return found


class UnmountedDiskCheck:
    """Checks whether folders of the sentinels disappeared after the store was begun.

    Args:
        records: the records that `find_sentinels` was called with.
        sentinels: row numbers of the sentinels.
    """

    def __init__(self, records: Sequence[Record], sentinels: Sequence[int]) -> None:
        self._records, self._sentinels = records, sentinels
        self._keys = [_key(records[number]) for number in sentinels]

    def lost_dataset(self, refused: Iterable[int]) -> str:
        """The data set whose folders disappeared together with one of these refused files; empty if none did.

        Folders have disappeared if the folder of the previous or next sentinel, by path, is missing, empty or
        unreadable. A folder that was empty when the store was begun, for example after a partial download, has no
        sentinel, so its files count as missing.
        """
        return next((found for number in refused if (found := self._lost_near(number))), "")

    def _lost_near(self, number: int) -> str:
        at = bisect_left(self._keys, _key(self._records[number]))
        # Skip the file itself: if it was the only file of its folder, someone may have removed just this file.
        nearest = [other for other in self._sentinels[max(at - 1, 0) : at + 2] if other != number][:2]
        lost = (self._records[other] for other in nearest if not _is_not_empty(self._records[other].path.parent))
        return next((record.dataset for record in lost), "")


def _key(record: Record) -> tuple[str, str]:
    return record.dataset, str(record.path)


def _is_not_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except (OSError, ValueError):
        return False
