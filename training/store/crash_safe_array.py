"""An array that grows on the disk, and the journal of the files it was made from; a stop cannot part them."""

import io
import json
import os
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from c2l_models.errors import DatasetError

from .decode_workers import Outcome

JOURNAL = "journal.jsonl"
SYNC_SECONDS = 1.0


def npy_header(count: int, size: int) -> bytes:
    """The head of an .npy file of uint8 [count, size, size]: of the same length for any count."""
    buffer = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size)}
    np.lib.format.write_array_header_1_0(buffer, shape)
    return buffer.getvalue()


@contextmanager
def writing(folder: Path, advice: str) -> Iterator[None]:
    """Turn an operating system's error into a DatasetError that names the folder and says what to do next."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written to: {error.strerror or error}. {advice}") from error


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write every byte to an unbuffered file, which may take fewer at a time, as a disk that fills up does."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk when this returns; a folder only where the system can."""
    is_folder = path.is_dir()
    with suppress(OSError) if is_folder else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Journal:
    """The images `images`, an .npy file of uint8 [kept, size, size], and a line a chunk of what became of its files.

    The first line is `head`, a JSON object: what it is the journal of.

    Rows are appended in the files' order and those of refused files left out, so the array is written once. A
    line is written when its rows are on the disk, at most every `SYNC_SECONDS` and on leaving: a kill costs the
    work since then, never a row that the journal has. Each line has a checksum; from a damaged one on, the files
    are decoded again (a warning says how many lines), and a last one that a kill cut short is dropped.

    Raises DatasetError if the journal has another head, if rows that it has are gone, or if the disk takes no more.
    """

    def __init__(self, folder: Path, images: Path, size: int, head: dict[str, Any]) -> None:
        self._folder, self._size = folder, size
        self.outcomes: list[Outcome] = []
        self._pending: list[str] = []
        self._head = len(npy_header(0, size))
        with self._writing():
            self._images = os.fdopen(os.open(images, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            self._lines = os.fdopen(os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            self._resume(images, head)
        self._synced = time.monotonic()

    def append(self, rows: bytes, outcomes: Sequence[Outcome]) -> None:
        """The kept rows of the next files, and the outcome of each of these files."""
        end = self._images.tell()
        with self._writing():
            try:
                write_all(self._images, rows)
            except OSError:
                self._images.truncate(end)  # leaves room on a full disk for the lines of what was finished
                raise
        self._pending.append(_line([len(self.outcomes), *([o.sha256, o.refused] for o in outcomes)]))
        self.outcomes += outcomes
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Have the rows, and then the lines that stand for them, on the disk."""
        lines, self._pending = "".join(self._pending), []
        with self._writing():
            os.fsync(self._images.fileno())
            write_all(self._lines, lines.encode())
            os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def finish(self) -> None:
        """Write the head of the array."""
        self.flush()
        with self._writing():
            self._images.seek(0)
            write_all(self._images, npy_header(self._kept(), self._size))
            self._images.truncate(self._end())
            os.fsync(self._images.fileno())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._pending:
                self.flush()
        finally:
            self._images.close()
            self._lines.close()

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._folder, "What was finished is safe: make room, and the same call goes on where it was")

    def _kept(self) -> int:
        return sum(not outcome.refused for outcome in self.outcomes)

    def _end(self) -> int:
        return self._head + self._kept() * self._size**2

    def _resume(self, images: Path, head: dict[str, Any]) -> None:
        found, self.outcomes, good = _read(self._lines.read(), self._folder / JOURNAL)
        if found not in (None, head):
            raise DatasetError(f"{self._folder / JOURNAL} is the journal of something else; remove {self._folder}")
        if self._images.seek(0, os.SEEK_END) < self._end() and self.outcomes:
            raise DatasetError(f"{images} is shorter than {JOURNAL} says; remove {self._folder}")
        self._lines.truncate(good)
        self._lines.seek(good)
        self._images.truncate(self._end())
        self._images.seek(self._end())
        if found is None:
            write_all(self._lines, _line(head).encode())
            os.fsync(self._lines.fileno())
        sync(images.parent)
        sync(self._folder)


def journal_head(folder: Path) -> dict[str, Any] | None:
    """What the journal in a folder is of; None if there is none, or none whose first line is whole."""
    file = folder / JOURNAL
    if not file.exists():
        return None
    with file.open("rb") as lines:
        return _head(lines.readline())


def _line(payload: Any) -> str:
    text = json.dumps(payload)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _payload(line: bytes) -> Any:
    """What `_line` was given; None if the line is cut short or damaged."""
    checksum, _, text = line[:-1].partition(b" ")
    return json.loads(text) if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text) else None


def _head(line: bytes) -> dict[str, Any] | None:
    payload = _payload(line)
    return payload if isinstance(payload, dict) else None


def _read(data: bytes, file: Path) -> tuple[dict[str, Any] | None, list[Outcome], int]:
    """The head, the outcomes of the lines before the first cut short or damaged, and the bytes these take."""
    first, *lines = data.splitlines(keepends=True) or [b""]
    head, outcomes = _head(first), list[Outcome]()
    good = 0 if head is None else len(first)
    for line in lines if good else ():
        payload = _payload(line)
        if payload is None or payload[0] != len(outcomes):
            break
        outcomes += [Outcome(*pair) for pair in payload[1:]]
        good += len(line)
    if lost := data[good:].count(b"\n"):
        warnings.warn(f"{file} is damaged: the files of its last {lost} lines are decoded again", stacklevel=4)
    return head, outcomes, good
