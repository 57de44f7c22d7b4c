"""`probe` from a target's name to files on disk."""

import json

import numpy as np
import pytest
import timm

from c2l_models.errors import DatasetError, WeightsNotFound
from c2l_models.training.evaluation import probe as module
from c2l_models.training.evaluation.floors import FloorSpec
from c2l_models.training.evaluation.metrics import auroc
from c2l_models.training.evaluation.probe import probe
from c2l_models.training.evaluation.tasks import load_task
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


def test_a_weight_file_is_called_by_its_name(store, tmp_path):
    network = timm.create_model("resnet18", in_chans=1, num_classes=0)
    config = {"architecture": "resnet18", "tag": "mine", "mean": 0.4, "std": 0.2, "input_size": [3, 48, 48]}
    file = tmp_path / "mine.safetensors"
    save_weights(file, network.state_dict(), config | {"trained_on": ["phantoms"], "recipe": "smoke"})
    report = probe(str(file), store, "folder", floors=False, bootstrap=10)
    assert [column.name for column in report.columns] == ["resnet18.mine"]
    assert report.facts["size"] == 48


def test_what_is_not_there_is_named(store):
    with pytest.raises(WeightsNotFound, match="can also be a run folder"):
        probe("resnet18.no_such_release", store, "folder")
    with pytest.raises(WeightsNotFound, match="resnet19"):
        probe("random:resnet19", store, "folder")
    with pytest.raises(DatasetError, match="no task is called 'chest'"):
        probe("random", store, "chest")
