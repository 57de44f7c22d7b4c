"""Callbacks of the training loop: metrics, checks, log, probes, checkpoints and stop requests."""

import json
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

import torch

from c2l_models.errors import RunError, RunInterrupted
from c2l_models.files import write_atomically

from .augment import Draws
from .batches import Batch, batch_rows
from .objectives.health import LINES, collapse
from .objectives.method import MethodStep
from .probing.knn_monitor import KnnMonitor
from .run import Run
from .run_files.curves import draw_curves
from .run_files.first_batch import draw_first_batch
from .run_files.interruption import StopRequest
from .run_files.log import RunLog

FAILURE = "failure.json"


class Callbacks(Protocol):
    """Callbacks of the training loop."""

    def before_step(self, batch: Batch, draws: Draws | None) -> None:
        """Called before each step."""

    def after_step(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        """Called after each step, when `run.step` includes it. Returns whether to stop the loop."""


class RunCallbacks:
    """Callbacks of a whole run.

    Every process decides the same at the same step. Only rank 0 probes, draws and writes.

    Args:
        run: the run.
        log: its log.
        request: a signal's request to stop.
        deadline: time to stop, by `time.monotonic`.
    """

    def __init__(self, run: Run, log: RunLog, request: StopRequest, deadline: float) -> None:
        self.run, self.log, self.request, self.deadline = run, log, request, deadline
        self.lines: deque[dict[str, float]] = deque(maxlen=LINES)
        self.collapsed = False
        self.first_step = run.step
        self.saved = time.monotonic()
        self.monitor = KnnMonitor(run.recipe, run.store, run.rows) if run.world.is_main else None

    def before_step(self, batch: Batch, draws: Draws | None) -> None:
        """Before the run's first step, draw the views that the networks see; before a session's first, wait."""
        if self.run.step == 0 and self.run.world.is_main:
            file = self.run.folder / "first_batch.png"
            with self.run.group.paused(), suppress(OSError):  # a full disk must not stop the run
                draw_first_batch(file, batch.images, self.run.method, self.run.seeded(0), draws)
        if self.run.step == self.first_step:
            self.run.world.wait()  # on the hosts, while a slower disk reads another process's images

    def after_step(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        """Log, check, probe and save, each when it is due. Returns whether to stop; a checkpoint is then written.

        Raises:
            RunError: the run is broken (see `check_metrics`), or its last checkpoint could not be written.
        """
        run, recipe = self.run, self.run.recipe
        run.group.add(recipe.batch_size, batch.waited, step.metrics())
        self.log.advance()
        stops = run.world.any(bool(self.request) or time.monotonic() > self.deadline)
        run_ends = run.step == run.schedule.total_steps
        epoch_ends = run.step % run.schedule.steps_per_epoch == 0
        group_ends = run_ends or run.step % recipe.log_every == 0
        saves = run_ends or stops or (recipe.checkpoint_every and run.step % recipe.checkpoint_every == 0)
        pauses = group_ends or epoch_ends or saves  # only then may rank 0 probe and write
        if pauses:
            self.check_metrics()
        if group_ends:
            self.write_line(step, lr)
        if epoch_ends:
            self.probe()
        if saves or ((group_ends or epoch_ends) and self.checkpoint_is_due()):
            self.saved = time.monotonic()
            if problem := run.save(required=stops or run_ends):
                self.log.write_note(run.step, problem)
        if pauses:
            run.world.wait()  # on the hosts, while rank 0 probes and writes
        return stops

    def checkpoint_is_due(self) -> bool:
        """Whether a probe was just the best, or the last checkpoint is old. Only rank 0's answer matters: it writes."""
        due = time.monotonic() - self.saved >= self.run.recipe.checkpoint_minutes * 60
        return due or self.run.best_step == self.run.step

    def close(self) -> None:
        """Draw the curves, and report a stop.

        Raises:
            RunInterrupted: a signal to any process stopped the run before its end.
        """
        run = self.run
        if run.world.is_main:
            with suppress(OSError):
                draw_curves(run.folder, run.method.PANELS)
        if run.world.any(bool(self.request)) and run.step < run.schedule.total_steps:
            raise RunInterrupted(f"{self.request} at step {run.step}. A checkpoint was written; resume with --resume")

    def probe(self) -> None:
        """At the end of an epoch, measure k-NN AUROC on rank 0 if it is due."""
        run, epoch = self.run, self.run.step // self.run.schedule.steps_per_epoch
        if self.monitor is None or not self.monitor.is_due(epoch):
            return
        with run.group.paused():
            auroc = self.monitor(run.method.exported_backbone)
            run.record_probe(auroc)
            self.log.write_probe(run.step, epoch, auroc, self.monitor.title)
            with suppress(OSError):
                draw_curves(run.folder, run.method.PANELS)

    def write_line(self, step: MethodStep, lr: float) -> None:
        """Write a line of the log, and a note when the features have collapsed."""
        run = self.run
        health = {name: float(value) for name, value in run.method.health(step).items()}
        self.lines.append(
            self.log.write_group(run.step, run.step / run.schedule.steps_per_epoch, lr, run.group, health)
        )
        run.group.clear()
        if not self.collapsed and (message := collapse(list(self.lines))):
            self.collapsed = True
            self.log.write_note(run.step, message)

    def check_metrics(self) -> None:
        """Check the metrics of the steps since the last line of the log; this waits for the device.

        Raises:
            RunError: a loss or a weight is not finite, or a loss is not plausible. failure.json holds the step, its
                rows and their paths; the checkpoints are from earlier steps.
        """
        run = self.run
        metrics = run.group.read(run.world)  # [steps, metrics]
        by_name = dict(zip(run.group.names, metrics.T, strict=True))
        plausible = run.method.plausible(by_name)  # [steps]
        if not plausible.all():
            first = int(plausible.int().argmin())
            self._fail(run.step - len(plausible) + first, f"the loss is {by_name['loss'][first]:g}")
        norms = torch.stack(torch._foreach_norm(list(run.method.student.parameters())))
        if not norms.isfinite().all():
            self._fail(run.step - 1, "weights are not finite after it")

    def _fail(self, step: int, problem: str) -> None:
        """Write failure.json and raise RunError. `step` counts from 0."""
        run = self.run
        rows = batch_rows(run.rows, run.recipe, step, run.groups)
        file = run.folder / FAILURE
        if run.world.is_main:
            paths = run.store.index["path"].take(rows).to_pylist()
            failure = {"step": step + 1, "what": problem, "rows": rows.tolist(), "paths": paths}
            with suppress(OSError):  # a full disk must not hide the failure
                write_atomically(file, (json.dumps(failure, indent=1) + "\n").encode())
        some = ", ".join(map(str, rows[:4]))
        raise RunError(
            f"step {step + 1}: {problem}. {file} lists the batch's images, rows {some} … of the store. The checkpoints "
            f"are from earlier steps. Start a new run with a --recipe.optimizer.lr lower than "
            f"{run.recipe.optimizer.lr:g}, or without bad images"
        )
