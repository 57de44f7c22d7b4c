"""What a run says of itself: a progress line, JSON lines and TensorBoard files."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from c2l_models.files import write_atomically

from ..distributed import ALONE, World

NAME = "log.jsonl"


class StepGroup:
    """The metrics of the steps since the last line of the log.

    New ones are left on the device, so that no step waits for it; what was read is kept as means over processes.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._known = torch.empty(0, 0)
        self._new: list[torch.Tensor] = []
        self.clear()

    def add(self, images: int, data_wait: float, metrics: dict[str, torch.Tensor]) -> None:
        """Take a step's metrics, scalar tensors; `images` of all processes, `data_wait` in seconds."""
        self.names = list(metrics)
        self._new.append(torch.stack([value.detach().float() for value in metrics.values()]))
        self.images += images
        self.data_wait += data_wait

    def read(self, world: World = ALONE) -> torch.Tensor:
        """Each step's metrics, float32 [steps, metrics], means over processes; here the device is waited for."""
        if self._new:
            new = world.mean(torch.stack(self._new)).cpu()
            self._known = torch.cat([self._known, new]) if len(self._known) else new
            self._new = []
        return self._known

    def clear(self) -> None:
        """Begin the next group."""
        self._known = self._known[:0]
        self._new = []
        self.images, self.data_wait, self.began = 0, 0.0, time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within is not counted as the steps' time."""
        began = time.perf_counter()
        yield
        self.began += time.perf_counter() - began

    def speed(self) -> dict[str, float]:
        """Images a second, and the share of the time that steps waited for images."""
        seconds = time.perf_counter() - self.began
        return {"images_per_second": self.images / seconds, "data_wait": self.data_wait / seconds}

    def state_dict(self) -> dict[str, Any]:
        """Names and metrics as last read, without timings: the same on every process."""
        return {"names": self.names, "figures": self._known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on within a group that a stopped run left open."""
        self.names, self._known = state["names"], state["figures"]


class RunLog:
    """What rank 0 writes and shows.

    Use as a context manager. `log.jsonl` has one object a step group (`"kind": "train"`), one a probe (`"probe"`) and
    one a thing that a person should know (`"note"`). Lines of steps after `step` are dropped, so a resumed run tells
    each step once. A disk that fills up stops nothing: a line that could not be written is written with the next one
    (TensorBoard's file ends there).
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        step: int = 0,
        writes: bool = True,
        progress: bool = True,
        what: str = "pretraining",
    ) -> None:
        """`step`: steps done; `writes`: whether this process is the one that writes and shows anything."""
        self.path = folder / NAME
        self._file = self._board = None
        if writes:
            self._drop_after(step)
            self._file = self.path.open("a")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._progress = progress_line(writes and progress)
        self._task = self._progress.add_task(what, total=total_steps, completed=step, metrics="")

    def __enter__(self) -> "RunLog":
        if not self._progress.disable:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._progress.disable:  # where it is, older versions of rich end with an empty line
            self._progress.stop()
        for file in (self._file, self._board):
            with suppress(OSError):
                if file:
                    file.close()

    def advance(self) -> None:
        """One step is done."""
        self._progress.advance(self._task)

    def write_group(self, step: int, epoch: float, lr: float, group: StepGroup) -> None:
        """Write a group's means, as far as it has been read, and its speed."""
        means = dict(zip(group.names, group.read().mean(dim=0).tolist(), strict=True))
        speed = group.speed()
        self._write("train", step, {"epoch": epoch, "lr": lr, **means, **speed})
        contrast = f"top-1 {means['top1']:.2f}  " if "top1" in means else ""
        shown = (
            f"loss {means['loss']:.3f}  {contrast}{speed['images_per_second']:.0f} images/s  "
            f"{speed['data_wait']:.0%} waiting"
        )
        self._progress.update(self._task, metrics=shown)

    def write_probe(self, step: int, epoch: int, auroc: dict[str, float]) -> None:
        """Write a probe's mean AUROC, one a task."""
        self._write("probe", step, {"epoch": epoch, **auroc})
        self._say(f"epoch {epoch}: k-NN AUROC " + ", ".join(f"{task} {value:.3f}" for task, value in auroc.items()))

    def write_note(self, step: int, text: str) -> None:
        """Say something on stderr and in the log."""
        self._say(text)
        self._write_line({"kind": "note", "step": step, "text": text})

    def _say(self, text: str) -> None:
        if self._file is not None:
            self._progress.console.print(text, markup=False, soft_wrap=True)

    def _write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._write_line({"kind": kind, "step": step, **known})
        if self._board is None:
            return
        with suppress(OSError):
            for name, value in metrics.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # what a full disk refuses stays in the file's buffer
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _drop_after(self, step: int) -> None:
        for left_by_a_kill in self.path.parent.glob(f".{NAME}.*.part"):
            left_by_a_kill.unlink()
        if self.path.is_file():
            kept = [json.dumps(line) + "\n" for line in read(self.path.parent) if line["step"] <= step]
            write_atomically(self.path, "".join(kept).encode())  # a kill leaves the old log or the new one


def progress_line(shown: bool) -> Progress:
    """A line on stderr of steps done, time, and a task's field `metrics`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=Console(stderr=True),
        disable=not shown,
    )


def read(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line torn by a kill is left out."""
    lines = []
    for text in (run_folder / NAME).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
