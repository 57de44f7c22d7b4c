"""ROC curves: what is drawn is what the scores say."""

import struct

import numpy as np
import pytest
from oracles.auroc import auroc as pair_by_pair

from c2l_models.training.evaluation.predictions import Predictions
from c2l_models.training.evaluation.roc import draw_roc, roc


def answers(labels):
    rng = np.random.default_rng(0)
    targets = (rng.random((60, labels)) < 0.4).astype(float)
    targets[:, -1] = 0
    scores = (targets + rng.normal(size=targets.shape)).round(1)
    return Predictions(
        "folder", tuple(f"finding {i}" for i in range(labels)), scores, targets, np.arange(60).astype(str)
    )


def test_the_area_under_the_curve_is_the_pairs_in_order():
    run = answers(2)
    false, true = roc(run.scores[:, 0], run.targets[:, 0])
    area = sum((false[i + 1] - false[i]) * (true[i + 1] + true[i]) / 2 for i in range(len(false) - 1))
    assert area == pytest.approx(pair_by_pair(run.scores[:, 0], run.targets[:, 0]))


def test_one_class_or_nothing_learnt_has_no_curve():
    run = answers(2)
    assert len(roc(run.scores[:, 1], run.targets[:, 1])[0]) == 0
    assert len(roc(np.full(60, np.nan), run.targets[:, 0])[0]) == 0


@pytest.mark.parametrize("labels", [1, 6])
def test_a_picture_of_one_run_and_of_two(tmp_path, labels):
    run = answers(labels)
    for name, runs in (("one", run), ("two", {"this start": run, "that start": run})):
        path = draw_roc(runs, tmp_path / f"{name}.png")
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert min(width, height) > 250
