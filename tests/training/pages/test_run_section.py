"""The page of a probe of a pretraining run: curves and recipe, against the run's files."""

import hashlib
import json
import shutil

import pytest
from html_page import HtmlPage

from c2l_models.training.pages.report import Page, Section
from c2l_models.training.run_files.run_section import run_facts, training_curves


@pytest.fixture
def page(small_run, tmp_path):
    sections = [*training_curves(small_run), Section("Provenance", run_facts(small_run))]
    return HtmlPage(Page("A run", [], sections).write(tmp_path / "run.html"))


def test_the_curves_are_those_of_the_log(page, small_run):
    page.check()
    lines = [json.loads(line) for line in (small_run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    probes = [line for line in lines if line["kind"] == "probe"]
    for title, name, key in (("loss, mean over the batch", "loss", "loss"), ("learning rate", "learning rate", "lr")):
        expected = [(line["step"], line[key]) for line in train]
        assert page.line(title, name) == [pytest.approx(pair, abs=1e-3) for pair in expected]
    title = "k-NN AUROC, held-out training patients"
    expected = [(line["step"], line["folder"]) for line in probes]
    assert page.line(title, "folder") == [pytest.approx(pair, abs=1e-3) for pair in expected]


def test_recipe_and_weights(page, small_run, tiny_store):
    recipe = json.loads((small_run / "recipe.json").read_text(encoding="utf-8"))
    assert page.row("Recipe", "queue_length")[1]["text"] == str(recipe["queue_length"])
    assert page.row("Recipe", "optimizer: lr")[1]["text"] == str(recipe["optimizer"]["lr"])
    (newest,) = sorted((small_run / "checkpoints").glob("step-*"))[-1:]
    shown = page.row("Pretraining run", f"{newest.name} sha256")[1]["text"]
    assert shown == hashlib.sha256(newest.read_bytes()).hexdigest()
    assert page.row("Pretraining run", "store_sha256")[1]["text"] == tiny_store.sha256
    assert str(tiny_store.path) not in page.source
    for patient in set(tiny_store.patients.tolist()):
        assert patient not in page.source


@pytest.mark.parametrize(
    ("spec", "shown"),
    [("/home/jane/runs/start", "start"), ("resnet18.imagenet", "resnet18.imagenet"), ("hf-hub:a/b@c", "hf-hub:a/b@c")],
)
def test_the_recipe_shows_no_folder_of_this_machine(small_run, tmp_path, spec, shown):
    run = shutil.copytree(small_run, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["initialization"] = recipe["distillation"]["source"] = spec
    (run / "recipe.json").write_text(json.dumps(recipe))
    _, facts = run_facts(run)
    assert (facts.values["initialization"], facts.values["distillation"]["source"]) == (shown, shown)
