"""Tells a disk that went away from files that are missing."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from ..datasets import Record

STEP = 64
"""One file in so many of a data set, in the order of their paths, is a landmark."""


def find_landmarks(records: Sequence[Record]) -> list[int]:
    """Numbers of the landmarks by path: the folder of each holds something now, though not always the file."""
    order = sorted(range(len(records)), key=lambda number: _key(records[number]))
    found: list[int] = []
    for _, numbers in groupby(order, key=lambda number: records[number].dataset):
        found += [number for number in list(numbers)[::STEP] if _holds_something(records[number].path.parent)]
    return found


class Landmarks:
    """`find_landmarks` of the same records, at the time when their store was begun."""

    def __init__(self, records: Sequence[Record], numbers: Sequence[int]) -> None:
        self._records, self._numbers = records, numbers
        self._keys = [_key(records[number]) for number in numbers]

    def vanished(self, refused: Iterable[int]) -> str:
        """The data set of which a folder has gone, and one of these refused files with it; empty if none has.

        It has if the folder of the landmark before or after the file, by path, is gone, empty or shut. A folder
        that held nothing when the store was begun, as after a download in part, is no landmark's, and its files
        are simply missing.
        """
        return next((found for number in refused if (found := self._gone_beside(number))), "")

    def _gone_beside(self, number: int) -> str:
        at = bisect_left(self._keys, _key(self._records[number]))
        # Not the file itself: it may be taken out of a folder that it was alone in.
        beside = [other for other in self._numbers[max(at - 1, 0) : at + 2] if other != number][:2]
        gone = (self._records[other] for other in beside if not _holds_something(self._records[other].path.parent))
        return next((record.dataset for record in gone), "")


def _key(record: Record) -> tuple[str, str]:
    return record.dataset, str(record.path)


def _holds_something(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except (OSError, ValueError):
        return False
