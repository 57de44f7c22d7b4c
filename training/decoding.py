"""Many files -> rows of uint8, in parallel. A worker imports this module, and neither torch nor pyarrow."""

import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from c2l_models.errors import C2LError, DatasetError
from c2l_models.radiograph import decode_square, read_file

CHUNK = 16  # files to a task of a worker
AHEAD = 4  # tasks a worker has waiting or finished: bounds what is in memory behind a slow file

Decoded = tuple[bytes, list["Outcome"]]
Mapper = Callable[[Callable[[Sequence[str]], Decoded], Iterable[Sequence[str]]], Iterator[Decoded]]


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its sha256, or the reason for which it was refused, without its path."""

    sha256: str = ""
    refused: str = ""


def decode_chunk(paths: Sequence[str], size: int) -> Decoded:
    """Rows uint8 [kept, size, size] as bytes, refused files left out, and the outcome of each path."""
    rows, outcomes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's warnings may quote what the file holds
        for path in paths:
            try:
                data = read_file(path)
                rows.append(decode_square(data, size).tobytes())
                outcomes.append(Outcome(sha256=hashlib.sha256(data).hexdigest()))
            except C2LError as error:
                outcomes.append(Outcome(refused=str(error)))
            except Exception as error:  # a file may break a decoder in any way, and none may stop the others
                # The type alone: the text of an error may quote what the file holds.
                outcomes.append(Outcome(refused=f"unexpected {type(error).__name__}"))
    return b"".join(rows), outcomes


@contextmanager
def mapper(workers: int | None) -> Iterator[Mapper]:
    """An ordered, lazy map over `workers` processes, by default one a core this process may use; over none for 1.

    Raises DatasetError if one of them dies.
    """
    if workers == 1:
        yield map
        return
    workers = workers or _cores()
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield lambda function, tasks: _ordered(pool, function, tasks, AHEAD * workers)
    except BrokenProcessPool:
        raise DatasetError(
            "a decoding process died, for want of memory or in a script without `if __name__ == '__main__'`; "
            "the same call goes on where it was, with fewer workers, or with workers=1 in this process alone"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ordered(
    pool: ProcessPoolExecutor,
    function: Callable[[Sequence[str]], Decoded],
    tasks: Iterable[Sequence[str]],
    ahead: int,
) -> Iterator[Decoded]:
    waiting: deque[Future[Decoded]] = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed: a pool's idle workers would stay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
