"""What a pretraining step costs beside its networks alone, and beside what this machine could do at best."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from rich.table import Table
from torch.nn import functional

from c2l_models.errors import RecipeError

from .. import mixup
from ..augment import two_views
from ..distributed import ALONE, pick_device
from ..networks import in_groups, in_shuffled_groups, update_teacher
from ..objectives.c2l import C2L, c2l_loss
from ..objectives.contrastive import contrast_top1
from ..pretrain import train_step
from ..recipe import Objective, Recipe
from ..run import Run
from ..store.image_store import ImageStore
from .roofline import Ceilings, Cost, ceiling_works, ceilings, count
from .timing import Machine, Work, load_average, pairwise, save, spread, take_turns

STORE_IMAGES = 2048


@dataclass(frozen=True)
class StepBenchmark:
    """Whole pretraining steps beside the same networks with nothing around them.

    Attributes:
        step: seconds of a pretraining step, one a round.
        bare: seconds of the bare networks' work, one a round, within the same moments.
        compiled: seconds of a step with compiled networks, one a round; none where that was not asked for.
        parts: seconds of what a step does beyond the bare work, each part timed by itself, medians over rounds.
            Grouping is a difference, so noise may make it negative.
        costs: what each of them computes and moves, as `roofline.count` counts; "compiled" is "step".
        ceilings: what this machine did at best, in the same rounds.
    """

    recipe: str
    architecture: str
    size: int
    batch_size: int
    batch_norm_group: int
    precision: str
    machine: Machine
    step: tuple[float, ...]
    bare: tuple[float, ...]
    compiled: tuple[float, ...]
    parts: dict[str, float]
    costs: dict[str, Cost]
    ceilings: Ceilings

    @property
    def ratio(self) -> float:
        """step / bare, the median over rounds."""
        return median(pairwise(self.step, self.bare))

    @property
    def roofline_share(self) -> float:
        """The least time for a step's FLOPs and bytes over its time."""
        return self.ceilings.seconds(self.costs["step"]) / median(self.step)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        derived = {"ratio": self.ratio, "images_per_second": self.batch_size / median(self.step)}
        if self.compiled:
            derived["compiled_ratio"] = median(pairwise(self.compiled, self.step))
        save(self, path, **derived, roofline_share=self.roofline_share)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.recipe}: {self.architecture}, {self.batch_size} images of {self.size} pixels, "
            f"{self.precision}, batch norm in groups of {self.batch_norm_group}",
            caption=f"{self.machine}; medians of {len(self.step)} rounds. Measured at best: "
            f"{self.ceilings.flops / 1e9:,.0f} GFLOP/s, {self.ceilings.bytes / 1e9:,.1f} GB/s; "
            "bytes as if nothing were cached or fused",
        )
        table.add_column("")
        for column in ("seconds", "images/s", "of the bare networks", "GFLOP", "GB", "of the roofline"):
            table.add_column(column, justify="right")
        self._add_whole(table, "pretraining step", self.step, "step")
        if self.compiled:
            self._add_whole(table, "with compiled networks", self.compiled, "step")
        self._add_whole(table, "bare networks", self.bare, "bare")
        table.add_section()
        bare = median(self.bare)
        rest = median(s - b for s, b in zip(self.step, self.bare, strict=True)) - sum(self.parts.values())
        for part, seconds in {**self.parts, "rest": rest}.items():
            table.add_row(part, f"{seconds:.4f}", "", f"{seconds / bare:+.3f}", *self._roofline(part, seconds))
        return table

    def _add_whole(self, table: Table, name: str, seconds: tuple[float, ...], cost: str) -> None:
        middle = median(seconds)
        ratio = "1" if seconds is self.bare else spread(pairwise(seconds, self.bare))
        table.add_row(name, f"{middle:.4f}", f"{self.batch_size / middle:.1f}", ratio, *self._roofline(cost, middle))

    def _roofline(self, name: str, seconds: float) -> tuple[str, ...]:
        if name not in self.costs:
            return ("", "", "")
        cost = self.costs[name]
        share = f"{self.ceilings.seconds(cost) / seconds:.0%} ({self.ceilings.bound(cost)})"
        return f"{cost.flops / 1e9:,.1f}", f"{cost.bytes / 1e9:,.2f}", share


def time_step(
    recipe: Recipe,
    batch_size: int = 64,
    size: int = 128,
    repeats: int = 7,
    device: str = "auto",
    compile: bool = False,
    progress: bool = True,
) -> StepBenchmark:
    """Time whole steps and the bare networks' work by turns, in one process, on one device.

    The bare networks' work: the student forward and backward on two batches at once, the teacher forward twice,
    projections included; the step's shape, autocast and memory format; batch statistics over all that is passed at
    once; a trivial loss.

    Args:
        recipe: what a step computes.
        batch_size: B, in place of the recipe's.
        size: S, in place of the recipe's.
        repeats: rounds; in each, everything is timed once.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        compile: also time a step whose networks `torch.compile` compiles; takes minutes before the first round.
        progress: show a progress line.

    Raises:
        RecipeError: the recipe cannot have this batch size or view size, or is not the method itself.
    """
    if recipe.method != "c2l" or recipe.objective != Objective():
        raise RecipeError(f"recipe {recipe.name} departs from the method, and so from what the bare networks do here")
    recipe = replace(recipe, batch_size=batch_size, size=size, compile=False)
    place = pick_device(device)
    before = load_average()
    works = build_works(recipe, place)
    limits = ceiling_works(place, recipe.precision)
    others = dict(limits)
    if compile:
        others["compiled"] = build_works(replace(recipe, compile=True), place)["step"]
        others["compiled"]()  # minutes, which say nothing about how often to call it
    seconds = take_turns(works | others, repeats, place, progress)
    costs = {name: count(work) for name, work in works.items() if name != "grouped"}
    best = ceilings(limits, {name: seconds.pop(name) for name in limits})
    steps, bares, compiled = seconds.pop("step"), seconds.pop("bare"), seconds.pop("compiled", ())
    grouping = median(grouped - bare for grouped, bare in zip(seconds.pop("grouped"), bares, strict=True))
    return StepBenchmark(
        recipe=recipe.name,
        architecture=recipe.architecture,
        size=size,
        batch_size=batch_size,
        batch_norm_group=recipe.batch_norm_group,
        precision=recipe.precision,
        machine=Machine.now(place, before),
        step=steps,
        bare=bares,
        compiled=compiled,
        parts={name: median(times) for name, times in seconds.items()} | {"grouping": grouping},
        costs=costs,
        ceilings=best,
    )


def still_run(recipe: Recipe, store: ImageStore, device: torch.device) -> Run:
    """A run that was never begun, with a learning rate of 0: each step does the same work, and moves nothing."""
    run = Run(recipe, store, np.arange(len(store)), Path(), ALONE, device)
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = 0.0
    return run


def build_works(recipe: Recipe, device: torch.device) -> dict[str, Work]:
    """What is timed: "step", "bare", "grouped" (bare, but in the step's groups), then the step's other parts."""
    store = noise_store(recipe.size, device)
    run = still_run(recipe, store, device)
    c2l, generator = cast(C2L, run.method), run.seeded(0)
    rows = torch.randint(STORE_IMAGES, (recipe.batch_size,), generator=generator, device=device)

    batch = store[rows]
    x1_a, x2_a = two_views(batch, recipe, generator)
    m = c2l.draw_mix(len(batch), generator)
    x1_m, x2_m = mixup.mix(x1_a, m), mixup.mix(x2_a, m)
    features = torch.randn(4, len(batch), recipe.feature_dim, device=device)

    def whole_step() -> None:
        train_step(run.model, run.optimizer, store[rows], generator).metrics()

    def networks(student: Callable, teacher: Callable) -> None:
        c2l.student.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            out = student(torch.cat([x1_a, x1_m]))
            with torch.no_grad():
                teacher(x2_a), teacher(x2_m)
        out.float().square().mean().backward()

    def grouped() -> None:
        group = recipe.batch_norm_group
        networks(
            lambda x: in_groups(c2l.student, x, group),
            lambda x: in_shuffled_groups(c2l.teacher, x, group, generator),
        )

    def mix() -> None:
        drawn = c2l.draw_mix(len(batch), generator)
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
        "augment": lambda: two_views(batch, recipe, generator),
        "mixup": mix,
        "loss and queue": loss_and_queue,
        "optimizer": run.optimizer.step,
        "teacher update": lambda: update_teacher(c2l.teacher, c2l.student, recipe.teacher_momentum),
    }


def noise_store(size: int, device: torch.device) -> ImageStore:
    """A store of noise in memory, on the device."""
    noise = np.random.default_rng(0).integers(256, size=(STORE_IMAGES, size, size), dtype=np.uint8)
    return ImageStore(path=Path(), images=torch.from_numpy(noise).to(device), index=pa.table({}), sha256="")
