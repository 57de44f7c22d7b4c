"""Decode files to uint8 rows in parallel processes, which import neither torch nor pyarrow."""

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

from c2l_models.errors import C2LError, DatasetError, MachineError
from c2l_models.radiographs.reading import decode_square, read_file

CHUNK = 16  # files per task
AHEAD = 4  # tasks submitted per worker: bounds memory while a slow file holds up the results
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL)  # exit codes of a crashed decoder
SPAWN = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang

Task = Sequence[str]
Decoded = tuple[bytes, list["Outcome"]]
Function = Callable[[Task], Decoded]
Mapper = Callable[[Function, Iterable[Task]], Iterator[Decoded]]


@dataclass(frozen=True)
class Outcome:
    """Result of decoding one file; exactly one field is set. The reasons do not contain the path.

    Attributes:
        sha256: of the file, if it was decoded.
        refused: the reason, if the file cannot be decoded.
        stopped: the reason, if this machine failed (disk, memory, missing decoder). Such a file is not recorded.
    """

    sha256: str = ""
    refused: str = ""
    stopped: str = ""


def decode_chunk(paths: Sequence[str], size: int) -> Decoded:
    """Decode files: rows uint8 [kept, size, size] as bytes, without refused files, and the outcome of each path.

    Decoding ends at the first file that this machine fails to decode; its outcome is the last.
    """
    rows, outcomes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's warnings may quote the file's content
        for path in paths:
            try:
                data = read_file(path)
                rows.append(decode_square(data, size).tobytes())
                outcomes.append(Outcome(sha256=hashlib.sha256(data).hexdigest()))
            except Exception as error:  # a file may break a decoder in any way; the other files must still be decoded
                # Only the type: the text of an unknown error may quote the file's content.
                reason = str(error) if isinstance(error, C2LError) else f"unexpected {type(error).__name__}"
                if isinstance(error, (MachineError, MemoryError, OSError, ImportError)):
                    outcomes.append(Outcome(stopped=reason))
                    break
                outcomes.append(Outcome(refused=reason))
    return b"".join(rows), outcomes


@contextmanager
def decoding_pool(workers: int | None) -> Iterator[Mapper]:
    """A lazy map that keeps the order, over `workers` processes: by default one per usable core; 1 uses this process.

    If decoding a file crashes a worker, and crashes again in a process of its own, the file is refused. Raises
    DatasetError if no process can start.
    """
    if workers == 1:
        yield map
        return
    count = workers or _usable_cores()
    pools: list[ProcessPoolExecutor] = []

    def start() -> ProcessPoolExecutor:
        pools.append(ProcessPoolExecutor(count, mp_context=SPAWN, initializer=_start_worker))
        return pools[-1]

    try:
        yield lambda function, tasks: _map_in_order(start, function, tasks, AHEAD * count)
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _usable_cores() -> int:
    """Cores that this process may use; all cores if the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _map_in_order(
    start: Callable[[], ProcessPoolExecutor], function: Function, tasks: Iterable[Task], ahead: int
) -> Iterator[Decoded]:
    """Yield results in the order of the tasks. If the pool breaks, its pending tasks run one at a time."""
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
                yield _isolate_crashes(function, task)
            waiting.clear()
            results.clear()
            pool = start()
        else:
            waiting.popleft()
            results.popleft()
            yield result


def _isolate_crashes(function: Function, task: Task) -> Decoded:
    """Run a task in its own process; if the process dies, run each half separately, down to the file at fault."""
    decoded = _run_alone(function, task)
    if not isinstance(decoded, int):
        return decoded
    if len(task) == 1:
        crashed = Outcome(refused="decoding this file crashed the process")
        killed = Outcome(
            stopped=f"the process that decoded this file was killed (exit code {decoded}), possibly because memory "
            "ran out"
        )
        return b"", [crashed if decoded in CRASHES else killed]
    half = len(task) // 2
    rows, outcomes = _isolate_crashes(function, task[:half])
    if outcomes[-1].stopped:
        return rows, outcomes
    more_rows, more_outcomes = _isolate_crashes(function, task[half:])
    return rows + more_rows, outcomes + more_outcomes


def _run_alone(function: Function, task: Task) -> Decoded | int:
    """The result of a task in its own process, or the exit code if the process died during the task.

    Raises DatasetError if the process died before it began the task, because the files are then not the cause.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_send_result, args=(sender, function, task), daemon=True)
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
                "a decoding process cannot start: there is not enough memory, or the calling script lacks "
                "`if __name__ == '__main__'`. Finished work is safe: repeat the call to resume, with fewer workers, "
                "or with workers=1 to decode in this process"
            ) from None
    finally:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def _send_result(sender: Connection, function: Function, task: Task) -> None:
    _start_worker()
    sender.send(True)
    sender.send(function(task))


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and exit with it even if it is killed; otherwise idle workers would remain."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
