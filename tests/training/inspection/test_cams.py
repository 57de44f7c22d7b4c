"""Class-activation maps compared with an explicit loop, and boxes as shares of the image's side."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from oracles.activation import class_activation as by_position

from c2l_models.errors import C2LError, DatasetError
from c2l_models.training.augment import clean_view
from c2l_models.training.datasets.constants import label_names
from c2l_models.training.inspection.cams import class_activation, compute_cams, find_boxed_findings, load_finetuned

from .conftest import CHESTS, image, write_boxes

ALL = frozenset(label_names("chestxray14"))


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_a_map_is_each_position_by_itself_and_its_mean_with_the_bias_the_logit(architecture):
    torch.manual_seed(0)
    network = timm.create_model(architecture, in_chans=1, num_classes=3).eval()
    torch.nn.init.normal_(network.get_classifier().bias)
    films = torch.randn(2, 1, 96, 64)
    with torch.inference_mode():
        maps, logits = class_activation(network, films)
        expected = network(films)
    assert maps.shape == (2, 3, 3, 2)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.get_classifier().bias, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        maps[1, 2].double(), torch.tensor(by_position(network, films[1], 2)).double(), rtol=1e-4, atol=1e-5
    )


def test_boxes_are_in_shares_of_the_side_on_the_test_films_alone(store, boxes):
    found = find_boxed_findings(store, boxes, ALL)
    assert [(one.row, one.finding) for one in found] == [(36, "Effusion"), (37, "Cardiomegaly"), (38, "Infiltration")]
    np.testing.assert_allclose(found[2].boxes, [[600 / 1024, 600 / 1024, 728 / 1024, 856 / 1024]])
    assert [one.finding for one in find_boxed_findings(store, boxes, frozenset({"Effusion"}))] == ["Effusion"]


def test_a_films_boxes_of_one_finding_are_together_and_end_at_its_edge(store, tmp_path):
    name = image(CHESTS)
    rows = [[name, "Mass", -64, 0, 128, 512], [name, "Nodule", 0, 0, 64, 64], [name, "Mass", 896, 512, 256, 256]]
    mass, nodule = find_boxed_findings(store, write_boxes(tmp_path / "b.csv", rows), ALL)
    assert (mass.finding, nodule.finding) == ("Mass", "Nodule")
    assert mass.boxes.tolist() == [[0, 0, 0.0625, 0.5], [0.875, 0.5, 1, 0.75]]


def test_no_box_on_a_test_film(store, tmp_path):
    rows = [[image(0), "Mass", 1, 1, 9, 9]]
    with pytest.raises(DatasetError, match=r"found none among the 1 boxes in b\.csv; give"):
        find_boxed_findings(store, write_boxes(tmp_path / "b.csv", rows), ALL)


def test_the_runs_own_maps_and_probabilities(store, finetuned, boxes):
    run = load_finetuned(finetuned, store, "resnet18")
    boxed = find_boxed_findings(store, boxes, run.learned | ALL)
    cams = compute_cams(run, store, boxed)
    # The stored scores of the run; its test images start at row 36.
    scores = np.load(finetuned / "predictions.npz")["scores"]
    for one, cam in zip(boxed, cams, strict=True):
        column = run.labels.index(one.finding)
        assert cam.map.shape == (2, 2)
        if one.finding in run.learned:
            assert cam.probability == pytest.approx(1 / (1 + np.exp(-scores[one.row - 36, column])), rel=1e-4)
        film = clean_view(store[[one.row]], 64, run.about["mean"], run.about["std"])[0]
        np.testing.assert_allclose(cam.map, by_position(run.network, film, column), rtol=1e-3, atol=1e-5)
    assert "Hernia" not in run.learned  # no image of the store has it
    assert "Infiltration" in run.learned


def test_what_is_not_such_a_run_is_refused(store, finetuned, tmp_path):
    with pytest.raises(
        C2LError,
        match=r"the inspected network, a densenet121; the run in .* is a resnet18",
    ):
        load_finetuned(finetuned, store, "densenet121")
    with pytest.raises(C2LError, match="was fine-tuned on the store 55555"):
        load_finetuned(finetuned, replace(store, sha256="6" * 64), "resnet18")
    with pytest.raises(C2LError, match="finished run"):
        load_finetuned(tmp_path, store, "resnet18")
    other = shutil.copytree(finetuned, tmp_path / "knees")
    result = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps(result | {"task": "knee_kl"}))
    with pytest.raises(C2LError, match="expected a run of `c2l finetune chestxray14`, found finetune on knee_kl"):
        load_finetuned(other, store, "resnet18")
