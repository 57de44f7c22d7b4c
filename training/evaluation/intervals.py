"""Metrics with patient-level intervals, and what is made of several: a seed's mean, a paired difference.

A figure is kept with its value on each bootstrap resample, so that runs that were measured on the same sample can be
compared resample by resample, also long after they ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import C2LError

from .arrays import load_npz, save_npz

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval."""
FILE = "figures.npz"


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % percentile interval; NaN where it cannot be computed, written 'n/a'."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "n/a"
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference of two metrics and its interval; signed."""

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "n/a"
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Metrics:
    """What one run reached on one sample.

    Attributes:
        names: of F metrics, as a table shows them.
        values: float64 [F]; NaN where a figure cannot be computed.
        resamples: float64 [R, F], the same on each bootstrap resample; NaN where it cannot be computed there.
        sample: fingerprint of labels, patients, R and seed: equal where two runs can be paired.
        unlearnt: labels of the sample that the run could not learn, and no mean of it counts; where several runs with
            different ones were averaged, those of each.
    """

    names: tuple[str, ...]
    values: Floats
    resamples: Floats
    sample: str
    unlearnt: str = ""

    def __getitem__(self, name: str) -> Estimate:
        """A figure and its interval. Raises C2LError for a name that is not among them."""
        column = self._column(name)
        return estimate(float(self.values[column]), self.resamples[:, column])

    def minus(self, other: "Metrics", name: str) -> Difference:
        """This run's figure minus another's of the same name, paired resample by resample.

        Raises:
            C2LError: not measured on the same labels, patients and resamples, other labels learnt, or no such figure.
        """
        _check_same_sample([self, other])
        if self.unlearnt != other.unlearnt:
            raise C2LError(
                f"means over other labels; wanted runs that learnt the same ones: one lacks {self.unlearnt or 'none'}, "
                f"the other {other.unlearnt or 'none'}"
            )
        mine, its = self._column(name), other._column(name)
        difference = self.resamples[:, mine] - other.resamples[:, its]
        found = estimate(float(self.values[mine] - other.values[its]), difference)
        return Difference(found.value, found.low, found.high)

    def save(self, folder: Path) -> Path:
        """Write `figures.npz` into a folder."""
        header = {"names": self.names, "sample": self.sample, "unlearnt": self.unlearnt}
        save_npz(folder / FILE, header, {"values": self.values, "resamples": self.resamples})
        return folder / FILE

    @classmethod
    def load(cls, folder: Path) -> "Metrics":
        """What `save` wrote. Raises C2LError where it is missing or damaged."""
        header, arrays = load_npz(folder / FILE, ("names", "sample", "unlearnt"), ("values", "resamples"))
        names, sample, unlearnt = header.values()
        return cls(tuple(names), **arrays, sample=sample, unlearnt=unlearnt)

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise C2LError(f"no figure is called {name!r}; there are: {', '.join(self.names)}")
        return self.names.index(name)


def average(runs: Sequence[Metrics]) -> Metrics:
    """The mean of several runs' metrics on one sample, in every resample: what a seed gives on average.

    Few labels are other patients' in every seed, and may leave other findings unlearnt. A mean over findings is then
    that of each run's own: two such averages can be paired where, run by run, the same were learnt.

    Raises:
        C2LError: none given, not the same metrics, or not measured on one sample.
    """
    _check_same_sample(runs)
    if len({run.names for run in runs}) != 1:
        raise C2LError("runs that measured different metrics; wanted the same ones of each")
    values = np.mean([run.values for run in runs], axis=0)
    resamples = np.mean([run.resamples for run in runs], axis=0)
    unlearnt = [run.unlearnt for run in runs]
    each = unlearnt[0] if len(set(unlearnt)) == 1 else "; ".join(lacking or "none" for lacking in unlearnt)
    return Metrics(runs[0].names, values, resamples, runs[0].sample, each)


def estimate(value: float, resamples: Floats) -> Estimate:
    """A figure and the percentile interval of its resamples [R], those left out where it cannot be computed."""
    known = resamples[~np.isnan(resamples)]
    if np.isnan(value) or not len(known):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def draw_patients(patients: NDArray[np.generic], bootstrap: int, seed: int) -> tuple[Floats, NDArray[np.intp]]:
    """How often each of P patients is drawn in each resample, [P, R], and each image's patient, [N]."""
    ids, rows = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=bootstrap)
    return np.ascontiguousarray(drawn.T, dtype=np.float64), rows


def resampled(
    statistic: Callable[[Floats], Floats], patients: NDArray[np.generic], bootstrap: int, seed: int
) -> tuple[Floats, Floats]:
    """A statistic on the sample as it is, [F], and on R resamples of whole patients, [R, F].

    `statistic` takes each image's weight in each of K samples, float64 [N, K], and gives [K, F].
    """
    values = statistic(np.ones((len(patients), 1)))[0]
    if not bootstrap or not len(patients):
        return values, np.full((bootstrap, len(values)), np.nan)
    counts, rows = draw_patients(patients, bootstrap, seed)
    chunk = max(1, CHUNK // len(rows))
    parts = [statistic(counts[:, start : start + chunk][rows]) for start in range(0, bootstrap, chunk)]
    return values, np.concatenate(parts)


CHUNK = 4_000_000
"""Weights held at once: 25,596 images x 1,000 resamples would be 200 MB an array."""


def _check_same_sample(runs: Sequence[Metrics]) -> None:
    if len({run.sample for run in runs}) != 1:
        raise C2LError(
            "figures that cannot be compared resample by resample; wanted them on the same labels and patients, in the "
            "same order, with the same seed and number of resamples"
        )
