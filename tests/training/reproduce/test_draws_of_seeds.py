"""Means over seeds and draws: seeds are resampled, then the draws of each seed; only seeds are counted."""

import numpy as np
import pytest
from oracles import interval
from reproduce_fakes import metrics_of

from c2l_models.training.evaluation.metrics import Metrics, average
from c2l_models.training.reproduce.seed_means import average_of_seeds, difference, seed_mean
from c2l_models.training.reproduce.table_report import markdown

RESAMPLES, PATIENTS = 300, 40
DRAWS = {0: (0, 1, 2), 3: (0, 1, 2), 8: (0, 2)}
"""The finished draws of each seed."""


def runs_of(rng, of_seed=0.05, of_draw=0.02):
    """Random metrics by seed and draw."""
    runs = {}
    for seed, draws in DRAWS.items():
        shift = rng.normal(0, of_seed)
        for draw in draws:
            value = 0.7 + shift + rng.normal(0, of_draw)
            resamples, jackknife = (value + rng.normal(0, 0.01, (count, 1)) for count in (RESAMPLES, PATIENTS))
            runs[seed, draw] = Metrics(("mean",), np.array([value]), resamples, "sample", jackknife=jackknife)
    return runs


def by_hand(runs):
    """Value, resamples and jackknife values of the mean over seeds of the means over draws, and each seed's mean."""
    drawn = {seed: list(interval.drawn_seeds(len(draws), RESAMPLES, stream=2 + seed)) for seed, draws in DRAWS.items()}
    resamples = []
    for r, positions in enumerate(interval.drawn_seeds(len(DRAWS), RESAMPLES)):
        seeds = [list(DRAWS)[at] for at in positions]
        of_seeds = [np.mean([runs[seed, DRAWS[seed][at]].resamples[r, 0] for at in drawn[seed][r]]) for seed in seeds]
        resamples.append(np.mean(of_seeds))
    means = [np.mean([runs[seed, draw].values[0] for draw in draws]) for seed, draws in DRAWS.items()]
    without = [np.mean([runs[seed, draw].jackknife[:, 0] for draw in draws], axis=0) for seed, draws in DRAWS.items()]
    return np.array(resamples), np.mean(without, axis=0), means


def test_seeds_are_drawn_then_draws_within_each_seed():
    runs = runs_of(np.random.default_rng(0))
    found = average_of_seeds(runs)["mean"]
    resamples, without, means = by_hand(runs)
    assert found.value == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx(interval.expanded(resamples, without, [means]))  # 2 degrees
    assert found.seeds == 3


def test_differences_are_paired_by_seed_and_draw():
    one, two = (runs_of(np.random.default_rng(seed)) for seed in (1, 2))
    (a, a_without, a_means), (b, b_without, b_means) = map(by_hand, (one, two))
    found = average_of_seeds(one).minus(average_of_seeds(two), "mean")
    expected = interval.expanded(a - b, a_without - b_without, [np.subtract(a_means, b_means)])
    assert (found.low, found.high) == pytest.approx(expected)


def test_equal_draws_tell_no_more_than_one():
    runs = runs_of(np.random.default_rng(3))
    equal = {(seed, draw): runs[seed, 0] for seed, draws in DRAWS.items() for draw in draws}
    one = average([runs[seed, 0] for seed in DRAWS], list(DRAWS))
    assert average_of_seeds(equal)["mean"].low == pytest.approx(one["mean"].low)
    assert average_of_seeds(equal)["mean"].high == pytest.approx(one["mean"].high)


def test_draws_count_as_no_seeds_and_a_seed_of_a_hundred_is_its_own(reproduce):
    rows = ("resnet18-c2l", "resnet18-random")
    for seeds in ((0,), (0, 100)):
        results = reproduce("open", seeds=seeds, only=rows)
        column = next(column for column in results.table.columns if column.measurement.draws == 10)
        (c2l, _), (random, _) = results.table.rows
        values = [metrics_of("resnet18-c2l", seed + 100 * draw).values[0] for seed in seeds for draw in range(10)]
        mean = seed_mean(results, c2l, column)
        assert (mean.seeds, mean.estimate.seeds) == (len(seeds), len(seeds))
        assert mean.estimate.value == pytest.approx(np.mean(values))
        assert difference(results, c2l, random, column).difference.seeds == len(seeds)
        assert ("20 seeds" in markdown(results), "10 seeds" in markdown(results)) == (False, False)
