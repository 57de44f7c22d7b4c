"""`c2l look`, from a store to the written files, which name no patient."""

import json
import re

import pytest

from c2l_models.cli import main
from c2l_models.errors import C2LError
from c2l_models.releases.registry import get_weights
from c2l_models.training.inspection.inspect_features import inspect_features

from .conftest import BOXES


@pytest.fixture(scope="module")
def whole(store, finetuned, boxes, tmp_path_factory):
    out = tmp_path_factory.mktemp("looked") / "out"
    return inspect_features("resnet18.c2l_open26k", store, out, finetuned, boxes, size=32, bootstrap=20), out


def test_what_it_leaves(whole, store):
    facts, out = whole
    assert {path.name for path in out.iterdir()} == {"neighbours.png", "map.png", "cams.png", "look.md", "look.json"}
    assert json.loads((out / "look.json").read_text()) == facts
    assert facts["weights_sha256"] == get_weights("resnet18.c2l_open26k").sha256
    assert (facts["store_sha256"], facts["size"], facts["seed"]) == (store.sha256, 32, 0)
    assert facts["data_sets"]["chestxray14"]["test_patients"] == 8
    assert list(facts["map"]) == ["all_films", "chestxray14", "knee_kl"]
    cams = facts["cams"]
    assert (cams["map"], cams["size"], cams["start"]) == ([2, 2], 64, "random:resnet18")
    assert 0 <= cams["maps_without_positive_cell"] <= 3
    assert (cams["boxes"]["boxes"], cams["boxes"]["file"]) == (5, "boxes.csv")
    overall = cams["pointing_game"]["all_findings"]
    areas = {box[0]: box[3] * box[4] / 1024**2 for box in BOXES}
    learned = [name for name in cams["pointing_game"] if name != "all_findings"]
    assert overall["films"] == len(learned) >= 2
    expected = sum(areas["Infiltrate" if name == "Infiltration" else name] for name in learned) / len(learned)
    assert overall["chance"]["value"] == pytest.approx(expected, abs=1e-4)


def test_the_report_says_how_to_read_it(whole):
    facts, out = whole
    text = (out / "look.md").read_text()
    assert "2 × 2 cells" in text
    assert f"all {facts['cams']['pointing_game']['all_findings']['films']} findings with a box" in text
    assert "| all findings |" in text
    assert facts["neighbours"][0]["film"] in text
    assert facts["cams"]["weights_sha256"] in text


def test_nothing_names_a_patient_or_a_file(whole, store):
    _, out = whole
    written = (out / "look.md").read_text() + (out / "look.json").read_text()
    names = {path.rpartition("/")[2] for path in store.index["path"].to_pylist()}
    ids = {patient.partition(":")[2] for patient in store.patients}
    digits = set(re.findall(r"\d+", re.sub(r"[0-9a-f]{64}", "", written)))
    assert not any(name in written for name in names)
    assert not ids & digits
    assert str(out.parent) not in written
    for picture in out.glob("*.png"):
        data = picture.read_bytes()
        assert not any(patient.encode() in data for patient in store.patients)


def test_without_a_finetuned_run_there_are_no_activation_maps(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("c2l_models.training.store.image_store.ImageStore.open", lambda _: store)
    out = tmp_path / "out"
    main(["look", "random", "--store", "any", "--out", str(out), "--size", "32", "--device", "cpu"])
    assert {path.name for path in out.iterdir()} == {"neighbours.png", "map.png", "look.md", "look.json"}
    assert "cams" not in json.loads((out / "look.json").read_text())
    assert "activation" not in (out / "look.md").read_text()
    assert "neighbours.png, map.png and their description look.md: " in capsys.readouterr().out


def test_a_run_and_its_boxes_go_together(store, finetuned, boxes, tmp_path):
    for given in ({"finetuned": finetuned}, {"boxes": boxes}):
        with pytest.raises(C2LError, match="activation maps need both --finetuned"):
            inspect_features("random", store, tmp_path / "out", **given)
    with pytest.raises(C2LError, match="a densenet121"):
        inspect_features("random:densenet121", store, tmp_path / "out", finetuned, boxes, size=32)
    assert not (tmp_path / "out").exists()
