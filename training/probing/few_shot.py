"""`c2l few-shot`: linear probes on a few labelled images, for several networks on the same draws."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from c2l_models.errors import C2LError, DatasetError
from c2l_models.files import write_atomically
from c2l_models.progress import stage

from ..evaluation.csv_text import csv_text
from ..evaluation.intervals import Difference, Estimate
from ..evaluation.label_efficiency import draw_label_efficiency
from ..evaluation.markdown import escaped, markdown_table
from ..evaluation.metrics import Metrics, average
from ..evaluation.predictions import (
    MIN_CASES,
    Predictions,
    can_tune,
    count_cases,
    few_cases_note,
    measure,
    tuning_labels,
    tuning_metric,
)
from ..evaluation.tasks import Task, check_no_shared_patients, load_task
from ..initialization import load_initialization
from ..patient_splits import order_images
from ..store.image_store import ImageStore
from .feature_cache import cached_features
from .linear_probe import C_GRID, has_tuning_fold, linear_probe

COUNTS = (5, 10, 20, 50, 100, 500)
"""Numbers of labelled images."""
DRAWS = 10
FIXED_C = 0.01
"""Inverse penalty if there are too few positive images to tune it (`can_tune`)."""
NAME = "few-shot"


@dataclass(frozen=True)
class FewShot:
    """Metrics of T networks with N numbers of labelled images.

    Attributes:
        task: the task.
        metrics: by network, as it was given, and number of images: the mean over the draws. All have the same draws, so
            they are paired.
        tuned: by number of images, the number of draws in which the penalty was tuned.
        facts: data, settings and versions.
    """

    task: Task
    metrics: Mapping[str, Mapping[int, Metrics]]
    tuned: Mapping[int, int]
    facts: dict[str, Any]

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of labelled images."""
        return tuple(self.tuned)

    def estimate(self, name: str, count: int) -> Estimate:
        """The headline of a network, with its interval over patients and draws."""
        return self.metrics[name][count][self.task.headline]

    def difference(self, name: str, count: int) -> Difference:
        """The headline of a network minus that of the first network, paired by patient and draw."""
        first = next(iter(self.metrics.values()))
        return self.metrics[name][count].minus(first[count], self.task.headline)

    def write(self, out: Path) -> None:
        """Write few-shot.csv, few-shot.md, few-shot.json (data, settings and versions) and few-shot.png."""
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / f"{NAME}.csv", self.csv().encode())
        write_atomically(out / f"{NAME}.md", self.markdown().encode())
        write_atomically(out / f"{NAME}.json", (json.dumps(self.facts, indent=1, ensure_ascii=False) + "\n").encode())
        curves: dict[str, dict[float, Estimate]] = {
            name: {count: self.estimate(name, count) for count in self.counts} for name in self.metrics
        }
        title = f"Linear probes on a few labelled images of {self.task.name}"
        draw_label_efficiency(curves, out / f"{NAME}.png", title, f"AUROC, {self.task.headline}", against="images")

    def show(self, console: Console | None = None) -> None:
        """Print the metrics, one line per network."""
        table = Table("network", title=f"{self.task.name}, {self.task.headline}: AUROC by number of labelled images")
        for count in self.counts:
            table.add_column(str(count), justify="right", overflow="fold")
        for name in self.metrics:
            table.add_row(name, *(str(self.estimate(name, count)) for count in self.counts))
        console = console or Console(markup=False, emoji=False)
        console.print(table)
        if note := few_cases_note(self.facts["test_cases"]):
            console.print(note, style="dim")

    def caption(self, spelled: Callable[[str], str] = str) -> str:
        """How the metrics were computed. `spelled`: the form of a label's name."""
        facts = self.facts
        tuned = [f"{count} images: {draws}" for count, draws in self.tuned.items() if draws]
        return (
            f"{facts['draws']} draws of training images, each of as many patients as possible and the same for every "
            f"network; {facts['test_images']} test images of {facts['test_patients']} patients"
            f"{', the first fold' * bool(self.task.folds)}. Means over draws, with "
            f"95 % intervals over patients and draws. The penalty is tuned if one of the headline's labels has "
            f"{MIN_CASES} positive and {MIN_CASES} negative images in the draw, not all in one fold of patients, else "
            f"C = {FIXED_C:g}. Draws with a tuned penalty: {', '.join(tuned) or 'none'}. A label with one class only "
            f"in a draw counts as 0.5. {few_cases_note(facts['test_cases'], spelled)}"
        ).rstrip()

    def csv(self) -> str:
        """One line for each network and number of images; the difference is to the first network."""
        first = next(iter(self.metrics))
        header = ["network", "task", "metric", "images", "draws", "value", "low", "high"]
        rows: list[list[object]] = [[*header, "minus", "difference", "difference_low", "difference_high"]]
        for name in self.metrics:
            for count in self.counts:
                found, paired = self.estimate(name, count), self.difference(name, count)
                numbers = [f"{value:.4f}" for value in (found.value, found.low, found.high)]
                differences = [f"{value:.4f}" for value in (paired.value, paired.low, paired.high)]
                about = [name, self.task.name, self.task.headline, count, self.facts["draws"]]
                rows.append([*about, *numbers, *([first, *differences] if name != first else [""] * 4)])
        return csv_text(rows)

    def markdown(self) -> str:
        """Tables of the metrics and of the differences, and how they were computed."""
        first, *others = self.metrics
        header = ["network", *(f"{count} images" for count in self.counts)]
        values = [[name, *(self.estimate(name, count) for count in self.counts)] for name in self.metrics]
        parts = [
            f"# Few labelled images of {self.task.name}",
            f"AUROC, {self.task.headline}, of linear probes on frozen features. {self.caption(escaped)}",
            markdown_table(header, values),
        ]
        if others:
            differences = [[name, *(self.difference(name, count) for count in self.counts)] for name in others]
            parts += [
                f"Paired difference: each network minus {first}, on the same draws and the same bootstrap patients.",
                markdown_table(header, differences),
            ]
        facts = [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in self.facts.items()]
        return "\n\n".join([*parts, "## Data, settings and versions", "\n".join(facts)]) + "\n"


def few_shot(
    targets: Sequence[str],
    store: ImageStore,
    task: str | Task,
    out: Path | None = None,
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    size: int | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    device: str = "cpu",
    progress: bool = True,
) -> FewShot:
    """Fit linear probes on a few labelled training images, and measure them on the whole test part.

    A task with folds of patients has no test part: its first fold is the test part, the others are the training part.

    Draw k of n images is the same for every network: the first n images of an order that has every patient once before
    any patient twice (`order_images`). The penalty is tuned on patient folds of the n images if one of the headline's
    labels has 10 positive and 10 negative ones, not all in one fold; otherwise it is `FIXED_C`. A label with only one
    class among the n images is not learned: it gets equal scores, an AUROC of 0.5, so that all numbers of images have
    the same labels.

    Args:
        targets: networks, as `load_initialization` takes them. The first is the reference of the differences.
        store: images and labels.
        task: the task, or its name, as `load_task` takes it.
        out: folder for few-shot.csv, few-shot.md, few-shot.json and few-shot.png; None: nothing is written.
        counts: numbers of labelled images. Those above the task's number of training images are left out.
        draws: number of draws. Metrics are means over the draws.
        size: input side in pixels; default: each network's own.
        seed: seed of random networks. Draw k has the seed k.
        bootstrap: number of resamples of whole patients.
        device: torch device.
        progress: show a progress bar.

    Raises:
        DatasetError: the store has too few labelled images.
        C2LError: an unknown task or network, a network that is given twice, or no draw.
    """
    if draws < 1:
        raise C2LError(f"--draws {draws}: expected 1 or more; metrics are means over the draws")
    if twice := [target for target, count in Counter(targets).items() if count > 1]:
        raise C2LError(f"expected each network once, found two of {twice[0]!r}; name each once")
    task = load_task(task, store) if isinstance(task, str) else task
    names, labels = task.names_and_labels(store)
    train, test = _parts(task, store)
    check_no_shared_patients(store, train, test)
    train = train[np.isfinite(labels[train]).any(axis=1)]
    counts = sorted({count for count in counts if 0 < count <= len(train)})
    if not counts or not names:
        raise DatasetError(
            f"{task.name}: expected labels, and a number of images from 1 to {len(train)}, the labelled training "
            "images; choose other --counts, or a store with more labelled images"
        )
    orders = [train[order_images(store.patients[train], "few_shot", draw)] for draw in range(draws)]
    metrics: dict[str, dict[int, Metrics]] = {}
    networks: dict[str, dict[str, Any]] = {}
    with stage("few labels", len(targets) * len(counts) * draws, "probes", progress) as line:
        for target in targets:
            init = load_initialization(target, size=size, seed=seed, store=store, device=device, calibrate_on=train)
            test_features, train_features = (
                cached_features(init.network, store, rows, init.size, init.mean, init.std, device)
                for rows in (test, train)
            )
            metrics[target] = {}
            for count in counts:
                by_draw = []
                for rows in (order[:count] for order in orders):
                    fitted = linear_probe(
                        train_features[np.searchsorted(train, rows)],
                        labels[rows],
                        store.patients[rows],
                        test_features,
                        partial(tuning_metric, task, names),
                        device=device,
                        penalties=_penalties(task, names, labels[rows], store.patients[rows]),
                    )
                    scores = np.nan_to_num(fitted.scores)  # equal scores for a label that was not learned
                    predictions = Predictions(task.name, names, scores, labels[test], store.patients[test])
                    by_draw.append(measure(predictions, task, bootstrap))
                    line.advance()
                metrics[target][count] = average(by_draw, range(draws))
            seen = init.count_seen(store.patients[test])
            networks[target] = {
                "target": init.name,
                **init.about,
                "size": init.size,
                "test_patients_seen_in_pretraining": seen,
            }
    tuned = {
        count: sum(
            len(_penalties(task, names, labels[rows], store.patients[rows])) > 1 for rows in (o[:count] for o in orders)
        )
        for count in counts
    }
    facts = {
        "task": task.name,
        "headline": task.headline,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "train_images": len(train),
        "test_images": len(test),
        "test_patients": len(set(store.patients[test])),
        "test_cases": count_cases(names, labels[test]),
        "draws": draws,
        "draws_with_tuned_penalty": tuned,
        "fixed_C": FIXED_C,
        "seed": seed,
        "bootstrap": bootstrap,
        "networks": networks,
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm")},
    }
    found = FewShot(task, metrics, tuned, facts)
    if out:
        found.write(out)
    return found


def _parts(task: Task, store: ImageStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the training part and of the test part."""
    rows = task.train_rows(store)
    if not task.folds:
        return rows, task.test_rows(store)
    first = task.folds_of(store.patients[rows]) == 0
    return rows[~first], rows[first]


def _penalties(
    task: Task, names: Sequence[str], labels: NDArray[np.float32], patients: NDArray[np.str_]
) -> Sequence[float]:
    """The penalties to choose from for images with these labels [N, L] and patients [N]."""
    counted = labels[:, tuning_labels(task, names, labels)]
    return C_GRID if can_tune(task, names, labels) and has_tuning_fold(counted, patients) else (FIXED_C,)
