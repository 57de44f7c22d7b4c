"""What a pretraining step costs beside its networks alone: `c2l benchmark step`."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from rich.progress import track
from rich.table import Table
from torch.nn import functional

from . import mixup
from .augment import two_views
from .image_store import ImageStore
from .networks import in_groups, in_shuffled_groups, update_teacher
from .objectives.c2l import C2L, c2l_loss, contrast_top1
from .pretrain import figures, pick_device, train_step
from .recipe import Recipe
from .run_folder import machine_name

STORE_IMAGES = 2048
SHORTEST = 0.1  # seconds; quicker work is called several times a timing
Work = Callable[[], object]


@dataclass(frozen=True)
class StepBenchmark:
    """Whole pretraining steps beside the same networks with nothing around them.

    Attributes:
        load: the machine's one-minute load average, before the first round and after the last.
        step: seconds of a pretraining step, one a round.
        bare: seconds of the bare networks' work, one a round, within the same moments.
        parts: seconds of what a step does beyond that work, each part timed by itself, medians over rounds.
            Grouping is a difference, so noise may make it negative.
    """

    recipe: str
    architecture: str
    size: int
    batch_size: int
    batch_norm_group: int
    precision: str
    machine: str
    threads: int
    torch: str
    load: tuple[float, float]
    step: tuple[float, ...]
    bare: tuple[float, ...]
    parts: dict[str, float]

    @property
    def ratios(self) -> tuple[float, ...]:
        """step / bare, one a round."""
        return tuple(step / bare for step, bare in zip(self.step, self.bare, strict=True))

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return median(self.ratios)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self) | {"ratio": self.ratio}, indent=2) + "\n")

    def __rich__(self) -> Table:
        step, bare = median(self.step), median(self.bare)
        rest = median(s - b for s, b in zip(self.step, self.bare, strict=True)) - sum(self.parts.values())
        table = Table(
            title=f"{self.recipe}: {self.architecture}, {self.batch_size} images of {self.size} pixels, "
            f"{self.precision}, batch norm in groups of {self.batch_norm_group}",
            caption=f"{self.machine}, {self.threads} threads, torch {self.torch}, "
            f"load {self.load[0]:.1f} to {self.load[1]:.1f}; medians of {len(self.step)} rounds",
        )
        table.add_column("")
        for column in ("seconds", "images/s", "of the bare networks"):
            table.add_column(column, justify="right")
        spread = f"{self.ratio:.3f} ({min(self.ratios):.3f} to {max(self.ratios):.3f})"
        table.add_row("pretraining step", f"{step:.4f}", f"{self.batch_size / step:.1f}", spread)
        table.add_row("bare networks", f"{bare:.4f}", f"{self.batch_size / bare:.1f}", "1", end_section=True)
        for part, seconds in {**self.parts, "rest": rest}.items():
            table.add_row(part, f"{seconds:.4f}", "", f"{seconds / bare:+.3f}")
        return table


def step(
    recipe: Recipe,
    batch_size: int = 64,
    size: int = 128,
    repeats: int = 7,
    device: str = "auto",
    progress: bool = True,
) -> StepBenchmark:
    """Time whole steps and the bare networks' work by turns, in one process, on one device.

    The bare networks' work: the student forward and backward twice, the teacher forward twice, projections
    included; the step's shape, autocast and memory format; batch statistics over the whole batch; a trivial
    loss.

    Args:
        recipe: what a step computes.
        batch_size: B, in place of the recipe's.
        size: S, in place of the recipe's.
        repeats: rounds; in each, everything is timed once.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        progress: show a progress line.

    Raises:
        RecipeError: the recipe cannot have this batch size or view size.
    """
    recipe = dataclasses.replace(recipe, batch_size=batch_size, size=size)
    place = pick_device(device)
    before = load_average()
    works = build_works(recipe, place)
    calls = {name: calls_per_timing(work, place) for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in track(range(repeats), "timing", disable=not progress, transient=True):
        order = list(works) if turn % 2 == 0 else list(works)[::-1]  # whatever drifts, favours neither
        for name in order:
            seconds[name].append(seconds_of(works[name], calls[name], place))
    grouped = [group - bare for group, bare in zip(seconds.pop("grouped"), seconds["bare"], strict=True)]
    steps, bares = tuple(seconds.pop("step")), tuple(seconds.pop("bare"))
    return StepBenchmark(
        recipe=recipe.name,
        architecture=recipe.architecture,
        size=size,
        batch_size=batch_size,
        batch_norm_group=recipe.batch_norm_group,
        precision=recipe.precision,
        machine=machine_name(place),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        load=(before, load_average()),
        step=steps,
        bare=bares,
        parts={name: median(times) for name, times in seconds.items()} | {"grouping": median(grouped)},
    )


def build_works(recipe: Recipe, device: torch.device) -> dict[str, Work]:
    """What is timed: "step", "bare", "grouped" (bare, but in the step's groups), then the step's other parts.

    The learning rate is 0: the optimizer's arithmetic is the same, and every call does the same work.
    """
    host, local = torch.Generator(), torch.Generator(device)
    c2l = C2L(recipe, host).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        c2l.student.parameters(),
        lr=0.0,
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    random = np.random.default_rng(0)
    noise = random.integers(256, size=(STORE_IMAGES, recipe.size, recipe.size), dtype=np.uint8)
    store = ImageStore(path=Path(), images=noise, index=pa.table({}), sha256="").to(device)
    rows = random.integers(STORE_IMAGES, size=recipe.batch_size)

    batch = store[rows]
    x1_a, x2_a = two_views(batch, recipe, local)
    m = mixup.draw(len(batch), recipe.mixup_alpha, host)
    x1_m, x2_m = mixup.mix(x1_a, m), mixup.mix(x2_a, m)
    features = torch.randn(4, len(batch), recipe.feature_dim, device=device)

    def whole_step() -> None:
        figures(train_step(c2l, optimizer, store[rows], host, local))

    def networks(student: Callable, teacher: Callable) -> None:
        c2l.student.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            out_a, out_m = student(x1_a), student(x1_m)
            with torch.no_grad():
                teacher(x2_a), teacher(x2_m)
        (out_a.float().square().mean() + out_m.float().square().mean()).backward()

    def grouped() -> None:
        group = recipe.batch_norm_group
        networks(
            lambda x: in_groups(c2l.student, x, group),
            lambda x: in_shuffled_groups(c2l.teacher, x, group, host),
        )

    def mix() -> None:
        drawn = mixup.draw(len(batch), recipe.mixup_alpha, host)
        for x in (x1_a, x2_a, features[0]):
            mixup.mix(x, drawn)

    def loss_and_queue() -> None:
        v1_a, v1_m = (functional.normalize(v.requires_grad_(), dim=1) for v in features[:2].clone())
        v2_a, v2_m, v_m = (functional.normalize(features[i], dim=1) for i in (2, 3, 2))
        c2l_loss(v1_a, v1_m, v2_a, v2_m, v_m, c2l.queue.keys, recipe.temperature).total.backward()
        contrast_top1(v1_a, v2_a, c2l.queue.keys)
        c2l.queue.insert(v2_a, v2_m, v_m)

    return {
        "step": whole_step,
        "bare": lambda: networks(c2l.student, c2l.teacher),
        "grouped": grouped,
        "gather": lambda: store[rows],
        "augment": lambda: two_views(batch, recipe, local),
        "mixup": mix,
        "loss and queue": loss_and_queue,
        "optimizer": optimizer.step,
        "teacher update": lambda: update_teacher(c2l.teacher, c2l.student, recipe.teacher_momentum),
    }


def seconds_of(work: Work, calls: int, device: torch.device) -> float:
    """Seconds a call, over so many calls; a GPU is waited for before and after."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def calls_per_timing(work: Work, device: torch.device) -> int:
    """Warm up, and say how many calls make a timing of about `SHORTEST` seconds or more."""
    seconds = seconds_of(work, 1, device)
    if seconds < 10 * SHORTEST:  # a first call is no measure of quick work
        seconds = seconds_of(work, 1, device)
    return max(1, round(SHORTEST / seconds))


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; the CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load_average() -> float:
    """Processes that wanted to run, averaged over the last minute; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
