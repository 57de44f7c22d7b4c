"""`probe` from a target's name to files on disk."""

import json

import numpy as np
import pytest
import timm
import torch

from c2l_models.errors import DatasetError, WeightsNotFound
from c2l_models.training.evaluation import probe as module
from c2l_models.training.evaluation.floors import FloorSpec
from c2l_models.training.evaluation.metrics import auroc
from c2l_models.training.evaluation.probe import load_target, probe
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.recipe import Recipe
from c2l_models.weights import save_weights


@pytest.fixture
def two_floors(monkeypatch):
    """Pixels, and two seeds of timm's own initialisation."""
    specs = [
        FloorSpec("pixels", seeds=(0,)),
        FloorSpec("random", "resnet18", zero_init_last=True, recalibrated=True, seeds=(0, 1)),
    ]
    monkeypatch.setattr(module.floor, "floor_specs", lambda architecture: specs)


@pytest.mark.usefixtures("two_floors")
def test_a_random_network_beside_its_floors(store, tmp_path):
    report = probe("random", store, "folder", tmp_path / "out", size=32, bootstrap=50, progress=False)
    assert report.labels == ("coin", "square")
    assert [column.name for column in report.columns] == ["random:resnet18", "pixels", "random"]
    square = np.array([False, True])
    assert report.columns[1].auroc.mean_of(square).value > 0.8
    assert len(list((store.path / "floors").iterdir())) == 2

    # Seed 0 of the recalibrated floor with timm's own initialisation is the target itself.
    floor = report.columns[2]
    assert floor.seed_means[0] == pytest.approx(report.target.auroc.mean, abs=1e-3)
    assert np.mean(floor.seed_means) == pytest.approx(floor.auroc.mean)

    # The bootstrap draws patients, not films.
    task = load_task("folder")
    test = task.test_rows(store)
    by_patient = auroc(np.zeros((40, 2)), task.labels(store)[test], store.patients[test], bootstrap=50, seed=0)
    assert report.target.auroc.sample == by_patient.sample

    facts = json.loads((tmp_path / "out" / "probe.json").read_text())["facts"]
    assert facts["store_sha256"] == store.sha256
    assert (facts["train_images"], facts["train_patients"]) == (40, 20)
    assert (facts["test_images"], facts["test_patients"]) == (40, 20)
    assert (facts["size"], facts["seed"], facts["bootstrap"]) == (32, 0, 50)


def test_a_weight_file_brings_its_own_size_and_normalisation(store, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    config = {
        "architecture": "resnet18",
        "tag": "mine",
        "mean": 0.4,
        "std": 0.2,
        "input_size": [3, 48, 48],
        "trained_on": ["phantoms"],
        "recipe": "smoke",
    }
    sha256 = save_weights(tmp_path / "mine.safetensors", network.state_dict(), config)
    target = load_target(str(tmp_path / "mine.safetensors"), store, load_task("folder"), size=None)
    assert (target.size, target.mean, target.std) == (48, 0.4, 0.2)
    assert target.about["weights_sha256"] == sha256
    assert target.about["trained_on"] == ["phantoms"]
    films = torch.randn(4, 1, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(target.network.eval()(films), network(films), rtol=2e-2, atol=2e-2)
    assert load_target(str(tmp_path / "mine.safetensors"), store, load_task("folder"), size=32).size == 32
    report = probe(str(tmp_path / "mine.safetensors"), store, "folder", floors=False, bootstrap=10)
    assert [column.name for column in report.columns] == ["resnet18.mine"]


@pytest.mark.parametrize("same_store", [True, False])
def test_a_run_folder(store, tmp_path, monkeypatch, same_store):
    """A run's own store is asked for only where another one is probed."""
    run = tmp_path / "a-run"
    run.mkdir()
    (run / "run.json").write_text(
        json.dumps({"store_sha256": store.sha256 if same_store else "other", "store_size": store.size})
    )
    network = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()

    def load_run_backbone(folder, store=None, teacher=False, size=None):
        assert (folder, size, teacher) == (run, 40, False)
        assert (store is not None) is same_store
        return network, Recipe(name="smoke", size=64, mean=0.3, std=0.1)

    monkeypatch.setattr(module, "load_run_backbone", load_run_backbone)
    target = load_target(str(run), store, load_task("folder"), size=40)
    assert (target.name, target.architecture, target.size) == ("a-run", "resnet18", 40)
    assert (target.mean, target.std) == (0.3, 0.1)
    assert target.about["recipe"] == "smoke"


def test_what_is_not_there_is_named(store):
    with pytest.raises(WeightsNotFound, match="can also be a run folder, or 'random'"):
        probe("resnet18.no_such_release", store, "folder")
    with pytest.raises(WeightsNotFound, match="resnet19"):
        probe("random:resnet19", store, "folder")
    with pytest.raises(DatasetError, match="no task is called 'chest'"):
        probe("random", store, "chest")
