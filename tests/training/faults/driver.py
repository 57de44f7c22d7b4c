"""A process that has imported all of `c2l pretrain`, and forks a child for each run of a test.

A child runs the real command with a network of one convolution and the requested faults. A fork starts in a tenth of a
second. Requests are JSON, one per line. The answer is a line with the child's exit status, or minus the signal that
killed it.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import SmallEncoder

from c2l_models import cli
from c2l_models.training import callbacks, pretrain
from c2l_models.training.objectives import momentum_teacher
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.run import Run
from c2l_models.training.run_files import backbone as export
from c2l_models.training.run_files import checkpoint

PHASES = {
    "step": (pretrain, "train_step"),
    "checkpoint": (checkpoint, "save"),
    "best": (checkpoint, "mark_best"),
    "probe": (KnnMonitor, "__call__"),
}
FEW_BYTES = 1024


class Events:
    """A child's events, one JSON line each, written at once so that a kill loses none."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, **event: Any) -> None:
        os.write(self.file, (json.dumps(event) + "\n").encode())


def before(owner: Any, name: str, act: Any) -> None:
    """Call `act` with its arguments before each call of a function or method."""
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        act(*arguments)
        return function(*arguments, **keywords)

    setattr(owner, name, wrapped)


def record_progress(events: Events) -> None:
    """Record the step at which the run starts or resumes, each written checkpoint, and the time to the first batch."""
    began = time.monotonic()
    start_or_resume, save = Run.start_or_resume, checkpoint.save

    def watched_start(run: Run, resume: bool) -> Any:
        damaged = start_or_resume(run, resume)
        events.add(began=run.step, passed_over=damaged)
        return damaged

    def watched_save(run_folder: Path, state: Any, step: int, keep: int) -> Path:
        path = save(run_folder, state, step, keep)
        events.add(written=step)
        return path

    Run.start_or_resume, checkpoint.save = watched_start, watched_save  # type: ignore[method-assign, assignment]
    before(pretrain, "batches", lambda *_: events.add(phase="start", seconds=time.monotonic() - began))


def time_phases(events: Events) -> None:
    """Record the time of each call of each phase."""

    def timed(function: Any, phase: str) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            began = time.monotonic()
            result = function(*arguments, **keywords)
            events.add(phase=phase, seconds=time.monotonic() - began)
            return result

        return wrapped

    for phase, (owner, name) in PHASES.items():
        setattr(owner, name, timed(getattr(owner, name), phase))


def send_signal(phase: str, count: int = 1, delays: Sequence[float] = (0,), number: int = signal.SIGKILL) -> None:
    """Send one signal per delay, in seconds after the `count`-th start of a phase, at the latest at the phase's end.

    The phase "start" lasts from the child's start to the first batch.
    """
    pending = list(delays)

    def send() -> None:
        if pending:
            pending.pop()
            os.kill(os.getpid(), number)

    def begin() -> None:
        for delay in delays:
            if delay:
                timer = threading.Timer(delay, send)
                timer.daemon = True
                timer.start()
            else:
                send()

    def end(*_: Any) -> None:
        while pending:
            send()

    if phase == "start":
        before(pretrain, "batches", end)
        begin()
        return
    owner, name = PHASES[phase]
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count -= 1
        if count == 0:
            begin()
        result = function(*arguments, **keywords)
        if count == 0:
            end()
        return result

    setattr(owner, name, wrapped)


def slow_disk(seconds: float) -> None:
    """Make each sync slow, so that a kill within a checkpoint comes before its rename or right after it."""
    before(os, "fsync", lambda _: time.sleep(seconds))


def limit_space(first: int, last: int, full: str | None = None) -> None:
    """Make writes fail from the checkpoint of step `first` on: limit the size of files, or fill a disk.

    `full`: a file on the disk to fill. Space is freed before the checkpoint of step `last`.
    """

    def act(run_folder: Path, state: Any, step: int, keep: int) -> None:
        if full is None:
            soft = FEW_BYTES if first <= step < last else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
        elif first <= step < last:
            fill(Path(full))
        else:
            Path(full).unlink(missing_ok=True)

    before(checkpoint, "save", act)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(FEW_BYTES))
        except OSError:
            pass


def poison_weights(step: int) -> None:
    """Put NaN in the student before a step."""

    def act(model: Any, *_: Any) -> None:
        nonlocal step
        step -= 1
        if step == 0:
            with torch.no_grad():
                next(pretrain.unwrap(model).student.parameters()).view(-1)[0] = torch.nan

    before(pretrain, "train_step", act)


def poison_image(row: int) -> None:
    """Turn one radiograph of the store into NaN."""
    make, views = pretrain.batches, momentum_teacher.two_views
    rows: Any = None

    def batches(*arguments: Any, **keywords: Any) -> Any:
        nonlocal rows
        for batch in make(*arguments, **keywords):
            rows = batch.rows
            yield batch

    def two_views(*arguments: Any, **keywords: Any) -> Any:
        x1, x2 = views(*arguments, **keywords)
        x1[rows == row] = torch.nan
        return x1, x2

    pretrain.batches, momentum_teacher.two_views = batches, two_views


FAULTS = {fault.__name__: fault for fault in (send_signal, slow_disk, limit_space, poison_weights, poison_image)}


def run(arguments: list[str], faults: dict[str, Any], events: str, times: bool, pictures: bool) -> None:
    """In the child: run `c2l pretrain` once, with or without timing and pictures."""
    torch.set_num_threads(1)
    momentum_teacher.Encoder = SmallEncoder  # type: ignore[assignment, misc]
    KnnMonitor.__call__ = varied(KnnMonitor.__call__)  # type: ignore[method-assign]
    if not pictures:
        callbacks.draw_first_batch = callbacks.draw_curves = lambda *_: None
    export.export_run = lambda run_folder, path, *_, **__: path  # a network of one convolution is no backbone to export
    recorder = Events(events)
    record_progress(recorder)
    if times:
        time_phases(recorder)
    for name, options in faults.items():
        FAULTS[name](**options)
    cli.main(["pretrain", *arguments])


def varied(probe: Any) -> Any:
    """Replace the probe's AUROC, always 1 on the tiny store, by a value that depends on every bit of the weights."""

    def wrapped(monitor: KnnMonitor, backbone: torch.nn.Module) -> dict[str, float]:
        value = sum(float(weight.detach().double().sum()) for weight in backbone.parameters()) * 1e3 % 1
        return dict.fromkeys(probe(monitor, backbone), value)

    return wrapped


def child(request: dict[str, Any]) -> int:
    """Run a request in the child. Returns its exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        run(**request)
    except SystemExit as left:
        return int(left.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def main() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        stderr = Path(request.pop("stderr"))
        read, write = os.pipe()  # the limit on file sizes does not apply to pipes
        pid = os.fork()
        if not pid:
            os.dup2(write, 1)
            os.dup2(write, 2)
            status = child(request)
            sys.stdout.flush()
            os._exit(status)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            stderr.write_bytes(said.read())
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
