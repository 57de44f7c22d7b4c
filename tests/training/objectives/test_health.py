"""Metrics of features against closed forms, and the rule that reports a collapse."""

import json
import math
from dataclasses import replace

import pytest
import torch

from c2l_models.training.objectives.health import alignment, collapse, effective_rank, uniformity
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Optimizer
from c2l_models.training.run_files import log


def test_alignment_is_the_mean_squared_distance():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    queries, keys = torch.stack([east, east, east, north]), torch.stack([east, -east, north, north])
    assert alignment(queries, keys) == pytest.approx((0 + 4 + 2 + 0) / 4)


def test_uniformity_of_equal_opposite_and_orthogonal_features():
    assert uniformity(torch.ones(5, 3) / 3**0.5) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(torch.eye(6)) == pytest.approx(-4)  # each pair at a squared distance of 2


def test_effective_rank_of_known_spectra():
    torch.manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    points = torch.cat([torch.eye(8)[:3], -torch.eye(8)[:3]])  # centred, three equal singular values
    assert effective_rank(points @ rotation + 5) == pytest.approx(3, rel=1e-4)
    points[2], points[5] = 0, 0
    points[1] /= 3
    points[4] /= 3  # singular values 3 : 1
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank(points @ rotation) == pytest.approx(expected, rel=1e-4)
    assert effective_rank(torch.ones(4, 8)) == 0


@pytest.mark.parametrize(
    ("lines", "collapsed"),
    [
        ([(0.05, 9)] * 3, True),
        ([(0.9, 1.5)] * 3, True),
        ([(0.05, 9), (0.9, 1.5), (0.05, 1.0)], True),
        ([(0.05, 9)] * 2, False),
        ([(0.05, 1.0), (0.1, 2.0), (0.05, 1.0)], False),
        ([(0.05, 9)] * 3 + [(0.5, 9)], False),
    ],
)
def test_collapse_needs_three_lines_in_a_row(lines, collapsed):
    message = collapse([{"spread": spread, "effective_rank": rank} for spread, rank in lines])
    assert ("the features have collapsed" in message) == collapsed


def test_a_method_without_a_spread_is_never_reported():
    assert collapse([{"loss": 0.0}] * 5) == ""


@pytest.mark.usefixtures("small_networks")
def test_each_line_of_the_log_has_the_health_of_its_last_step(tiny_recipe, tiny_store, tmp_path):
    """A teacher without momentum equals the student after each step; the log and TensorBoard have the same keys."""
    recipe = replace(tiny_recipe, teacher_momentum=0.0, probe_every=0)
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    lines = [line for line in log.read(run) if line["kind"] == "train"]
    assert len(lines) == 4
    for line in lines:
        assert line["teacher_distance"] == pytest.approx(0, abs=1e-6)
        assert line["gradient_norm"] > 0
        assert 0 <= line["alignment"] <= 4
        assert -8 <= line["uniformity"] <= 0
        assert 1 <= line["effective_rank"] <= 7  # eight centred features


@pytest.mark.usefixtures("small_networks")
def test_the_user_is_told_once_of_a_collapse(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr("c2l_models.training.objectives.health.MIN_RANK", 100.0)
    recipe = replace(tiny_recipe, log_every=1, probe_every=0, optimizer=Optimizer(lr=0.01))
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    [note] = [line for line in log.read(run) if line["kind"] == "note"]
    assert note["step"] == 3
    assert "start a new one with a lower --recipe.optimizer.lr" in note["text"]
    assert json.dumps(note)
