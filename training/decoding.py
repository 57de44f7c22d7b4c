"""Many files -> rows of one array, in parallel; what is done is in a journal and never done again."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from c2l_models.errors import C2LError, DatasetError
from c2l_models.radiograph import read_radiograph, square

ROWS, JOURNAL = "rows.u8", "journal.jsonl"
CHUNK = 32  # images to a task of a worker and to a line of the journal


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its hash, or the reason for which it was refused."""

    sha256: str = ""
    refused: str = ""


def decode(building: Path, paths: Sequence[Path], size: int, workers: int | None, progress: bool) -> list[Outcome]:
    """Write the image of paths[i] to row i of `building/rows.u8`; the outcome of each, in their order.

    Rows are uint8 [size, size], black where a file is refused. What an earlier call has in the journal is not
    done again. Raises DatasetError if a process of the pool dies, or if rows that the journal has are gone.
    """
    outcomes = _read_journal(building / JOURNAL)
    chunks = [paths[start : start + CHUNK] for start in range(len(outcomes), len(paths), CHUNK)]
    bar = Progress(
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    (building / ROWS).touch()
    if (building / ROWS).stat().st_size < len(outcomes) * size * size:
        raise DatasetError(f"{building / ROWS} is shorter than {JOURNAL} says; remove {building}")
    with (building / ROWS).open("r+b") as rows, (building / JOURNAL).open("a") as journal, bar:
        task = bar.add_task("", total=len(paths), completed=len(outcomes))
        rows.seek(len(outcomes) * size * size)
        with _mapper(workers) as mapper:
            for block, done in mapper(partial(_decode_chunk, size=size), chunks):
                _write_through(rows, block.tobytes())
                # Only now may the journal say so: a line stands for rows that are on the disk.
                _write_through(journal, json.dumps([[o.sha256, o.refused] for o in done]) + "\n")
                outcomes += done
                bar.advance(task, len(done))
    return outcomes


def _read_journal(file: Path) -> list[Outcome]:
    """Outcomes of the finished chunks, in order; a last line that a stop cut short is cut off."""
    if not file.exists():
        return []
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    os.truncate(file, len(whole.encode()))
    return [Outcome(*pair) for line in whole.splitlines() for pair in json.loads(line)]


def _write_through(file: Any, data: str | bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _mapper(workers: int | None) -> Iterator[Any]:
    """An ordered, lazy map over processes; over none where `workers` is 1."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise DatasetError(
            "a decoding process died, for want of memory or in a script without `if __name__ == '__main__'`; "
            "the same call goes on where it was, with workers=1 in this process alone"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed: a pool's idle workers would stay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _decode_chunk(paths: Sequence[Path], size: int) -> tuple[np.ndarray, list[Outcome]]:
    """Images uint8 [len(paths), size, size], black where refused, and their outcomes."""
    block = np.zeros((len(paths), size, size), np.uint8)
    outcomes = []
    for row, path in zip(block, paths, strict=True):
        try:
            row[:], sha256 = _decode_file(path, size)
            outcomes.append(Outcome(sha256=sha256))
        except FileNotFoundError:
            outcomes.append(Outcome(refused="missing file"))
        except C2LError as error:
            outcomes.append(Outcome(refused=str(error)))
        except Exception as error:  # a file may break a decoder in any way, and none may stop the others
            # The type alone: the text of an error may quote what the file holds.
            outcomes.append(Outcome(refused=f"unexpected {type(error).__name__}"))
    return block, outcomes


def _decode_file(path: Path, size: int) -> tuple[np.ndarray, str]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's warnings may quote what the file holds
        return np.asarray(square(read_radiograph(path), size)), sha256
