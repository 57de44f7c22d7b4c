"""Probes on few labelled images: draws by patient, scikit-learn's fits on them, pairing, and the command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from html_page import HtmlPage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from c2l_models.cli import main
from c2l_models.errors import C2LError, DatasetError
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.initialization import Initialization
from c2l_models.training.patient_splits import order_images, split_patients
from c2l_models.training.probing import few_shot as module
from c2l_models.training.probing.comparison_page import few_shot_page
from c2l_models.training.probing.few_shot import FIXED_C, few_shot

from .conftest import build_store


class Pixels(nn.Module):
    """Features of an image: its pixels, pooled to 4 x 4, or to 2 x 2."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.pool(x * self.scale).flatten(1)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """`few_shot` loads "fine" and "coarse"."""

    def load(target, size=None, **_):
        name = target.rpartition("/")[2]
        network = Pixels(2 if "coarse" in target else 4)
        return Initialization(name, "pixels", network, size or 32, 0.5, 0.25, {"architecture": "pixels"}, frozenset())

    monkeypatch.setattr(module, "load_initialization", load)


def test_the_order_has_every_patient_before_any_comes_again():
    patients = np.array(["a", "b", "a", "c", "b", "a", "d"])
    order = order_images(patients, "few_shot", 3)
    assert sorted(order) == list(range(7))
    assert len(set(patients[order[:4]])) == 4
    assert sorted(patients[order[4:6]]) == ["a", "b"]
    assert patients[order[6]] == "a"
    turned = order_images(patients[::-1], "few_shot", 3)
    assert patients[::-1][turned].tolist() == patients[order].tolist()  # the rows' order does not move the patients
    drawn = {tuple(patients[order_images(patients, "few_shot", draw)][:4]) for draw in range(20)}
    assert len(drawn) > 10


def by_hand(store, side, count, draw, parts=None):
    """AUROC of `coin` and `square` by scikit-learn, on the draw's first images. `parts`: rows of training and test."""
    task = load_task("folder")
    labels = task.labels(store)
    train, test = parts or (task.train_rows(store), task.test_rows(store))
    drawn = train[order_images(store.patients[train], "few_shot", draw)][:count]
    pooled = store.images.reshape(len(store), side, 32 // side, side, 32 // side).mean(axis=(2, 4))
    features = (pooled.reshape(len(store), -1) / 255 - 0.5) / 0.25
    scaler = StandardScaler().fit(features[drawn])
    reached = []
    for column in labels.T:
        if len(set(column[drawn])) == 1:
            reached.append(0.5)
            continue
        model = LogisticRegression(C=FIXED_C, tol=1e-8).fit(scaler.transform(features[drawn]), column[drawn])
        reached.append(roc_auc_score(column[test], model.decision_function(scaler.transform(features[test]))))
    return reached


def test_the_metrics_are_scikit_learns_averaged_over_draws(store):
    found = few_shot(["fine", "coarse"], store, "folder", counts=(2, 8), draws=4, bootstrap=20, progress=False)
    for name, side in (("fine", 4), ("coarse", 2)):
        for count in (2, 8):
            expected = np.mean([by_hand(store, side, count, draw) for draw in range(4)], axis=0)
            metrics = found.metrics[name][count]
            assert [metrics["coin"].value, metrics["square"].value] == pytest.approx(expected, abs=5e-3)
            assert found.estimate(name, count).value == pytest.approx(expected.mean(), abs=5e-3)
    assert 0.5 in [value for draw in range(4) for value in by_hand(store, 4, 2, draw)]  # a label that is not learned
    assert found.tuned == {2: 0, 8: 0}


def test_the_first_fold_is_the_test_part_of_a_task_with_folds(tmp_path):
    store = build_store(tmp_path / "store", patients=80)
    rows = load_task("folder").train_rows(store)
    tested = split_patients(store.patients[rows], 1 / 4, "out_of_fold")
    parts = rows[~tested], rows[tested]
    task = replace(load_task("folder"), test=(), folds=4)
    found = few_shot(["fine"], store, task, counts=(8,), draws=4, bootstrap=20, progress=False)
    expected = np.mean([by_hand(store, 4, 8, draw, parts) for draw in range(4)], axis=0)
    assert found.estimate("fine", 8).value == pytest.approx(expected.mean(), abs=5e-3)
    assert found.facts["test_images"] == len(parts[1])
    assert "test images of" in found.markdown()
    assert "the first fold" in found.markdown()


def test_differences_are_paired_by_draw_and_patient(store):
    found = few_shot(["fine", "coarse"], store, "folder", counts=(8,), draws=4, bootstrap=200, progress=False)
    fine, coarse = (found.metrics[name][8] for name in ("fine", "coarse"))
    paired = found.difference("coarse", 8)
    assert paired.value == pytest.approx(coarse["mean"].value - fine["mean"].value)
    same = found.difference("fine", 8)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_penalty_is_tuned_if_ten_images_of_each_class_were_drawn(tmp_path):
    store = build_store(tmp_path / "store", patients=120)
    task = replace(load_task("folder"), headline="square")
    found = few_shot(["fine"], store, task, counts=(10, 40, 1000), draws=3, bootstrap=5, progress=False)
    assert found.tuned == {10: 0, 40: 3}  # 1,000 images are more than there are
    assert found.estimate("fine", 40).value > 0.9


def test_the_penalty_is_not_tuned_if_one_patient_has_all_positive_images(tmp_path):
    store = build_store(tmp_path / "store", patients=80)
    square = load_task("folder").labels(store)[:, -1]
    train = np.isin(np.arange(len(store)), load_task("folder").train_rows(store))
    patients = np.where(train & (square == 1), "folder:one", store.patients)
    column = store.index.column_names.index("patient")
    store = replace(store, index=store.index.set_column(column, "patient", pa.array(patients)))
    task = replace(load_task("folder"), headline="square")
    found = few_shot(["fine"], store, task, counts=(train.sum(),), draws=2, bootstrap=5, progress=False)
    assert list(found.tuned.values()) == [0]


def test_what_is_refused(store):
    with pytest.raises(C2LError, match="found two of 'fine'"):
        few_shot(["fine", "fine"], store, "folder", counts=(4,), draws=2, bootstrap=2, progress=False)
    with pytest.raises(C2LError, match="--draws 0: expected 1 or more"):
        few_shot(["fine"], store, "folder", counts=(4,), draws=0, bootstrap=2, progress=False)
    with pytest.raises(DatasetError, match="a number of images from 1 to 40, the labelled training images"):
        few_shot(["fine"], store, "folder", counts=(1000,), progress=False)


def test_two_files_whose_weights_have_one_name(store):
    targets = ["fine/backbone.safetensors", "coarse/backbone.safetensors"]
    found = few_shot(targets, store, "folder", counts=(8,), draws=4, bootstrap=5, progress=False)
    for target, side in zip(targets, (4, 2), strict=True):
        expected = np.mean([by_hand(store, side, 8, draw) for draw in range(4)])
        assert found.estimate(target, 8).value == pytest.approx(expected, abs=5e-3)
        assert found.facts["networks"][target]["target"] == "backbone.safetensors"


def test_the_files(store, tmp_path):
    out = tmp_path / "out"
    found = few_shot(["fine", "coarse"], store, "folder", out, counts=(4, 8), draws=2, bootstrap=20, progress=False)
    with (out / "few-shot.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["network"], line["images"], line["minus"]) for line in lines] == [
        ("fine", "4", ""),
        ("fine", "8", ""),
        ("coarse", "4", "fine"),
        ("coarse", "8", "fine"),
    ]
    assert float(lines[3]["difference"]) == pytest.approx(found.difference("coarse", 8).value, abs=1e-4)
    text = (out / "few-shot.md").read_text()
    assert f"| coarse | {found.estimate('coarse', 4)} | {found.estimate('coarse', 8)} |" in text
    assert f"| coarse | {found.difference('coarse', 4)} | {found.difference('coarse', 8)} |" in text
    assert "Too few test images for a measure" in text
    cases = json.loads((out / "few-shot.json").read_text())["test_cases"]
    test = load_task("folder").test_rows(store).tolist()
    for name, counts in cases.items():
        values = [dict(store.index["labels"][row].as_py())[name] for row in test]
        assert counts == [values.count(1), values.count(0)]
    assert json.loads((out / "few-shot.json").read_text())["networks"]["fine"]["size"] == 32
    assert (out / "few-shot.png").read_bytes().startswith(b"\x89PNG")

    few_shot_page(found).write(out / "few-shot.html")
    page = HtmlPage(out / "few-shot.html")
    page.check()
    metrics, differences = list(page.tables)[:2]
    attributes, curves = page.charts["folder"]
    for line in lines:
        column = {"4": 0, "8": 1}[line["images"]]
        row = page.row(metrics, line["network"])
        assert list(page.measured(row))[column] == (line["value"], line["low"], line["high"])
        top, bottom = (float(attributes["data-area"].split()[n]) for n in (1, 3))
        low, high = (float(end) for end in attributes["data-range"].split()[2:])
        y = bottom - (float(line["value"]) - low) / (high - low) * (bottom - top)
        assert curves[line["network"]][column][1] == pytest.approx(y, abs=0.1)
        if line["minus"]:
            row = page.row(differences, line["network"])
            expected = (line["difference"], line["difference_low"], line["difference_high"])
            assert list(page.measured(row))[column] == expected


def test_the_command(tiny_store_folder, tmp_path, capsys):
    command = ["few-shot", "fine", "coarse", "--store", str(tiny_store_folder), "--task", "folder"]
    main([*command, "--out", str(tmp_path / "out"), "--counts", "4", "8", "--draws", "2", "--device", "cpu", "--html"])
    assert (tmp_path / "out" / "few-shot.html").is_file()
    shown = capsys.readouterr().out
    assert "AUROC by number of labelled images" in shown
    assert "curves and tables" in shown
    assert "Too few test images for a measure" in shown
