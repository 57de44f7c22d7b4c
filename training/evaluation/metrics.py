"""Metrics of a run on one sample, stored with their bootstrap resamples.

Runs that were measured on the same sample can be compared resample by resample, even long after they finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError

from .arrays import load_npz, save_npz
from .intervals import Difference, Estimate, Floats, estimate_from_resamples

FILE = "figures.npz"


@dataclass(frozen=True)
class Metrics:
    """Metrics of one run on one sample.

    Attributes:
        names: names of the F metrics, as in a table.
        values: float64 [F]; NaN if a metric cannot be computed.
        resamples: float64 [R, F], the metrics on each bootstrap resample; NaN if a metric cannot be computed there.
        sample: fingerprint of labels, patients, R and seed. Two runs with equal fingerprints can be paired.
        skipped_labels: comma-separated names of labels that the run could not learn. They count in no mean. An
            average of runs that skipped different labels has the list of each run, separated by semicolons.
    """

    names: tuple[str, ...]
    values: Floats
    resamples: Floats
    sample: str
    skipped_labels: str = ""

    def __getitem__(self, name: str) -> Estimate:
        """A metric with its interval. Raises C2LError for an unknown name."""
        column = self._column(name)
        return estimate_from_resamples(float(self.values[column]), self.resamples[:, column])

    def minus(self, other: "Metrics", name: str) -> Difference:
        """This run's metric minus the other run's, paired by resample.

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
        difference = self.resamples[:, own_column] - other.resamples[:, other_column]
        found = estimate_from_resamples(float(self.values[own_column] - other.values[other_column]), difference)
        return Difference(found.value, found.low, found.high)

    def save(self, folder: Path) -> Path:
        """Write `figures.npz` into a folder."""
        header = {"names": self.names, "sample": self.sample, "unlearnt": self.skipped_labels}
        save_npz(folder / FILE, header, {"values": self.values, "resamples": self.resamples})
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> "Metrics":
        """Read `figures.npz` from a folder. Raises C2LError if it is missing or damaged."""
        header, arrays = load_npz(folder / FILE, ("names", "sample", "unlearnt"), ("values", "resamples"))
        return cls(tuple(header["names"]), **arrays, sample=header["sample"], skipped_labels=header["unlearnt"])

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise C2LError(f"no metric is called {name!r}; expected one of: {', '.join(self.names)}")
        return self.names.index(name)


def average(runs: Sequence[Metrics]) -> Metrics:
    """Average the metrics of several runs on one sample, such as one run per seed. Each resample is averaged too.

    With few labels, each seed trains on other patients and may skip other labels. A mean over labels is then the mean
    over the labels that each run learned. Two such averages can be paired if, run by run, the same labels were skipped.

    Raises:
        C2LError: no runs, runs with different metrics, or runs on different samples.
    """
    _check_same_sample(runs)
    if len({run.names for run in runs}) != 1:
        raise C2LError("expected runs with the same metrics, found runs with different metrics")
    values = np.mean([run.values for run in runs], axis=0)
    resamples = np.mean([run.resamples for run in runs], axis=0)
    skipped = [run.skipped_labels for run in runs]
    listed = skipped[0] if len(set(skipped)) == 1 else "; ".join(labels or "none" for labels in skipped)
    return Metrics(runs[0].names, values, resamples, runs[0].sample, listed)


def _check_same_sample(runs: Sequence[Metrics]) -> None:
    if len({run.sample for run in runs}) != 1:
        raise C2LError(
            "these metrics cannot be compared resample by resample: expected the same labels and patients in the same "
            "order, the same seed and the same number of resamples"
        )
