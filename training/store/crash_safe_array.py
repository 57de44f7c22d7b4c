"""Crash-safe writing of an array: rows are appended to an .npy file, and a journal records which rows are complete."""

import io
import json
import os
import time
import warnings
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from c2l_models.errors import DatasetError
from c2l_models.files import sync_folder

from .build_folder import write_errors
from .decode_or_refuse import Outcome

JOURNAL = "journal.jsonl"
SYNC_SECONDS = 1.0
"""Shortest time between two flushes to the disk, except the last."""


def npy_header(count: int, size: int) -> bytes:
    """The header of an .npy file of uint8 [count, size, size]; its length does not depend on `count`."""
    buffer = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size)}
    np.lib.format.write_array_header_1_0(buffer, shape)
    return buffer.getvalue()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to an unbuffered file, which may accept fewer per call when the disk fills up."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class CrashSafeArray:
    """A growing .npy file of uint8 [kept, size, size], and a journal with the outcome of each decoded file.

    The journal's first line is `header`, a JSON object that identifies the array's content. Each further line has the
    outcomes of one chunk of files.

    Rows are appended in the order of the files, without the rows of refused files, so that the array is written once.
    Journal lines are written after their rows are flushed to the disk, so every row in the journal is complete. This
    happens at most once per `SYNC_SECONDS`, and at the end. After a kill, the files since the last line are decoded
    again. Each line has a checksum. If a line is damaged, its files and all later files are decoded again, and a
    warning reports the number of lines. A last line that a kill cut short is dropped without a warning.

    Raises DatasetError if the journal has another header, if the array is shorter than the journal says, or if the
    disk is full.

    Args:
        folder: the folder of the journal.
        images: the .npy file.
        size: side of the images in pixels.
        header: the journal's first line.
    """

    def __init__(self, folder: Path, images: Path, size: int, header: dict[str, Any]) -> None:
        self._folder, self._size = folder, size
        self.outcomes: list[Outcome] = []
        self._pending: list[str] = []
        self._npy_header_length = len(npy_header(0, size))
        with self._write_errors():
            self._images = os.fdopen(os.open(images, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            self._journal = os.fdopen(os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            self._resume(images, header)
        self._synced = time.monotonic()

    def append(self, rows: bytes, outcomes: Sequence[Outcome]) -> None:
        """Append the outcomes of the next files, and the rows of those files that were kept."""
        end = self._images.tell()
        with self._write_errors():
            try:
                write_all(self._images, rows)
            except OSError:
                self._images.truncate(end)  # on a full disk, journal lines of earlier rows need the space
                raise
        self._pending.append(_line([len(self.outcomes), *([o.sha256, o.refused] for o in outcomes)]))
        self.outcomes += outcomes
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Flush the rows to the disk, then their journal lines."""
        lines, self._pending = "".join(self._pending), []
        with self._write_errors():
            os.fsync(self._images.fileno())
            write_all(self._journal, lines.encode())
            os.fsync(self._journal.fileno())
        self._synced = time.monotonic()

    def finish(self) -> None:
        """Write the header of the .npy file, which makes the file valid."""
        self.flush()
        with self._write_errors():
            self._images.seek(0)
            write_all(self._images, npy_header(self._kept(), self._size))
            self._images.truncate(self._end())
            os.fsync(self._images.fileno())

    def __enter__(self) -> "CrashSafeArray":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._pending:
                self.flush()
        finally:
            self._images.close()
            self._journal.close()

    def _write_errors(self) -> AbstractContextManager[None]:
        return write_errors(self._folder, "Finished work is safe: free disk space, then repeat the command to resume")

    def _kept(self) -> int:
        return sum(not outcome.refused for outcome in self.outcomes)

    def _end(self) -> int:
        return self._npy_header_length + self._kept() * self._size**2

    def _resume(self, images: Path, header: dict[str, Any]) -> None:
        found, self.outcomes, valid = _read(self._journal.read(), self._folder / JOURNAL)
        if found not in (None, header):
            raise DatasetError(
                f"{self._folder / JOURNAL} belongs to another store; remove {self._folder} to start again"
            )
        if self._images.seek(0, os.SEEK_END) < self._end() and self.outcomes:
            raise DatasetError(f"{images} is shorter than {JOURNAL} says; remove {self._folder} to start again")
        self._journal.truncate(valid)
        self._journal.seek(valid)
        self._images.truncate(self._end())
        self._images.seek(self._end())
        if found is None:
            write_all(self._journal, _line(header).encode())
            os.fsync(self._journal.fileno())
        sync_folder(images.parent)
        sync_folder(self._folder)


def journal_header(folder: Path) -> dict[str, Any] | None:
    """The header of the journal in a folder; None if there is no journal, or if its first line is incomplete."""
    file = folder / JOURNAL
    if not file.exists():
        return None
    with file.open("rb") as lines:
        return _header(lines.readline())


def _line(payload: Any) -> str:
    text = json.dumps(payload)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _payload(line: bytes) -> Any:
    """The payload of a line that `_line` made; None if the line is cut short or damaged."""
    checksum, _, text = line[:-1].partition(b" ")
    return json.loads(text) if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text) else None


def _header(line: bytes) -> dict[str, Any] | None:
    payload = _payload(line)
    return payload if isinstance(payload, dict) else None


def _read(data: bytes, file: Path) -> tuple[dict[str, Any] | None, list[Outcome], int]:
    """The journal's header, the outcomes up to the first damaged line, and the number of valid bytes."""
    first, *lines = data.splitlines(keepends=True) or [b""]
    header, outcomes = _header(first), list[Outcome]()
    valid = 0 if header is None else len(first)
    for line in lines if valid else ():
        payload = _payload(line)
        if payload is None or payload[0] != len(outcomes):
            break
        outcomes += [Outcome(*pair) for pair in payload[1:]]
        valid += len(line)
    if lost := data[valid:].count(b"\n"):
        warnings.warn(f"{file} is damaged: the files of its last {lost} lines are decoded again", stacklevel=4)
    return header, outcomes, valid
