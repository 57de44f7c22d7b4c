"""Coverage of 95 % intervals in simulations with ChestX-ray14's official test patients: how often is the truth inside?

A simulation keeps the number of images of each test patient and draws labels and scores with known AUROC or kappa. A
label is positive if a normal variable is above a threshold. A score is a normal variable, plus a separation for
positive images. Patient effects have `LABEL_SHARE` and `SCORE_SHARE` of the variances. The AUROC of pairs of images of
different patients is then Φ(separation / √2).
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from c2l_models.progress import stage

from ..evaluation.classification_metrics import auroc, weighted_kappa
from ..evaluation.intervals import Floats, draw_patients
from ..evaluation.metrics import Metrics, average
from ..seeding import seed_of
from .interval_methods import NORMAL, Interval, auroc_slopes, bca, kappa_slopes, percentile, studentized
from .timing import save_json

PATIENTS = Path(__file__).with_name("chestxray14_test_patients.csv")
"""Number of patients by number of images, in the official test part of the open corpus: 91 patients, 1,492 images."""
LABEL_SHARE = 0.4
"""Variance of labels between patients; as many patients have positive images as in the test part."""
SCORE_SHARE = 0.3
"""Variance of scores between patients."""
SHARED = 0.7
"""Variance of scores that networks and seeds have in common."""
SEED_SPREAD = 0.1
"""Standard deviation of the separation between seeds."""
FINDINGS = tuple(count / 1492 for count in (171, 66, 259, 400, 69, 99, 38, 104, 115, 38, 24, 54, 56))
"""Share of positive images of the 13 findings without Hernia in the test part."""
GRADES = (0.4, 0.57, 0.83, 0.96)
"""Shares of images below grades 1 to 4."""
METHODS = ("percentile", "BCa", "studentized", "expanded")


@dataclass(frozen=True)
class Case:
    """A simulated comparison.

    Attributes:
        name: name in the table.
        prevalences: share of positive images of each label; the metric is the mean AUROC.
        separations: of one network, or of two, whose paired difference is the metric.
        seeds: the seeds of each network's runs. With several, the separation differs by seed.
    """

    name: str
    prevalences: tuple[float, ...]
    separations: tuple[float, ...] = (0.5,)
    seeds: tuple[tuple[int, ...], ...] = ((0,), (0,))

    @property
    def truth(self) -> float:
        """The expected metric."""
        values = [
            NORMAL.cdf(separation / (2 + (len(seeds) > 1) * SEED_SPREAD**2) ** 0.5)
            for separation, seeds in zip(self.separations, self.seeds, strict=False)
        ]
        return values[0] - sum(values[1:])


FIVE = (0, 1, 2, 3, 4)
CASES = (
    Case("AUROC 0.64, 1.6 % positive", FINDINGS[10:11]),
    Case("AUROC 0.64, 7 % positive", (0.07,)),
    Case("AUROC 0.64, 27 % positive", FINDINGS[3:4]),
    Case("AUROC 0.80, 27 % positive", FINDINGS[3:4], (1.2,)),
    Case("mean AUROC of 13 labels", FINDINGS),
    Case("paired difference, 2.5 % positive", FINDINGS[6:7], (0.6, 0.5)),
    Case("paired difference, 27 % positive", FINDINGS[3:4], (0.6, 0.5)),
    Case("paired difference of means of 13 labels", FINDINGS, (0.6, 0.5)),
    Case("mean of 5 seeds, 7 % positive", (0.07,), seeds=(FIVE,)),
    Case("one run minus mean of 5 seeds, 7 % positive", (0.07,), (0.6, 0.5), seeds=((0,), FIVE)),
)


@dataclass(frozen=True)
class CaseCoverage:
    """Coverage of one case.

    Attributes:
        name: the case.
        simulations: how often it was simulated.
        truth: the true metric.
        coverage, width: by method: share of the simulations whose interval contains the truth, and median width. A
            method that is not defined for the case is missing.
    """

    name: str
    simulations: int
    truth: float
    coverage: dict[str, float]
    width: dict[str, float]


@dataclass(frozen=True)
class Coverage:
    """Result of `simulate_coverage`."""

    resamples: int
    cases: tuple[CaseCoverage, ...]

    def __rich__(self) -> Table:
        title = f"Coverage of 95 % intervals (median width), {self.resamples} resamples"
        table = Table("", "simulations", *METHODS, title=title, title_justify="left")
        for case in self.cases:
            cells = [
                f"{case.coverage[method]:.3f} ({case.width[method]:.3f})" if method in case.coverage else "–"
                for method in METHODS
            ]
            table.add_row(case.name, str(case.simulations), *cells)
        return table

    def save(self, path: Path) -> None:
        """Write the result as JSON."""
        save_json(self, path)


def simulate_coverage(simulations: int = 400, resamples: int = 1000, seed: int = 0, progress: bool = True) -> Coverage:
    """Simulate every case.

    Args:
        simulations: number of simulations of each case; a third of them for means over labels, which take longer. With
            400, a coverage of 0.95 has a standard error of 0.011.
        resamples: number of bootstrap resamples of each interval.
        seed: seed of labels and scores.
        progress: show a progress bar.
    """
    rows, found = patient_of_images(), []
    with stage("simulating", len(CASES) + 1, "cases", progress) as line:
        for number, case in enumerate(CASES):
            generator, count = _generator(seed, number), simulations if len(case.prevalences) == 1 else simulations // 3
            simulated = [auroc_intervals(case, rows, resamples, generator) for _ in range(count)]
            found.append(_covered(case.name, case.truth, simulated))
            line.advance()
        generator = _generator(seed, len(CASES))
        grades = [kappa_intervals(rows, resamples, generator) for _ in range(simulations)]
    return Coverage(resamples, (*found, _covered("weighted kappa of 5 grades", true_kappa(), grades)))


def _covered(name: str, truth: float, simulated: Sequence[Mapping[str, Interval]]) -> CaseCoverage:
    coverage = {m: fmean(each[m][0] <= truth <= each[m][1] for each in simulated) for m in simulated[0]}
    width = {m: median(each[m][1] - each[m][0] for each in simulated) for m in simulated[0]}
    return CaseCoverage(name, len(simulated), truth, coverage, width)


def auroc_intervals(
    case: Case, rows: NDArray[np.intp], resamples: int, generator: np.random.Generator
) -> dict[str, Interval]:
    """The interval of each method in one simulation of a case; `rows`: patient of each image, [N]."""
    labels, networks = draw_scores(case, rows, generator)
    names = tuple(map(str, range(labels.shape[1])))
    runs = [
        [auroc(scores, labels, rows, resamples).metrics(names, {"mean": np.ones(len(names), bool)}) for scores in each]
        for each in networks
    ]
    means = [average(each, seeds) for each, seeds in zip(runs, case.seeds, strict=False)]
    estimate = means[0].minus(means[1], "mean") if len(means) > 1 else means[0]["mean"]
    # Only patients are resampled for the other methods.
    over_patients, jackknife = (
        _difference([np.mean([getattr(run, key)[:, -1] for run in each], axis=0) for each in runs])
        for key in ("resamples", "jackknife")
    )
    found = {"percentile": percentile(over_patients), "expanded": (estimate.low, estimate.high)}
    if any(len(each) > 1 for each in runs):
        return found
    counts, _ = draw_patients(rows, resamples, 0)
    slopes = _difference([auroc_slopes(each[0], labels, rows, counts) for each in networks])
    return found | {
        "BCa": bca(estimate.value, over_patients, jackknife),
        "studentized": studentized(estimate.value, over_patients, slopes, counts),
    }


def kappa_intervals(rows: NDArray[np.intp], resamples: int, generator: np.random.Generator) -> dict[str, Interval]:
    """The interval of each method in one simulation of grades."""
    predicted, true = draw_grades(rows, generator)
    found = weighted_kappa(predicted, true, rows, resamples)
    kappa = Metrics(("kappa",), found.values, found.resamples, "", jackknife=found.jackknife)["kappa"]
    counts, _ = draw_patients(rows, resamples, 0)
    over_patients = found.resamples[:, 0]
    return {
        "percentile": percentile(over_patients),
        "BCa": bca(kappa.value, over_patients, found.jackknife[:, 0]),
        "studentized": studentized(kappa.value, over_patients, kappa_slopes(predicted, true, rows, counts), counts),
        "expanded": (kappa.low, kappa.high),
    }


def draw_scores(
    case: Case, rows: NDArray[np.intp], generator: np.random.Generator
) -> tuple[Floats, list[list[Floats]]]:
    """Labels [N, L], and scores [N, L] of each run of each network."""
    shape = (len(rows), len(case.prevalences))
    thresholds = [NORMAL.inv_cdf(1 - prevalence) for prevalence in case.prevalences]
    labels = (_noise(rows, shape[1], LABEL_SHARE, generator) > thresholds).astype(float)
    common = SHARED**0.5 * _noise(rows, shape[1], SCORE_SHARE, generator)
    networks = []
    for separation, seeds in zip(case.separations, case.seeds, strict=False):
        shifts = SEED_SPREAD * generator.normal(size=len(seeds)) * (len(seeds) > 1)
        own = [(1 - SHARED) ** 0.5 * _noise(rows, shape[1], SCORE_SHARE, generator) for _ in seeds]
        networks.append(
            [(separation + shift) * labels + common + each for shift, each in zip(shifts, own, strict=True)]
        )
    return labels, networks


def draw_grades(rows: NDArray[np.intp], generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Predicted and true grades 0 to 4, [N] each."""
    latent = _noise(rows, 1, LABEL_SHARE, generator)[:, 0]
    guess = (latent + _noise(rows, 1, SCORE_SHARE, generator)[:, 0]) / 2**0.5
    edges = [NORMAL.inv_cdf(share) for share in GRADES]
    return np.digitize(guess, edges).astype(float), np.digitize(latent, edges).astype(float)


def true_kappa() -> float:
    """Kappa of a million images of different patients."""
    images = np.arange(10**6)
    return float(weighted_kappa(*draw_grades(images, _generator(0)), images, bootstrap=0).values[0])


def patient_of_images() -> NDArray[np.intp]:
    """The patient of each image, numbers from 0, [N]."""
    with PATIENTS.open(encoding="utf-8", newline="") as file:
        sizes = [int(row["images"]) for row in csv.DictReader(file) for _ in range(int(row["patients"]))]
    return np.repeat(np.arange(len(sizes)), sizes)


def _noise(rows: NDArray[np.intp], labels: int, share: float, generator: np.random.Generator) -> Floats:
    """Standard normal [N, L]; images of a patient are correlated by `share`."""
    of_patient = generator.normal(size=(rows.max() + 1, labels))
    return share**0.5 * of_patient[rows] + (1 - share) ** 0.5 * generator.normal(size=(len(rows), labels))


def _difference(values: Sequence[Floats]) -> Floats:
    """The first minus the second, if there are two."""
    return values[0] - values[1] if len(values) > 1 else values[0]


def _generator(*words: int) -> np.random.Generator:
    return np.random.default_rng(seed_of(*words))
