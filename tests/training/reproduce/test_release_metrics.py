"""A release's metrics computed again: reproduced or not, no longer computed, or without data."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reproduce_fakes import FakeBackend
from safetensors.torch import load_file

from c2l_models.errors import C2LError, RunError
from c2l_models.releases.registry import get_weights
from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.result import Result
from c2l_models.training.reproduce import release_metrics
from c2l_models.training.reproduce.data import Stores
from c2l_models.training.reproduce.release_metrics import all_reproduced, compare, read_provenance, reproduce_release
from c2l_models.training.run_files import checkpoint

NAME = "resnet18.c2l_open26k"


class Probes(FakeBackend):
    """Returns the metrics that the test names, by task."""

    def __init__(self, **metrics):
        super().__init__()
        self.metrics, self.calls = metrics, []

    def measure(self, init, measurement, seed, pretraining, scale, stores, out):
        self.calls.append((init.weights, stores.size, measurement.kind))
        known = self.metrics[measurement.task]
        if isinstance(known, Exception):
            raise known
        values = np.array(list(known.values()))
        metrics = Metrics(tuple(known), values, np.tile(values, (5, 1)), "sample")
        return Result("probe", init.name, init.architecture, measurement.task, seed, metrics, {})


@pytest.fixture(autouse=True)
def all_data(monkeypatch):
    monkeypatch.setattr(Stores, "require", lambda self, datasets: None)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "sets/knee-kl").mkdir(parents=True)
    return [str(tmp_path / "sets")]


CHEST = "chestxray14 linear probe, AUROC, mean"
GOOD_CHEST = {"mean": 0.68, "mean without Hernia": 0.69}
GOOD_KNEE = {"kl_grade ≥ 1": 0.6, "kl_grade ≥ 2": 0.86, "quadratic weighted kappa": 0.67}
OTHERS = {"fracatlas": {"fractured": 0.87, "mean": 0.87}, "shoulder_implants": {"mean": 0.72}}


def verdicts(checks):
    return {one.name.split(", ")[-1]: one.verdict for one in checks}


def test_figures_within_their_intervals_came_back(data, tmp_path):
    backend = Probes(chestxray14=GOOD_CHEST, knee_kl=GOOD_KNEE, **OTHERS)
    checks = reproduce_release(NAME, data, tmp_path / "out", backend=backend)
    assert set(verdicts(checks).values()) == {"reproduced"}
    assert len(checks) == len(get_weights(NAME).metrics) == 7
    assert all_reproduced(checks)
    assert set(backend.calls) == {(NAME, 128, "probe")}
    text = (tmp_path / f"out/tables/{NAME}.md").read_text()
    assert "| 0.687 (0.629–0.735) | 0.680 (0.680–0.680) | reproduced |" in text


@pytest.mark.parametrize(("below", "verdict"), [(0.0001, "not reproduced"), (0, "reproduced")])
def test_the_interval_is_the_releases_own(data, tmp_path, below, verdict):
    value = get_weights(NAME).metrics[CHEST]["low"] - below
    backend = Probes(chestxray14=GOOD_CHEST | {"mean": value}, knee_kl=GOOD_KNEE, **OTHERS)
    checks = reproduce_release(NAME, data, tmp_path / "out", backend=backend)
    assert {check.name: check.verdict for check in checks}[CHEST] == verdict
    assert all_reproduced(checks) == (verdict == "reproduced")


def test_a_figure_that_no_longer_exists_is_not_comparable(data, tmp_path):
    backend = Probes(chestxray14=GOOD_CHEST, knee_kl={"grade 2 or above": 0.77}, **OTHERS)
    checks = reproduce_release(NAME, data, tmp_path / "out", backend=backend)
    assert verdicts(checks)["kl_grade ≥ 2"] == "not comparable"
    assert any("grade 2 or above" in check.reason for check in checks)
    assert all_reproduced(checks)


def test_missing_data_is_no_success(data, tmp_path):
    backend = Probes(chestxray14=C2LError("--data does not name chestxray14"), knee_kl=GOOD_KNEE, **OTHERS)
    checks = reproduce_release(NAME, data, tmp_path / "out", backend=backend)
    assert {check.name: check.verdict for check in checks}[CHEST] == "not run"
    assert "does not name chestxray14" in checks[0].reason
    assert not all_reproduced(checks)
    assert not all_reproduced([])


def test_a_figure_of_an_unknown_measurement_is_not_comparable():
    one = compare("chestxray14 fine-tuned, AUROC", {"value": 0.5, "low": 0.4, "high": 0.6}, {})
    assert one.verdict == "not comparable"


def test_unknown_releases_are_told(data, tmp_path):
    with pytest.raises(C2LError, match="nothing"):
        reproduce_release("resnet18.nothing", data, tmp_path, backend=Probes())
    assert read_provenance(get_weights(NAME))["recipe"]["name"] == "open26k-resnet18"


def test_training_again_averages_as_the_release_did(tiny_run, tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr(release_metrics, "ensure_pretrained", lambda *_: SimpleNamespace(folder=tiny_run))
    stores = SimpleNamespace(get=lambda _: tiny_store)
    state = checkpoint.load(tiny_run).state
    parts = {"runs/there": {"share": 0.75}, "resnet18.imagenet": {"share": 0.25}}
    provenance = {"recipe": state["recipe"], "initialization": {"averaged": parts}}
    backend = SimpleNamespace(pretrain=None)
    init = release_metrics.retrain(get_weights(NAME), provenance, stores, tmp_path, backend)
    key = "layer1.0.conv1.weight"
    own, imagenet = state["method"][f"student.backbone.{key}"], load_file(get_weights("resnet18.imagenet").path())[key]
    expected = 0.75 * own + 0.25 * imagenet.float()
    torch.testing.assert_close(load_file(init.weights)[key].float(), expected, rtol=1e-3, atol=1e-4)

    release_metrics.retrain(get_weights(NAME), provenance, stores, tmp_path, backend)  # the average is reused
    averaged = tmp_path / "pretrain" / f"{NAME}-again-averaged" / "initialization.json"
    facts = json.loads(averaged.read_text())
    facts["averaged"][tiny_run.name]["checkpoint"] = "step-000000009-000000000000.pt"
    averaged.write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"found one with step-000000009-0{12}\.pt; move .* away"):
        release_metrics.retrain(get_weights(NAME), provenance, stores, tmp_path, backend)
