"""What a run says of itself: a progress line, JSON lines, TensorBoard files and a picture of the curves."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

NAME = "log.jsonl"


class RunLog:
    """Collects each step's figures on the device and reads them once a step group.

    Use as a context manager. `log.jsonl` has one object a step group (`"kind": "train"`) and one a probe
    (`"kind": "probe"`). Lines of steps after `step` are dropped, so a resumed run tells each step once.
    """

    _names: list[str]
    _sum: torch.Tensor | None
    _images: int
    _steps: int
    _data_wait: float

    def __init__(self, folder: Path, total_steps: int, step: int = 0, progress: bool = True) -> None:
        self.path = folder / NAME
        self._drop_after(step)
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            disable=not progress,
        )
        self._task = self._progress.add_task("pretraining", total=total_steps, completed=step, figures="")
        self._start_group()

    def __enter__(self) -> "RunLog":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._file.close()
        self._board.close()

    def add(self, images: int, data_wait: float, **figures: torch.Tensor) -> None:
        """Take one step's figures: scalar tensors, left where they are; `data_wait` in seconds."""
        self._images += images
        self._data_wait += data_wait
        self._steps += 1
        stacked = torch.stack([value.detach().float() for value in figures.values()])
        self._sum = stacked if self._sum is None else self._sum.to(stacked.device) + stacked
        self._names = list(figures)
        self._progress.advance(self._task)

    def write_group(self, step: int, epoch: float, lr: float) -> dict[str, float]:
        """Average the steps since the last group (the one time that the device is waited for) and write them."""
        assert self._sum is not None
        means = dict(zip(self._names, (self._sum / self._steps).tolist(), strict=True))
        seconds = time.perf_counter() - self._began
        speed = {"images_per_second": self._images / seconds, "data_wait": self._data_wait / seconds}
        self._write("train", step, {"epoch": epoch, "lr": lr, **means, **speed})
        figures = f"loss {means['loss']:.3f}  top-1 {means['top1']:.2f}  {speed['images_per_second']:.0f} images/s"
        self._progress.update(self._task, figures=figures)
        self._start_group()
        return means

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within is not counted as the steps' time."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def state_dict(self) -> dict[str, Any]:
        """The open step group's figures, without its timings."""
        return {"sum": self._sum, "names": self._names, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on within a step group that a stopped run left open."""
        self._sum, self._names, self._steps = state["sum"], state["names"], state["steps"]

    def write_probe(self, step: int, epoch: int, auroc: dict[str, float]) -> None:
        """Write a probe's mean AUROC, one a task."""
        self._write("probe", step, {"epoch": epoch, **auroc})
        self._progress.console.print(
            f"epoch {epoch}: k-NN AUROC " + ", ".join(f"{task} {value:.3f}" for task, value in auroc.items())
        )

    def _write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, **known}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def _start_group(self) -> None:
        self._sum = None
        self._names = []
        self._images = self._steps = 0
        self._data_wait = 0.0
        self._began = time.perf_counter()

    def _drop_after(self, step: int) -> None:
        if self.path.is_file():
            kept = [json.dumps(line) + "\n" for line in read(self.path.parent) if line["step"] <= step]
            self.path.write_text("".join(kept))


def read(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line torn by a kill is left out."""
    lines = []
    for text in (run_folder / NAME).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def draw_curves(run_folder: Path) -> Path:
    """Draw a run's log: loss terms; contrast and feature spread; k-NN AUROC; learning rate. Gives the PNG's path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read(run_folder)
    train = [line for line in lines if line["kind"] == "train"]
    probes = [line for line in lines if line["kind"] == "probe"]
    steps = [line["step"] for line in train]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    panels = (
        (axes[0, 0], "loss, mean over the batch", {"loss": "(A + M) / 3", "loss_a": "A", "loss_m": "M (two terms)"}),
        (axes[0, 1], "contrast", {"top1": "top-1 of the contrast", "spread": "feature spread (1: even)"}),
        (axes[1, 1], "learning rate", {"lr": "learning rate"}),
    )
    for axis, title, curves in panels:
        for key, label in curves.items():
            axis.plot(steps, [line[key] for line in train], "." if len(steps) == 1 else "-", label=label)
        axis.set_title(title, loc="left", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
    axes[0, 1].set_ylim(0, 1.05)
    axes[1, 0].set_title("k-NN AUROC, held-out training patients", loc="left", fontsize=10)
    tasks = sorted({key for line in probes for key in line} - {"kind", "step", "epoch"})
    for task in tasks:
        axes[1, 0].plot([line["step"] for line in probes], [line[task] for line in probes], "o-", ms=3, label=task)
    if tasks:
        axes[1, 0].legend(frameon=False, fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("step")
    path = run_folder / "curves.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
