"""Means of a table's metrics over seeds and draws of the labelled patients, and paired differences between rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from c2l_models.errors import C2LError

from ..evaluation.intervals import Difference, Estimate
from ..evaluation.metrics import Metrics, average
from .plan import Column, InitializationPlan, Measurement
from .runner import Entry, TableResults

FIRST_STREAM = 2
"""Stream of the random numbers that draw the draws of seed 0. The smaller ones draw seeds."""


@dataclass(frozen=True)
class SeedMean:
    """A row's metric in a column: the mean over seeds of each seed's mean over its draws.

    Attributes:
        estimate: the mean and its interval over patients, seeds and draws; None without a finished run.
        seeds: number of pretraining seeds averaged.
        reason: why a run is missing, or why the runs cannot be averaged.
        skipped_labels: labels that no mean counts, as in `Metrics`.
        interval: kind of the interval, as in `Metrics`.
    """

    estimate: Estimate | None
    seeds: int
    reason: str = ""
    skipped_labels: str = ""
    interval: str = ""


def seed_mean(results: TableResults, init: InitializationPlan, column: Column) -> SeedMean:
    """A row's metric, averaged over the runs that are done."""
    entries = {(seed, of): results.entry(init, of, seed) for seed, of in _runs(results, column)}
    done = {(seed, of.draw): _metrics(entry) for (seed, of), entry in entries.items() if entry.result}
    reason = "; ".join(
        f"seed {seed}{f', draw {of.draw}' * bool(of.draw)}: {entry.state}" + f" ({entry.reason})" * bool(entry.reason)
        for (seed, of), entry in entries.items()
        if not entry.result
    )
    if not done:
        return SeedMean(None, 0, reason)
    seeds = _number_of_seeds(done)
    try:
        mean = average_of_seeds(done)
        estimate = replace(mean[column.metric], seeds=seeds)
        return SeedMean(estimate, seeds, reason, mean.skipped_labels, mean.interval)
    except C2LError as error:
        return SeedMean(None, seeds, str(error))


@dataclass(frozen=True)
class SeedDifference:
    """A row's metric minus another row's.

    Attributes:
        difference: paired by patient, seed and draw; None if the rows have no finished run in common.
        reason: why their finished runs cannot be paired; empty otherwise.
    """

    difference: Difference | None
    reason: str = ""


def difference(
    results: TableResults, init: InitializationPlan, other: InitializationPlan, column: Column
) -> SeedDifference:
    """A row's metric minus another row's.

    Only runs that both rows have finished are averaged, so that an unfinished table compares the same seeds and draws.
    """
    runs = _runs(results, column)
    pairs = {(seed, of.draw): [results.entry(row, of, seed) for row in (init, other)] for seed, of in runs}
    done = {run: list(map(_metrics, pair)) for run, pair in pairs.items() if all(entry.result for entry in pair)}
    if not done:
        return SeedDifference(None)
    try:
        one, two = (average_of_seeds({run: pair[n] for run, pair in done.items()}) for n in range(2))
        return SeedDifference(replace(one.minus(two, column.metric), seeds=_number_of_seeds(done)))
    except C2LError as error:
        return SeedDifference(None, str(error))


def average_of_seeds(runs: Mapping[tuple[int, int], Metrics]) -> Metrics:
    """The mean over pretraining seeds of each seed's mean over its draws. Raises C2LError as `average`.

    Seeds are resampled, then the draws within each seed, because the draws of one seed share its pretraining. With one
    seed, only its draws are resampled.

    Args:
        runs: by seed and draw.
    """
    by_seed: dict[int, dict[int, Metrics]] = {}
    for (seed, draw), metrics in runs.items():
        by_seed.setdefault(seed, {})[draw] = metrics
    means = [average(list(of.values()), list(of), FIRST_STREAM + seed) for seed, of in by_seed.items()]
    return average(means, list(by_seed))


def facts(results: TableResults, init: InitializationPlan, column: Column) -> dict[str, Any]:
    """The facts of a row's first finished seed, numbers of test images and patients included; empty without one."""
    for seed in results.seeds:
        if result := results.entry(init, column.measurement, seed).result:
            tested = result.facts.get("evaluation")  # a detector's key
            return result.facts | (
                {"test_images": tested["films"], "test_patients": tested["patients"]} if tested else {}
            )
    return {}


def seconds(results: TableResults, init: InitializationPlan) -> float:
    """Duration of a row's finished pretraining and measurements."""
    finished = [entry.result for (name, _, _), entry in results.entries.items() if name == init.name and entry.result]
    measured = sum(float(result.facts.get("seconds") or 0) for result in finished)
    return measured + sum(run.seconds or 0 for (name, _), run in results.pretrainings.items() if name == init.name)


def _runs(results: TableResults, column: Column) -> list[tuple[int, Measurement]]:
    """Seed and measurement of each run that a column averages."""
    return [(seed, drawn) for seed in results.seeds for drawn in column.measurement.each_draw]


def _number_of_seeds(runs: Iterable[tuple[int, int]]) -> int:
    """The number of pretraining seeds of runs by seed and draw."""
    return len({seed for seed, _ in runs})


def _metrics(entry: Entry) -> Metrics:
    assert entry.result
    return entry.result.metrics
