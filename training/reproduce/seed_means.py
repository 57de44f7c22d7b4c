"""Means of a table's metrics over seeds and draws of the labelled patients, and paired differences between rows."""

from dataclasses import dataclass
from typing import Any

from c2l_models.errors import C2LError

from ..evaluation.intervals import Difference, Estimate
from ..evaluation.metrics import Metrics, average
from .plan import Column, InitializationPlan, Measurement
from .runner import Entry, TableResults


@dataclass(frozen=True)
class SeedMean:
    """A row's metric in a column, averaged over its runs: one for each seed, or for each seed and draw.

    Attributes:
        estimate: the mean and its interval over patients and runs; None without a finished run.
        seeds: number of runs averaged.
        reason: why a seed is missing, or why the seeds cannot be averaged.
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
    done = {of.seed(seed): _metrics(entry) for (seed, of), entry in entries.items() if entry.result}
    reason = "; ".join(
        f"seed {seed}{f', draw {of.draw}' * bool(of.draw)}: {entry.state}" + f" ({entry.reason})" * bool(entry.reason)
        for (seed, of), entry in entries.items()
        if not entry.result
    )
    if not done:
        return SeedMean(None, 0, reason)
    try:
        mean = average(list(done.values()), list(done))
        return SeedMean(mean[column.metric], len(done), reason, mean.skipped_labels, mean.interval)
    except C2LError as error:
        return SeedMean(None, len(done), str(error))


def difference(
    results: TableResults, init: InitializationPlan, other: InitializationPlan, column: Column
) -> Difference | None:
    """A row's metric minus another row's, paired by patient and by seed; None if either row has none.

    Only runs that both rows have finished are averaged, so that an unfinished table compares the same seeds and draws.
    """
    runs = _runs(results, column)
    pairs = {of.seed(seed): [results.entry(row, of, seed) for row in (init, other)] for seed, of in runs}
    done = {seed: list(map(_metrics, pair)) for seed, pair in pairs.items() if all(entry.result for entry in pair)}
    if not done:
        return None
    one, two = zip(*done.values(), strict=True)
    try:
        return average(one, list(done)).minus(average(two, list(done)), column.metric)
    except C2LError:
        return None


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


def _metrics(entry: Entry) -> Metrics:
    assert entry.result
    return entry.result.metrics
