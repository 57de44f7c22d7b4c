"""The model card of a release: the hub can read it, and its facts match the registry."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load

import c2l_models
from c2l_models import cli
from c2l_models.errors import WeightsCorrupted, WeightsNotFound
from c2l_models.publishing import card
from c2l_models.publishing.card import card_data, metrics, model_card
from c2l_models.releases.provenance import read_provenance

RELEASES = c2l_models.list_weights()


@pytest.fixture(params=RELEASES)
def weights(request: pytest.FixtureRequest) -> c2l_models.Weights:
    return c2l_models.get_weights(request.param)


def front_matter(weights: c2l_models.Weights) -> dict:
    _, text, _ = re.split(r"^---$", str(model_card(weights, "owner/name")), maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(text)


def test_the_front_matter_holds_what_the_hub_reads(weights: c2l_models.Weights) -> None:
    front = front_matter(weights)
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert front["license"] in {"cc-by-4.0", "apache-2.0", "mit"}  # as the hub spells them
    assert front["license"] == weights.license.lower()
    assert {"timm", "radiology", "x-ray"} <= set(front["tags"])
    assert ("self-supervised" in front["tags"]) is ("conversion" not in read_provenance(weights))
    assert len(front["tags"]) == len(set(front["tags"]))
    own = {line.split()[0] for line in weights.trained_on if "(licence: " not in line}
    before = {"imagenet-1k"} if weights.tag == "c2l_open26k" else set()  # they come from ImageNet's weights
    assert set(front["datasets"]) == own | before
    assert front["training_data"] == list(weights.trained_on)
    assert front["metrics"] == (["quadratic weighted kappa", "roc_auc"] if weights.metrics else [])


def test_the_model_index_holds_each_figure_with_its_interval(weights: c2l_models.Weights) -> None:
    if not weights.metrics:
        assert "model-index" not in front_matter(weights)
        return
    (model,) = front_matter(weights)["model-index"]
    assert model["name"] == weights.name
    found = {}
    for result in model["results"]:
        assert result["task"]["type"]
        held_out = result["dataset"]["type"] in ("chestxray14", "knee_kl")
        assert result["dataset"]["split"] == ("test" if held_out else "out of fold")
        for metric in result["metrics"]:
            name = f"{result['dataset']['type']} {result['task']['name']}, {metric['name']}"
            found[name] = {"value": metric["value"], "low": metric["args"]["low"], "high": metric["args"]["high"]}
            assert metric["args"]["confidence"] == 0.95
    assert found == weights.metrics


def test_the_hubs_own_reader_gives_the_same_card_back(weights: c2l_models.Weights) -> None:
    card = model_card(weights, "owner/name")
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict() == card_data(weights).to_dict()
    assert str(again) == str(card)


def test_the_repositorys_card_begins_as_the_releases_own(repository: Path) -> None:
    found, expected = (
        metadata_load(repository / "MODEL_CARD.md"),
        card.front_matter(map(c2l_models.get_weights, RELEASES)),
    )
    assert found == expected, "the registry changed: python -m c2l_models.publishing.card MODEL_CARD.md"


def test_one_releases_front_matter_is_its_cards(weights: c2l_models.Weights) -> None:
    assert card.front_matter([weights]) == front_matter(weights)


def test_several_releases_are_put_together(
    weights: c2l_models.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "cards.toml"
    words.write_text(f'{card.WORDS.read_text()}\n[releases."{weights.architecture}.other"]\n')
    monkeypatch.setattr(card, "WORDS", words)
    seen = ("knee_kl train: 3 images, 1 patients", weights.trained_on[0])
    metric = {"knee_kl k-NN, AUROC, mean": {"value": 0.5, "low": 0.4, "high": 0.6}}
    weights = replace(weights, metrics=weights.metrics or metric)
    other = replace(weights, tag="other", license="Apache-2.0", trained_on=seen, metrics={})
    front, one = card.front_matter([weights, other, weights]), card.front_matter([weights])
    assert front["model-index"] == one["model-index"]  # the other has no metrics
    assert front["training_data"] == list(dict.fromkeys([*weights.trained_on, seen[0]]))
    assert front["license"] == [one["license"], "apache-2.0"]
    for key in one.keys() - {"model-index", "training_data", "license", "tags", "datasets"}:
        assert front[key] == one[key], key
    for key in ("tags", "datasets"):
        assert front[key][: len(one[key])] == one[key]
        assert len(front[key]) == len(set(front[key]))
    both = card.front_matter([weights, replace(other, metrics=metric)])
    assert [entry["name"] for entry in both["model-index"]] == [weights.name, other.name]
    assert both["model-index"][0] == one["model-index"][0]
    assert both["metrics"] == one["metrics"]


def test_the_text_says_what_has_to_be_said(weights: c2l_models.Weights) -> None:
    text = str(model_card(weights, "owner/name"))
    for title in ("Intended use", "Load", "Preprocessing", "Data", "Patients seen in pretraining", "Metrics", "Cite"):
        assert bool(re.search(rf"^##+ {title}$", text, re.MULTILINE)) is (title != "Metrics" or bool(weights.metrics))
    for metric in metrics(weights):
        assert f"{metric.value:.4f} ({metric.low:.4f}–{metric.high:.4f})" in text
    patients = json.loads(weights.provenance_path().read_text())["patients"]
    seen = [f"{len(ids):,} of " for ids in patients.values() if ids] or [
        "None: the training data contain no radiograph"
    ]
    overlap = ["RSNA"] if "chestxray14" in patients else []
    command = ["Command: `c2l"] if weights.metrics else []
    for said in ("Not for diagnosis", "**Limits.**", "Terms: ", "@inproceedings", *overlap, *command, *seen):
        assert said in text, said
    assert ("Pretrained without labels on:" in text) is ("conversion" not in read_provenance(weights))
    assert weights.sha256 in text
    assert all(line in text for line in weights.trained_on)
    assert "{{" not in text
    assert "{%" not in text
    assert "\n\n\n" not in text


def test_the_cost_of_training_is_that_of_the_log(weights: c2l_models.Weights) -> None:
    text = str(model_card(weights, "owner/name"))
    provenance = json.loads(weights.provenance_path().read_text())
    if "conversion" in provenance:
        assert "## Training" not in text
        return
    table = dict(re.findall(r"^\| (hardware|time|energy) \| (.+) \|$", text, re.MULTILINE))
    assert table["hardware"].startswith(provenance["device"])
    assert table["energy"] == "not measured"
    hours, steps, batch, *speed = (float(one) for one in re.findall(r"\d[\d.]*", table["time"].replace(",", "")))
    initialization = provenance.get("initialization", {"name": "random"})
    assert ("without the training of" in table["time"]) is (
        initialization["name"] != "random" or "averaged" in initialization
    )
    assert batch == provenance["recipe"]["batch_size"]
    assert steps == provenance["log"][-1]["step"]
    assert table["time"].startswith("about ") is bool(speed)  # an estimate
    seconds = steps * batch / speed[0] if speed else provenance["training_seconds"]
    assert hours == pytest.approx(seconds / 3600, rel=0.1)  # printed with two digits


def test_the_measured_time_is_that_of_the_runs_curves(repository: Path) -> None:
    """The run of this release was interrupted, and its second part was faster: the last speed would say 3.4 hours."""
    weights = c2l_models.get_weights("resnet18.c2l_open26k")
    with (repository / "results/releases" / weights.name / "curves.csv").open(encoding="utf-8") as file:
        hours = max(float(row["hours"]) for row in csv.DictReader(file))
    assert read_provenance(weights)["training_seconds"] == pytest.approx(hours * 3600)
    expected = (
        f"| time | {hours:.1f} hours, measured: 9,912 steps of 64 images; without probes and checkpoints; without"
    )
    assert expected in str(model_card(weights, "owner/name"))


@pytest.mark.parametrize("facts", [{"name": "resnet18.imagenet"}, {"name": "random", "averaged": {"a": {}}}])
def test_the_time_of_other_weights_is_not_counted(facts: dict[str, object]) -> None:
    log = [{"step": 900, "images_per_second": 50.0}, {"step": 1000}]
    run = {"device": "cpu", "recipe": {"batch_size": 36}, "log": log, "initialization": facts}
    assert card.training_cost(run) == {
        "hardware": "cpu, 1 process",
        "time": "about 0.2 hours: 1,000 steps of 36 images, 50 images per second at the end; without the training of "
        "the weights that it began with or was averaged with",  # 36,000 images in 720 s
        "energy": "not measured",
    }


def test_a_dry_run_writes_a_card_that_the_hub_accepts(weights: c2l_models.Weights, tmp_path: Path) -> None:
    """The rules of huggingface.co/docs/hub/model-cards, as far as they can be checked without the hub."""
    cli.main(["publish", weights.name, "--namespace", "owner", "--out", str(tmp_path / "release"), "--dry-run"])
    loaded = ModelCard.load(tmp_path / "release" / "README.md")  # repairs nothing: it raises
    data = ModelCardData(**loaded.data.to_dict())
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-feature-extraction")
    assert data.license in {"cc-by-4.0", "apache-2.0", "mit"}
    assert all(re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", name) for name in data.datasets)
    assert all(isinstance(tag, str) for tag in [*data.tags, *data.metrics])
    results = loaded.data.eval_results or []
    assert len(results) == len(weights.metrics)
    for result in results:
        assert result.task_type == "image-classification"
        assert all((result.dataset_type, result.dataset_name, result.metric_type, result.metric_name))
        assert 0 <= result.metric_value <= 1
    names = {path.name for path in (tmp_path / "release").iterdir()}
    assert "`provenance.json` lists the ids" in loaded.text or not weights.metrics
    assert {"README.md", "provenance.json", "LICENSE", "model.safetensors", "config.json"} <= names


def test_a_data_set_without_words_is_described_as_its_file_says(
    weights: c2l_models.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "title": "Hands of Nowhere",
        "license": "CC0-1.0",
        "citation": "Nobody, 2020.",
        "url": "https://example.org",
    }
    provenance = json.loads(weights.provenance_path().read_text())
    provenance |= {"data_sets": {"my_hands": facts}, "patients": {"my_hands": ["my_hands:1"]}}
    monkeypatch.setattr(card, "read_provenance", lambda *_: provenance)
    text = str(model_card(replace(weights, trained_on=("my_hands train: 3 images, 1 patients",)), "owner/name"))
    assert "**Hands of Nowhere.** As its `dataset.toml` says. Terms: CC0-1.0." in text
    assert "Source: <https://example.org>. Cite: Nobody, 2020." in text
    assert "1 of Hands of Nowhere." in text


def test_what_has_no_words_gets_no_card(weights: c2l_models.Weights) -> None:
    with pytest.raises(WeightsNotFound, match=r'\[releases\."resnet18\.other"\]'):
        card_data(replace(weights, tag="other", architecture="resnet18"))
    with pytest.raises(WeightsNotFound, match=r"\[datasets\.mammograms\]"):
        card_data(replace(weights, trained_on=("mammograms train: 3 images, 1 patients",)))
    with pytest.raises(WeightsCorrupted, match=r"'DATASET METHOD, METRIC, TARGET', found 'goodness'"):
        card_data(replace(weights, metrics={"goodness": {"value": 1.0, "low": 1.0, "high": 1.0}}))
