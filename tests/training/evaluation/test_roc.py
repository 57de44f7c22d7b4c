"""The plotted ROC curves agree with the scores."""

from dataclasses import replace

import numpy as np
import pytest
from oracles.auroc import auroc as pair_by_pair

from c2l_models.errors import C2LError
from c2l_models.training.evaluation import roc as module
from c2l_models.training.evaluation.plotting import save_png
from c2l_models.training.evaluation.predictions import Predictions
from c2l_models.training.evaluation.roc import draw_roc, roc


def predictions(labels):
    rng = np.random.default_rng(0)
    targets = (rng.random((60, labels)) < 0.4).astype(float)
    targets[:, -1] = 0
    scores = (targets + rng.normal(size=targets.shape)).round(1)
    return Predictions(
        "folder", tuple(f"finding {i}" for i in range(labels)), scores, targets, np.arange(60).astype(str)
    )


def test_the_area_under_the_curve_is_the_pairs_in_order():
    run = predictions(2)
    false, true = roc(run.scores[:, 0], run.targets[:, 0])
    area = sum((false[i + 1] - false[i]) * (true[i + 1] + true[i]) / 2 for i in range(len(false) - 1))
    assert area == pytest.approx(pair_by_pair(run.scores[:, 0], run.targets[:, 0]))


def test_one_class_or_nothing_learnt_has_no_curve():
    run = predictions(2)
    assert len(roc(run.scores[:, 1], run.targets[:, 1])[0]) == 0
    assert len(roc(np.full(60, np.nan), run.targets[:, 0])[0]) == 0


@pytest.mark.parametrize("labels", [1, 2, 6])
def test_every_panel_says_each_run_s_auroc(tmp_path, monkeypatch, labels):
    drawn = []

    def noted(figure, path):
        drawn.append(figure)
        return save_png(figure, path)

    monkeypatch.setattr(module, "save_png", noted)
    run = predictions(labels)
    other = replace(run, scores=-run.scores)
    for runs in (run, {"this start": run, "that start": other}):
        assert draw_roc(runs, tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    for figure, runs in zip(drawn, ([run], [run, other]), strict=True):
        panels = [axes for axes in figure.axes if axes.get_visible()]
        assert [axes.get_title() for axes in panels] == list(run.labels)
        for i, axes in enumerate(panels):
            expected = [pair_by_pair(each.scores[:, i], each.targets[:, i]) for each in runs]
            shown = [text.get_text() for text in axes.get_legend().get_texts()]
            assert shown == ["n/a" if i == labels - 1 else f"{value:.3f}" for value in expected]
    one, two = drawn
    assert not one.legends
    assert [text.get_text() for text in two.legends[0].get_texts()] == ["this start", "that start"]


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    run = predictions(2)
    for other in (replace(run, labels=("finding 1", "finding 0")), replace(run, targets=1 - run.targets)):
        with pytest.raises(C2LError, match="expected runs on the same labels and images"):
            draw_roc({"one": run, "other": other}, tmp_path / "roc.png")
    with pytest.raises(C2LError, match="expected 1 to 6 runs in one plot of ROC curves, found 7"):
        draw_roc({str(i): run for i in range(7)}, tmp_path / "roc.png")
