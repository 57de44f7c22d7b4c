"""What happens between two steps: metrics, checks, the log, probes, checkpoints, and whether to stop."""

import json
import time
from contextlib import suppress
from typing import Protocol

import torch

from c2l_models.errors import RunError, RunInterrupted

from .augment import Draws
from .batches import Batch, batch_rows
from .objectives.method import MethodStep
from .probing.knn_monitor import KnnMonitor
from .run import Run
from .run_files.curves import draw_curves
from .run_files.first_batch import draw_first_batch
from .run_files.interruption import StopRequest
from .run_files.log import RunLog

FAILURE = "failure.json"


class Watcher(Protocol):
    """What the loop tells of each step: a `Watch`, or one who follows a run's beginning alone."""

    def begins(self, batch: Batch, draws: Draws | None) -> None:
        """Before a step."""

    def ends(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        """After it, when `run.step` has counted it; says whether to stop here."""


class Watch:
    """Watches over a run, between its steps.

    Every process goes through the same decisions at the same steps; rank 0 alone probes, draws and writes.

    Args:
        run: what is watched.
        log: where it is told.
        request: whether a signal asks to stop.
        deadline: when to stop, by `time.monotonic`.
    """

    def __init__(self, run: Run, log: RunLog, request: StopRequest, deadline: float) -> None:
        self.run, self.log, self.request, self.deadline = run, log, request, deadline
        self.monitor = KnnMonitor(run.recipe, run.store, run.rows) if run.world.is_main else None

    def begins(self, batch: Batch, draws: Draws | None) -> None:
        """Before the first step: a picture of what the networks see."""
        if self.run.step == 0 and self.run.world.is_main:
            file = self.run.folder / "first_batch.png"
            with suppress(OSError):  # a full disk: no picture is worth a run
                draw_first_batch(file, batch.images, self.run.method, self.run.seeded(0), draws)

    def ends(self, step: MethodStep, batch: Batch, lr: float) -> bool:
        """After a step; says whether to stop here, with a checkpoint written.

        Raises:
            RunError: the run is broken (see `check_sound`), or its last checkpoint could not be written.
        """
        run, recipe = self.run, self.run.recipe
        run.group.add(recipe.batch_size, batch.waited, step.metrics())
        self.log.advance()
        stops = run.world.any(bool(self.request) or time.monotonic() > self.deadline)
        epoch_ends = run.step % run.steps_per_epoch == 0
        group_ends = run.step % recipe.log_every == 0 or run.step == run.total_steps
        saves = epoch_ends or stops or run.step % recipe.checkpoint_every == 0
        if group_ends or saves:
            self.check_sound()
        if group_ends:
            self.log.write_group(run.step, run.step / run.steps_per_epoch, lr, run.group)
            run.group.clear()
        if epoch_ends:
            self.probe()
        if saves and (unwritten := run.save(must=stops or run.step == run.total_steps)):
            self.log.write_note(run.step, unwritten)
        if epoch_ends:
            run.world.wait()  # on the hosts, while rank 0 probes and writes
        return stops

    def close(self) -> None:
        """After the last step of this process's life.

        Raises:
            RunInterrupted: a signal to any process stopped the run before its end.
        """
        run = self.run
        if run.world.is_main:
            with suppress(OSError):
                draw_curves(run.folder)
        if run.world.any(bool(self.request)) and run.step < run.total_steps:
            raise RunInterrupted(
                f"{self.request} at step {run.step}; a checkpoint is written, --resume goes on from it"
            )

    def probe(self) -> None:
        """At the end of an epoch, where one is due: k-NN on rank 0."""
        run, epoch = self.run, self.run.step // self.run.steps_per_epoch
        if self.monitor is None or not self.monitor.is_due(epoch):
            return
        with run.group.paused():
            auroc = self.monitor(run.method.student.backbone)
            run.probed(auroc)
            self.log.write_probe(run.step, epoch, auroc)
            with suppress(OSError):
                draw_curves(run.folder)

    def check_sound(self) -> None:
        """Read the metrics of the steps since the last line of the log; the device is waited for.

        Raises:
            RunError: a loss or a weight is not finite, or a loss is beyond what a sane run can have. The step, its rows
                and their paths are in failure.json; the checkpoints are from before it.
        """
        run = self.run
        metrics = run.group.read(run.world)
        named = dict(zip(run.group.names, metrics.T, strict=True))
        sound = run.method.sound(named)
        if not sound.all():
            first = int(sound.int().argmin())
            self._fail(run.step - len(sound) + first, f"the loss is {named['loss'][first]:g}")
        weights = torch.stack(torch._foreach_norm(list(run.method.student.parameters())))
        if not weights.isfinite().all():
            self._fail(run.step - 1, "weights are not finite after it")

    def _fail(self, step: int, what: str) -> None:
        run = self.run
        batch = batch_rows(run.rows, run.recipe, step)
        file = run.folder / FAILURE
        if run.world.is_main:
            paths = run.store.index["path"].take(batch).to_pylist()
            failure = {"step": step + 1, "what": what, "rows": batch.tolist(), "paths": paths}
            with suppress(OSError):  # a full disk must not hide the failure
                file.write_text(json.dumps(failure, indent=1) + "\n")
        some = ", ".join(map(str, batch[:4]))
        raise RunError(
            f"step {step + 1}: {what}. The batch's images, rows {some} … of the store, are listed in {file}; the "
            f"checkpoints are from before it. Begin a new run with a lower --recipe.optimizer.lr than "
            f"{run.recipe.optimizer.lr:g}, or without bad images"
        )
