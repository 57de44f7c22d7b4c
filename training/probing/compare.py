"""`c2l compare`: linear probes of several frozen networks on all tasks of a store, in one table and one picture."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from c2l_models.errors import C2LError, DatasetError
from c2l_models.files import write_atomically
from c2l_models.progress import report, stage

from ..evaluation.csv_text import csv_text
from ..evaluation.intervals import Difference, Estimate
from ..evaluation.markdown import escaped, markdown_table
from ..evaluation.metrics import Metrics, average
from ..evaluation.plotting import PALETTE, REFERENCE, SMALL, new_figure, save_png, style_axes
from ..evaluation.predictions import count_cases, few_cases_note
from ..evaluation.result import Result
from ..evaluation.tasks import Task, load_task, load_tasks, measurable_tasks
from ..initialization import PIXELS, RANDOM, UNTRAINED, weights_facts
from ..store.image_store import ImageStore
from .probe import probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETWORKS = ("resnet18.imagenet", "resnet18.c2l_open26k", "densenet121.c2l_open26k", UNTRAINED, PIXELS)
REFERENCE_NETWORK = "resnet18.imagenet"
SIZE, SIZES = 128, (64, 96, 128, 192)
"""The common input side, and the sides that each network's best one is chosen from."""
SEEDS = (0, 1, 2, 3, 4)
"""Seeds of a random network. Its metrics are their mean."""


@dataclass(frozen=True)
class Cell:
    """A network's result on a task: the results of its runs, one for each seed.

    Attributes:
        results: without any, the cell is waiting.
        task: the task; its headline is the metric that is shown.
        folders: the folder of each run.
    """

    task: Task
    results: tuple[Result, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def metrics(self) -> Metrics | None:
        """The metrics, a mean over the seeds if there are several."""
        if not self.results:
            return None
        if len(self.results) == 1:
            return self.results[0].metrics
        return average([result.metrics for result in self.results], [result.seed for result in self.results])

    def estimate(self) -> Estimate | None:
        """The headline with its interval."""
        return None if self.metrics is None else self.metrics[self.task.headline]

    def minus(self, reference: "Cell") -> tuple[Difference | None, str]:
        """The headline minus another network's, paired by patient; without one, None and why the two cannot be paired.

        The reason is empty if one of them is waiting.
        """
        if self.metrics is None or reference.metrics is None:
            return None, ""
        try:
            return self.metrics.minus(reference.metrics, self.task.headline), ""
        except C2LError as error:
            return None, str(error)

    @property
    def size(self) -> int:
        """The input side in pixels."""
        return int(self.results[0].facts["size"])

    @property
    def seen(self) -> int | None:
        """Number of evaluated patients that the network saw in pretraining, without labels; None: unknown."""
        found: int | None = self.results[0].facts["test_patients_seen_in_pretraining"]
        return found


@dataclass
class Comparison:
    """Results of networks on tasks, at the common side and at each network's best side.

    Attributes:
        networks: in the order of the table.
        tasks: in the order of the columns.
        reference: the network that the others are compared with.
        cells: by network, task and whether the side is the best one.
        cases: by task and label, the numbers of positive and negative images that the metrics are computed on.
    """

    networks: tuple[str, ...]
    tasks: tuple[Task, ...]
    reference: str
    cells: dict[tuple[str, str, bool], Cell] = field(default_factory=dict)
    cases: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def cell(self, network: str, task: Task, best: bool) -> Cell:
        """A cell; one without results if it is waiting or is not measured."""
        return self.cells.get((network, task.name, best), Cell(task))

    def difference(self, network: str, task: Task, best: bool) -> tuple[Difference | None, str]:
        """A cell minus the reference's, as `Cell.minus`; None without a reason for the reference itself."""
        if network == self.reference:
            return None, ""
        return self.cell(network, task, best).minus(self.cell(self.reference, task, best))

    def unpaired(self, tasks: Sequence[Task]) -> list[str]:
        """A sentence for each measured cell of these tasks that cannot be paired with the reference's: the reason."""
        return [
            f"{network}, {task.name}, {'best' if best else 'common'} side: no difference to {self.reference}, because "
            f"{reason}."
            for task in tasks
            for best in (False, True)
            for network in self.networks
            if (reason := self.difference(network, task, best)[1])
        ]

    def csv(self) -> str:
        """One row for each network, task and side."""
        header = "network,task,metric,side,size,seeds,seen,value,low,high,difference,difference_low,difference_high"
        rows: list[list[object]] = [[*header.split(",")]]
        for (network, _, best), cell in self.cells.items():
            if (estimate := cell.estimate()) is None:
                continue
            difference, _ = self.difference(network, cell.task, best)
            where = ("best" if best else "common", cell.size, len(cell.results), cell.seen)
            rows.append([network, cell.task.name, cell.task.headline, *where, *_row(estimate), *_row(difference)])
        return csv_text(rows)

    def markdown(self) -> str:
        """A table for each choice of the side: networks as rows, tasks as columns."""
        parts = []
        for best, title in ((False, "At one common side"), (True, "Each network at its best side")):
            if not any(key[2] == best for key in self.cells):
                continue
            rows = [[network, *(self._text(network, task, best) for task in self.tasks)] for network in self.networks]
            header = ["network", *(f"{task.name}, {task.headline}" for task in self.tasks)]
            parts += [f"## {title}", markdown_table(header, rows, "l" * len(header))]
        notes = {task: few_cases_note(cases, escaped) for task, cases in self.cases.items()}
        parts += [f"{task}: {note}" for task, note in notes.items() if note]
        parts += map(escaped, self.unpaired(self.tasks))
        return "\n\n".join(parts) + "\n"

    def draw(self, path: Path) -> Path:
        """Write a plot as PNG, one panel for each task. Returns its path."""
        figure = new_figure(3.2 * len(self.tasks) + 1.5, 0.5 * len(self.networks) + 1.6)
        panels = figure.subplots(1, len(self.tasks), sharey=True, squeeze=False)[0]
        for axis, task in zip(panels, self.tasks, strict=True):
            self._panel(axis, task)
        panels[0].set_yticks(range(len(self.networks)), self.networks, fontsize=SMALL)
        panels[0].set_ylim(len(self.networks) - 0.5, -0.5)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
        save_png(figure, path)
        return path

    def _panel(self, axis: "Axes", task: Task) -> None:
        """The networks' headlines with intervals; the reference's value is a line."""
        for best, colour, shift in ((False, PALETTE[3], -0.12), (True, PALETTE[0], 0.12)):
            shown = [(row, self.cell(network, task, best).estimate()) for row, network in enumerate(self.networks)]
            points = [(row + shift, found) for row, found in shown if found is not None]
            if points:
                rows, values = [row for row, _ in points], np.array([_row(found) for _, found in points])
                errors = np.abs(values[:, 1:] - values[:, :1]).T
                label = "best side" if best else "common side"
                axis.errorbar(values[:, 0], rows, xerr=errors, fmt="o", ms=4, color=colour, label=label)
        for best, line in ((False, ":"), (True, "--")):
            if (reference := self.cell(self.reference, task, best).estimate()) is not None:
                axis.axvline(reference.value, color=REFERENCE, linestyle=line, linewidth=1)
        axis.set_xlabel("AUROC, 95 % interval", fontsize=SMALL)
        style_axes(axis, f"{task.name}\n{task.headline}", grid="x")

    def _text(self, network: str, task: Task, best: bool) -> str:
        cell = self.cell(network, task, best)
        if (estimate := cell.estimate()) is None:
            return "–"
        seeds = f", mean of {len(cell.results)} seeds" if len(cell.results) > 1 else ""
        text = f"{estimate}{seeds}, {cell.size} px"
        difference, _ = self.difference(network, task, best)
        return text if difference is None else f"{text}; d {difference}"

    def write(self, out: Path) -> None:
        """Write comparison.csv, comparison.md and comparison.png into a folder."""
        write_atomically(out / "comparison.csv", self.csv().encode())
        write_atomically(out / "comparison.md", self.markdown().encode())
        self.draw(out / "comparison.png")


def compare(
    networks: Sequence[str],
    store: ImageStore,
    out: Path,
    tasks: Sequence[str] = (),
    reference: str = REFERENCE_NETWORK,
    size: int = SIZE,
    sizes: Sequence[int] = SIZES,
    device: str = "cpu",
    progress: bool = True,
) -> Comparison:
    """Measure frozen networks with a linear probe on each task, and write the table after each probe.

    A finished probe of the same weights in `out` is not repeated, so an interrupted call resumes. Random networks are
    measured with each of `SEEDS`, at the common side only; pixels have no side of their own.

    Args:
        networks: in a form that `load_initialization` accepts.
        store: images and labels.
        out: gets comparison.csv, comparison.md, comparison.png, and each probe's folder in probes/.
        tasks: names of tasks; empty: each task that the store has images and labels of, for training and for testing.
        reference: the network that the others are compared with; it is measured too.
        size: the common input side, pixels.
        sizes: sides to choose each network's best one from, on tuning patients; empty: only the common side.
        device: torch device.
        progress: print each probe.

    Raises:
        C2LError: an unknown network or task, or a finished probe of other weights or images.
        DatasetError: the store has no images of a task's training or test part.
    """
    asked = [load_task(name, store) for name in tasks]
    chosen = tuple(asked or measurable_tasks(load_tasks(store, one_per_dataset=False), store))
    if not chosen:
        raise DatasetError(
            f"{store.path}: expected a labelled data set with a training and a test part, found none; prepare one with "
            "`c2l prepare --source NAME=DIR …`"
        )
    names = tuple(dict.fromkeys((reference, *networks)))
    comparison = Comparison(names, chosen, reference)
    for task in chosen:
        labels, values = task.names_and_labels(store)
        comparison.cases[task.name] = count_cases(labels, values[task.evaluated_rows(store)])
    out.mkdir(parents=True, exist_ok=True)
    cells, folder_names, facts_now = list(_order(names, chosen, sizes)), _folder_names(names), cache(weights_facts)
    with stage("comparison", len(cells), "probes", progress) as line:
        for best, network, task in cells:
            random = network.partition(":")[0] in (RANDOM, UNTRAINED)
            results, folders = [], []
            for seed in SEEDS if random else SEEDS[:1]:
                side = f"best-of-{'-'.join(map(str, sizes))}px" if best else f"{size}px"
                folder = out / "probes" / task.name / f"{folder_names[network]}-{side}-seed{seed}"
                report(f"{network}, {task.name}, {side}, seed {seed}")
                if not Result.is_done(folder):
                    sides = {"sizes": tuple(sizes)} if best else {"size": size}
                    probe(network, store, task, folder, baselines=False, seed=seed, device=device, **sides)
                results.append(_read(folder, store, facts_now(network)))
                folders.append(folder)
            comparison.cells[network, task.name, best] = Cell(task, tuple(results), tuple(folders))
            comparison.write(out)
            line.advance()
    return comparison


def _order(networks: Sequence[str], tasks: Sequence[Task], sizes: Sequence[int]) -> Iterator[tuple[bool, str, Task]]:
    """All cells to measure: whether at the best side, network and task. The common side comes first."""
    for best in (False, True) if sizes else (False,):
        for network in networks:
            if best and network.partition(":")[0] in (RANDOM, UNTRAINED, PIXELS):
                continue
            for task in tasks:
                yield best, network, task


def _folder_names(networks: Sequence[str]) -> dict[str, str]:
    """The start of each network's folder names: its last part, with a hash of the whole if several share that part."""
    last = {network: Path(network).name.replace(":", "-") for network in networks}
    shared = {name for name, count in Counter(last.values()).items() if count > 1}
    return {
        network: f"{name}-{hashlib.sha256(network.encode()).hexdigest()[:8]}" if name in shared else name
        for network, name in last.items()
    }


def _read(folder: Path, store: ImageStore, weights: Mapping[str, object]) -> Result:
    """A finished probe. Raises C2LError if it was measured on other images, or on other weights than `weights`."""
    result = Result.read(folder)
    if (found := result.facts["store_sha256"]) != store.sha256:
        raise C2LError(
            f"{folder}: expected a probe of the store {store.sha256[:12]}, found one of {found[:12]}; move it away, or "
            "choose another --out"
        )
    for key, expected in weights.items():
        if (measured := result.facts.get(key)) != expected:
            raise C2LError(
                f"{folder}: expected a probe of the weights with {key} {expected}, found one with {measured}; move it "
                "away, or choose another --out"
            )
    return result


def _row(estimate: Estimate | None) -> list[float | str]:
    return ["", "", ""] if estimate is None else [round(x, 4) for x in (estimate.value, estimate.low, estimate.high)]
