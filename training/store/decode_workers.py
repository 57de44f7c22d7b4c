"""Run the decoding of files in parallel processes, and survive files that crash their decoder.

The processes import neither torch nor pyarrow.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection

from c2l_models.errors import DatasetError

from .decode_or_refuse import Decoded, Outcome

CHUNK = 16  # files per task
AHEAD = 4  # tasks submitted per worker: limits memory, because results wait in order behind a slow file
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL)  # exit codes of a crashed decoder
SPAWN = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang

Task = Sequence[str]
Function = Callable[[Task], Decoded]
Mapper = Callable[[Function, Iterable[Task]], Iterator[Decoded]]


@contextmanager
def decoding_pool(workers: int | None) -> Iterator[Mapper]:
    """A lazy map over `workers` processes that keeps the order. Default: one per usable core; 1 uses this process.

    If decoding a file crashes a worker, and again crashes a process that decodes only this file, the file is refused.
    Raises DatasetError if no process can start.
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
    """Run a task in its own process. If the process dies, run each half separately, until one file is found."""
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
