"""`c2l benchmark step`: a pretraining step compared with its networks alone and with the machine's limits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import cast

import torch
from rich.table import Table
from torch.nn import functional

from c2l_models.errors import RecipeError

from .. import mixup
from ..augment import two_views
from ..distributed import pick_device
from ..networks import autocast, update_teacher, with_ghost_batch_norm, with_shuffle_bn
from ..objectives.c2l import C2L, c2l_loss
from ..objectives.contrastive import contrast_top1
from ..pretrain import train_step
from ..recipe import Objective, Recipe
from .frozen_run import frozen_run, noise_in_memory
from .roofline import Ceilings, Cost, ceiling_workloads, ceilings, count_cost
from .timing import Machine, Workload, load_average, median_and_range, ratios_by_round, save_json, time_alternately

STORE_IMAGES = 2048
"""Number of images of the store of noise."""


@dataclass(frozen=True)
class StepBenchmark:
    """Seconds of whole pretraining steps and of the bare networks, timed alternately.

    Attributes:
        step: seconds per pretraining step, one value per round.
        bare: seconds of the bare networks' work in a step (see `time_step`), one value per round.
        compiled: seconds per step with compiled networks, one value per round; empty if not measured.
        parts: seconds of each part of a step that the bare networks lack, timed separately; medians over rounds.
            "grouping", the cost of batch norm in groups, is a difference of two timings, so noise may make it negative.
        costs: FLOPs and bytes of each workload, counted by `roofline.count_cost`; "compiled" has the costs of "step".
        ceilings: the machine's highest measured rates, in the same rounds.
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
        """Seconds of a step divided by seconds of the bare networks; median over rounds."""
        return median(ratios_by_round(self.step, self.bare))

    @property
    def roofline_share(self) -> float:
        """The shortest possible time for a step's FLOPs and bytes, divided by the measured time."""
        return self.ceilings.seconds(self.costs["step"]) / median(self.step)

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        derived = {"ratio": self.ratio, "images_per_second": self.batch_size / median(self.step)}
        if self.compiled:
            derived["compiled_ratio"] = median(ratios_by_round(self.compiled, self.step))
        save_json(self, path, **derived, roofline_share=self.roofline_share)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.recipe}: {self.architecture}, {self.batch_size} images of {self.size} pixels, "
            f"{self.precision}, batch norm in groups of {self.batch_norm_group}",
            caption=f"{self.machine}; medians of {len(self.step)} rounds. Highest measured rates: "
            f"{self.ceilings.flops / 1e9:,.0f} GFLOP/s, {self.ceilings.bytes / 1e9:,.1f} GB/s; "
            "bytes counted as if nothing were cached or fused",
        )
        table.add_column("")
        for column in ("seconds", "images/s", "time / bare networks", "GFLOP", "GB", "share of the roofline"):
            table.add_column(column, justify="right")
        self._add_whole(table, "pretraining step", self.step, "step")
        if self.compiled:
            self._add_whole(table, "with compiled networks", self.compiled, "step")
        self._add_whole(table, "bare networks", self.bare, "bare")
        table.add_section()
        bare = median(self.bare)
        rest = median(s - b for s, b in zip(self.step, self.bare, strict=True)) - sum(self.parts.values())
        for part, seconds in {**self.parts, "rest": rest}.items():
            table.add_row(
                part.replace("_", " "), f"{seconds:.4f}", "", f"{seconds / bare:+.3f}", *self._roofline(part, seconds)
            )
        return table

    def _add_whole(self, table: Table, name: str, seconds: tuple[float, ...], cost: str) -> None:
        middle = median(seconds)
        ratio = "1" if seconds is self.bare else median_and_range(ratios_by_round(seconds, self.bare))
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
    """Time whole steps and the bare networks' work alternately, in one process, on one device.

    The bare networks' work is: the student forward and backward on two batches at once, the teacher forward twice,
    both with their projections, and a trivial loss. Shapes, autocast and memory format are the same as in the
    step. Batch norm uses the statistics of each whole forward pass.

    Args:
        recipe: defines the step.
        batch_size: B, replaces the recipe's.
        size: side S of the views, replaces the recipe's.
        repeats: number of rounds; each round times every workload once.
        device: "cpu", "cuda", or "auto": CUDA if available.
        compile: also time a step whose networks are compiled by `torch.compile`, which takes minutes at the start.
        progress: show a progress bar.

    Raises:
        RecipeError: the recipe does not allow this batch size or view size, or it is not C2L with all terms.
    """
    if recipe.method != "c2l" or recipe.objective != Objective():
        raise RecipeError(
            f"recipe {recipe.name}: expected method c2l with the default objective, because this benchmark compares it "
            "with the networks of that method; choose another recipe"
        )
    recipe = replace(recipe, batch_size=batch_size, size=size, compile=False)
    torch_device = pick_device(device)
    load_before = load_average()
    workloads = build_workloads(recipe, torch_device)
    limits = ceiling_workloads(torch_device, recipe.precision)
    others = dict(limits)
    if compile:
        others["compiled"] = build_workloads(replace(recipe, compile=True), torch_device)["step"]
        # The first call compiles for minutes, so it must not determine the number of calls per timing.
        others["compiled"]()
    seconds = time_alternately(workloads | others, repeats, torch_device, progress)
    costs = {name: count_cost(workload) for name, workload in workloads.items() if name != "grouped"}
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
        machine=Machine.after_benchmark(torch_device, load_before),
        step=steps,
        bare=bares,
        compiled=compiled,
        parts={name: median(times) for name, times in seconds.items()} | {"grouping": grouping},
        costs=costs,
        ceilings=best,
    )


def build_workloads(recipe: Recipe, device: torch.device) -> dict[str, Workload]:
    """The workloads: "step", "bare", "grouped" ("bare" with batch norm in the step's groups), and the step's parts."""
    store = noise_in_memory(STORE_IMAGES, recipe.size, device)
    run = frozen_run(recipe, store, device)
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
        with autocast(device, recipe.precision):
            out = student(torch.cat([x1_a, x1_m]))
            with torch.no_grad():
                teacher(x2_a), teacher(x2_m)
        out.float().square().mean().backward()

    def grouped() -> None:
        group = recipe.batch_norm_group
        networks(
            lambda x: with_ghost_batch_norm(c2l.student, x, group),
            lambda x: with_shuffle_bn(c2l.teacher, x, group, generator),
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
        "loss_and_queue": loss_and_queue,
        "optimizer": run.optimizer.step,
        "teacher_update": lambda: update_teacher(c2l.teacher, c2l.student, recipe.teacher_momentum),
    }
