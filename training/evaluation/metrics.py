"""Metrics of a run on one sample, stored with their bootstrap resamples and jackknife values.

Runs that were measured on the same sample can be compared patient by patient, even long after they finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError

from .arrays import load_npz, save_npz
from .intervals import Difference, Estimate, Floats, draw_seeds, estimate_from_resamples

FILE = "figures.npz"


@dataclass(frozen=True)
class Metrics:
    """Metrics of one run on one sample, or their mean over runs with different seeds (see `average`).

    Attributes:
        names: names of the F metrics, as in a table.
        values: float64 [F]; NaN if a metric cannot be computed.
        resamples: float64 [R, F], the metrics on each bootstrap resample; NaN if a metric cannot be computed there.
        sample: fingerprint of labels, patients, R and seed. Two runs with equal fingerprints can be paired.
        skipped_labels: comma-separated names of labels that the run could not learn. They count in no mean. An
            average of runs that skipped different labels has the list of each run, separated by semicolons.
        jackknife: float64 [P, F], the metrics without each patient; None in files of earlier versions, which have
            percentile intervals.
        runs: the runs of an average; empty for a single run.
        seeds: the seed of each run of an average.
    """

    names: tuple[str, ...]
    values: Floats
    resamples: Floats
    sample: str
    skipped_labels: str = ""
    jackknife: Floats | None = None
    runs: tuple["Metrics", ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def num_seeds(self) -> int:
        """Number of seeds that the metrics are means of; 1 for a single run."""
        return max(1, len(self.seeds))

    @property
    def interval(self) -> str:
        """Kind of the intervals: "expanded", or "percentile" if there are no jackknife values."""
        return "percentile" if self.jackknife is None else "expanded"

    def __getitem__(self, name: str) -> Estimate:
        """A metric with its interval. Raises C2LError for an unknown name."""
        column = self._column(name)
        by_seed = [self._by_seed(column)] if self.runs else []
        jackknife = None if self.jackknife is None else self.jackknife[:, column]
        found = estimate_from_resamples(float(self.values[column]), self.resamples[:, column], jackknife, by_seed)
        return replace(found, seeds=self.num_seeds)

    def minus(self, other: "Metrics", name: str) -> Difference:
        """This run's metric minus the other run's, paired by patient.

        Two means over the same seeds are also paired by seed: a resample draws the same seeds for both. If the seeds
        differ, they are drawn independently. A single run has no seeds to draw.

        Raises:
            C2LError: the runs were measured on different labels, patients or resamples, skipped different labels, or
                have no metric of this name.
        """
        _check_same_sample([self, other])
        if self.skipped_labels != other.skipped_labels:
            raise C2LError(
                "expected runs that learned the same labels, because means over different labels cannot be compared: "
                f"one skipped {self.skipped_labels or 'none'}, the other {other.skipped_labels or 'none'}"
            )
        own_column, other_column = self._column(name), other._column(name)
        own_seeds, other_seeds = self._by_seed(own_column), other._by_seed(other_column)
        subtracted = other.resamples
        if self.seeds == other.seeds:
            by_seed = [own_seeds - other_seeds]
        else:
            by_seed = [own_seeds, other_seeds]
            if self.runs and other.runs:
                subtracted = _over_drawn_seeds(other.runs, stream=1)
        jackknife = None
        if self.jackknife is not None and other.jackknife is not None:
            jackknife = self.jackknife[:, own_column] - other.jackknife[:, other_column]
        found = estimate_from_resamples(
            float(self.values[own_column] - other.values[other_column]),
            self.resamples[:, own_column] - subtracted[:, other_column],
            jackknife,
            by_seed,
        )
        return Difference(found.value, found.low, found.high, seeds=max(self.num_seeds, other.num_seeds))

    def save(self, folder: Path) -> Path:
        """Write `figures.npz` of a single run into a folder."""
        header = {"names": self.names, "sample": self.sample, "unlearnt": self.skipped_labels}
        arrays = {"values": self.values, "resamples": self.resamples}
        save_npz(folder / FILE, header, arrays | ({} if self.jackknife is None else {"jackknife": self.jackknife}))
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> "Metrics":
        """Read `figures.npz` from a folder. Raises C2LError if it is missing or damaged."""
        keys = ("names", "sample", "unlearnt"), ("values", "resamples"), ("jackknife",)
        header, arrays = load_npz(folder / FILE, *keys)
        return cls(
            tuple(header["names"]),
            arrays["values"],
            arrays["resamples"],
            header["sample"],
            header["unlearnt"],
            arrays.get("jackknife"),
        )

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise C2LError(f"no metric is called {name!r}; expected one of: {', '.join(self.names)}")
        return self.names.index(name)

    def _by_seed(self, column: int) -> Floats:
        """A metric of each run of an average, [S]; of a single run, [1]."""
        return np.array([run.values[column] for run in self.runs or (self,)])


def average(runs: Sequence[Metrics], seeds: Sequence[int], stream: int = 0) -> Metrics:
    """Average the metrics of several runs on one sample, one run per seed.

    A run can be an average itself, such as a seed's mean over draws. The resamples of the result then draw seeds first,
    and draws within each drawn seed.

    Each resample draws whole patients and, with replacement, as many seeds as there are. With few labels, each seed
    trains on other patients and may skip other labels. A mean over labels is then the mean over the labels that each
    run learned. Two such averages can be paired if, run by run, the same labels were skipped.

    Args:
        runs: metrics of single runs.
        seeds: the seed of each run, or the number of its draw of training images. Averages over the same seeds in the
            same order are paired by seed.
        stream: of the random numbers that draw the runs; averages that are averaged again need different ones.

    Raises:
        C2LError: no runs, numbers of runs and seeds that do not match, runs with different metrics, or runs on
            different samples.
    """
    _check_same_sample(runs)
    if len({run.names for run in runs}) != 1:
        raise C2LError("expected runs with the same metrics, found runs with different metrics")
    if len(set(seeds)) != len(runs):
        raise C2LError(f"expected a different seed for each of {len(runs)} runs, found {list(seeds)}")
    if len(runs) == 1:
        return runs[0]
    skipped = [single.skipped_labels for run in runs for single in run.runs or (run,)]
    jackknives = [run.jackknife for run in runs if run.jackknife is not None]
    return Metrics(
        runs[0].names,
        np.mean([run.values for run in runs], axis=0),
        _over_drawn_seeds(runs, stream),
        runs[0].sample,
        skipped[0] if len(set(skipped)) == 1 else "; ".join(labels or "none" for labels in skipped),
        np.mean(jackknives, axis=0) if len(jackknives) == len(runs) else None,
        tuple(runs),
        tuple(seeds),
    )


def _over_drawn_seeds(runs: Sequence[Metrics], stream: int = 0) -> Floats:
    """The mean over the seeds drawn in each resample, [R, F]."""
    resamples = np.array([run.resamples for run in runs])
    return np.einsum("rs,srf->rf", draw_seeds(len(runs), resamples.shape[1], stream), resamples)


def _check_same_sample(runs: Sequence[Metrics]) -> None:
    if len({run.sample for run in runs}) != 1:
        raise C2LError(
            "these metrics cannot be compared resample by resample: expected the same labels and patients in the same "
            "order, the same seed and the same number of resamples"
        )
