"""A run's log: JSON lines, TensorBoard files and a progress line."""

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from c2l_models.files import write_atomically
from c2l_models.progress import Stage, report, stage

from ..distributed import ALONE, World
from .run_folder import LOG


class StepGroup:
    """The metrics of the steps since the last line of the log.

    New metrics stay on the device, so that no step waits for it. `read` averages them over processes and keeps them.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._read = torch.empty(0, 0)
        self._new: list[torch.Tensor] = []
        self.clear()

    def add(self, images: int, data_wait: float, metrics: dict[str, torch.Tensor]) -> None:
        """Add a step's metrics, which are scalar tensors.

        `images`: number of images on all processes together; `data_wait`: seconds that the step waited for them.
        """
        self.names = list(metrics)
        self._new.append(torch.stack([value.detach().float() for value in metrics.values()]))
        self.images += images
        self.data_wait += data_wait

    def read(self, world: World = ALONE) -> torch.Tensor:
        """Each step's metrics, float32 [steps, metrics], means over processes; this waits for the device."""
        if self._new:
            new = world.mean(torch.stack(self._new)).cpu()
            self._read = torch.cat([self._read, new]) if len(self._read) else new
            self._new = []
        return self._read

    def clear(self) -> None:
        """Start the next group."""
        self._read = self._read[:0]
        self._new = []
        self.images, self.data_wait = 0, 0.0
        self.start_clock()

    def start_clock(self) -> None:
        """Count the steps' time from now on, without what was done before the first step."""
        self.began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time in this context from the steps' time."""
        began = time.perf_counter()
        yield
        self.began += time.perf_counter() - began

    def speed(self) -> dict[str, float]:
        """Images per second, and the share of time in which steps waited for images."""
        seconds = time.perf_counter() - self.began
        return {"images_per_second": self.images / seconds, "data_wait": self.data_wait / seconds}

    def state_dict(self) -> dict[str, Any]:
        """Names, and metrics as last read. Timings are left out, so the state is the same on every process."""
        return {"names": self.names, "figures": self._read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the unfinished group of a stopped run."""
        self.names, self._read = state["names"], state["figures"]


class RunLog:
    """The log that rank 0 writes, and its progress line. Use it as a context manager.

    `log.jsonl` has one object per step group (`"kind": "train"`), one per probe (`"probe"`) and one per message to the
    user (`"note"`). A full disk does not stop the run: a line that could not be written is written with the next one,
    but TensorBoard's file ends there.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        step: int = 0,
        writes: bool = True,
        progress: bool = True,
        what: str = "pretraining",
        shown: Mapping[str, str] | None = None,
    ) -> None:
        """Open the log in the run's folder.

        Args:
            folder: the run's folder.
            total_steps: number of steps of the whole run.
            step: number of finished steps. Lines of later steps are removed, so a resumed run logs each step once.
            writes: whether this process writes and shows anything.
            progress: show a progress line.
            what: the progress line's name.
            shown: the metrics on the progress line, each with its format; by default the loss.
        """
        self._shown = shown or {"loss": "loss {:.3f}"}
        self.path = folder / LOG
        self._file = self._board = None
        if writes:
            self._drop_after(step)
            self._file = self.path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._line, self._open = Stage(), ExitStack()
        self._stage = stage(what, total_steps, "steps", writes and progress, done=step)

    def __enter__(self) -> "RunLog":
        self._line = self._open.enter_context(self._stage)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        for file in (self._file, self._board):
            with suppress(OSError):
                if file:
                    file.close()

    def advance(self) -> None:
        """Count one step as done."""
        self._line.advance()

    def write_group(
        self, step: int, epoch: float, lr: float, group: StepGroup, more: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Write the means of the group's steps that were read, its speed, and `more` metrics of its last step.

        Returns the means and `more`.
        """
        means = dict(zip(group.names, group.read().mean(dim=0).tolist(), strict=True))
        metrics, speed = {**means, **(more or {})}, group.speed()
        self._write("train", step, {"epoch": epoch, "lr": lr, **metrics, **speed})
        shown = [form.format(means[name]) for name, form in self._shown.items()]
        shown += [f"{speed['images_per_second']:.0f} images/s", f"{speed['data_wait']:.0%} waiting"]
        self._line.note("  ".join(shown))
        return metrics

    def write_probe(self, step: int, epoch: int, metrics: dict[str, float], what: str = "k-NN AUROC") -> None:
        """Write the metrics of a probe by name. By default they are the AUROC of each task."""
        self._write("probe", step, {"epoch": epoch, **metrics})
        if self._file is not None:
            report(f"epoch {epoch}: {what} " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    def write_note(self, step: int, text: str) -> None:
        """Write a message on stderr and in the log."""
        if self._file is not None:
            print(text, file=sys.stderr)
        self._write_line({"kind": "note", "step": step, "text": text})

    def _write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        self._write_line({"kind": kind, "step": step, **finite})
        if self._board is None:
            return
        with suppress(OSError):
            for name, value in metrics.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # if the disk is full, the line stays in the file's buffer
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _drop_after(self, step: int) -> None:
        for leftover in self.path.parent.glob(f".{LOG}.*.part"):  # of a killed process
            leftover.unlink()
        if self.path.is_file():
            kept = [json.dumps(line) + "\n" for line in read(self.path.parent) if line["step"] <= step]
            write_atomically(self.path, "".join(kept).encode())


def training_seconds(lines: Sequence[Mapping[str, Any]], batch_size: int) -> dict[int, float]:
    """Duration of all steps so far, over all sessions of a run, after each line that states a speed.

    Args:
        lines: of the log, as `read` returns them.
        batch_size: images of a step, on all processes together.

    Returns:
        Seconds, by the line's step, in order; the time of probes and checkpoints is left out.
    """
    seconds, before = {0: 0.0}, 0
    for line in lines:
        if line["kind"] == "train" and line.get("images_per_second"):
            step = line["step"]
            seconds[step] = seconds[before] + (step - before) * batch_size / line["images_per_second"]
            before = step
    return seconds


def tasks_of(probes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tasks that these lines of probes have a metric of, sorted."""
    return sorted({key for line in probes for key in line} - {"kind", "step", "epoch"})


def series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The step and the number `key` of each line; NaN if the line lacks it."""
    return [line["step"] for line in lines], [number(line.get(key)) for line in lines]


def number(value: float | None) -> float:
    """A number of the log, in which None represents NaN."""
    return math.nan if value is None else value


def of_kind(lines: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The lines of one kind, such as "train" or "probe"."""
    return [line for line in lines if line["kind"] == kind]


def read(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log. A last line that a killed process left incomplete is skipped."""
    lines = []
    for text in (run_folder / LOG).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
