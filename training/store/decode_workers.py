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
from itertools import islice
from multiprocessing.connection import Connection

from c2l_models.errors import C2LError, DatasetError
from c2l_models.radiographs.failures import MachineError
from c2l_models.radiographs.reading import decode_square, read_file

CHUNK = 16  # files to a task of a worker
AHEAD = 4  # tasks a worker has waiting or finished: bounds what is in memory behind a slow file
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL)  # exit codes
SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang

Task = Sequence[str]
Decoded = tuple[bytes, list["Outcome"]]
Function = Callable[[Task], Decoded]
Mapper = Callable[[Function, Iterable[Task]], Iterator[Decoded]]


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its sha256, or the reason for which it was refused, without its path.

    `stopped` is the reason for which this machine cannot tell: nothing is to be kept of such a file.
    """

    sha256: str = ""
    refused: str = ""
    stopped: str = ""


def decode_chunk(paths: Sequence[str], size: int) -> Decoded:
    """Rows uint8 [kept, size, size] as bytes, refused files left out, and the outcome of each path.

    The first file that this machine cannot decode, whatever it holds, is the last outcome.
    """
    rows, outcomes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's warnings may quote what the file holds
        for path in paths:
            try:
                data = read_file(path)
                rows.append(decode_square(data, size).tobytes())
                outcomes.append(Outcome(sha256=hashlib.sha256(data).hexdigest()))
            except Exception as error:  # a file may break a decoder in any way, and none may stop the others
                # The type alone: the text of an error may quote what the file holds.
                reason = str(error) if isinstance(error, C2LError) else f"unexpected {type(error).__name__}"
                if isinstance(error, (MachineError, MemoryError, OSError, ImportError)):
                    outcomes.append(Outcome(stopped=reason))
                    break
                outcomes.append(Outcome(refused=reason))
    return b"".join(rows), outcomes


@contextmanager
def mapper(workers: int | None) -> Iterator[Mapper]:
    """An ordered, lazy map over `workers` processes, by default one a core this process may use; over none for 1.

    A file whose decoding crashes its process, also alone, is refused. Raises DatasetError if no process starts.
    """
    if workers == 1:
        yield map
        return
    count = workers or _cores()
    pools: list[ProcessPoolExecutor] = []

    def start() -> ProcessPoolExecutor:
        pools.append(ProcessPoolExecutor(count, mp_context=SPAWN, initializer=_start_worker))
        return pools[-1]

    try:
        yield lambda function, tasks: _ordered(start, function, tasks, AHEAD * count)
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ordered(
    start: Callable[[], ProcessPoolExecutor], function: Function, tasks: Iterable[Task], ahead: int
) -> Iterator[Decoded]:
    """The results in the order of the tasks; those that a broken pool had in hand are done one by one."""
    tasks, waiting, results = iter(tasks), deque[Task](), deque[Future[Decoded]]()
    pool = start()
    while True:
        try:
            for task in islice(tasks, ahead + 1 - len(waiting)):
                waiting.append(task)
                results.append(pool.submit(function, task))
            if not waiting:
                return
            result = results[0].result()
        except BrokenProcessPool:
            for task in waiting:
                yield _carefully(function, task)
            waiting.clear()
            results.clear()
            pool = start()
        else:
            waiting.popleft()
            results.popleft()
            yield result


def _carefully(function: Function, task: Task) -> Decoded:
    """A task in a process of its own and, if that dies, each half of it in one."""
    decoded = _alone(function, task)
    if not isinstance(decoded, int):
        return decoded
    if len(task) == 1:
        crash = Outcome(refused="decoding it ended the process")
        killed = Outcome(stopped=f"decoding it was killed (exit code {decoded}), as for want of memory")
        return b"", [crash if decoded in CRASHES else killed]
    half = len(task) // 2
    rows, outcomes = _carefully(function, task[:half])
    if outcomes[-1].stopped:
        return rows, outcomes
    more, others = _carefully(function, task[half:])
    return rows + more, outcomes + others


def _alone(function: Function, task: Task) -> Decoded | int:
    """What a process of its own gives for the task; the exit code if it died over it.

    Raises DatasetError if it died before: then nothing is said of the files.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_give, args=(sender, function, task), daemon=True)
    process.start()
    sender.close()
    started = False
    try:
        with receiver:
            started = receiver.recv()
            decoded: Decoded = receiver.recv()
            return decoded
    except EOFError:
        if not started:
            raise DatasetError(
                "a decoding process cannot start, for want of memory or in a script without "
                "`if __name__ == '__main__'`; the same call goes on where it was, with fewer workers, or with "
                "workers=1 in this process alone"
            ) from None
    finally:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def _give(sender: Connection, function: Function, task: Task) -> None:
    _start_worker()
    sender.send(True)
    sender.send(function(task))


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed: a pool's idle workers would stay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
