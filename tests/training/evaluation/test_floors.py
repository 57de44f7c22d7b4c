"""Floors: the networks that they say they are, and scores that are computed once."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from c2l_models.training.evaluation import floors
from c2l_models.training.evaluation.floors import FloorSpec, floor_scores, floor_specs, random_network
from c2l_models.training.evaluation.tasks import load_task


def test_floors_of_each_architecture():
    named = {spec.name: (spec.zero_init_last, spec.recalibrated, len(spec.seeds)) for spec in floor_specs("resnet18")}
    assert named == {
        "pixels 16×16": (None, False, 1),
        "random resnet18": (False, False, 5),
        "random resnet18, BN recalibrated": (False, True, 5),
        "random resnet18, zero init": (True, False, 5),
        "random resnet18, zero init, BN recalibrated": (True, True, 5),
    }
    assert [spec.name for spec in floor_specs("densenet121")] == [
        "pixels 16×16",
        "random densenet121",
        "random densenet121, BN recalibrated",
    ]


def test_random_networks_have_seeds_of_their_own():
    before = torch.get_rng_state()
    one, again, other = (random_network("resnet18", seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.shape[1] == 1


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_last(zero):
    network = random_network("resnet18", 0, zero_init_last=zero)
    assert bool((network.layer1[0].bn2.weight == 0).all()) is zero


def test_recalibration_uses_the_training_part(store):
    task = load_task("folder")
    network = random_network("resnet18", 0)
    assert (network.bn1.running_mean == 0).all()
    floors.recalibrate(network, store, task.train_rows(store), 32)
    films = torch.as_tensor(store.images[task.train_rows(store)])[:, None].float() / 255
    first = torch.nn.functional.conv2d((films - 0.5) / 0.25, network.conv1.weight, stride=2, padding=3)
    torch.testing.assert_close(network.bn1.running_mean, first.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_pixels_are_block_means_whatever_the_size(store):
    task = load_task("folder")
    spec = floor_specs("resnet18")[0]
    scores = floor_scores(spec, store, task, size=64, progress=False)
    assert scores.shape == (1, 40, 2)
    np.testing.assert_array_equal(floor_scores(spec, store, task, size=32, progress=False), scores)
    assert len(list((store.path / "floors").iterdir())) == 1

    train, test, labels = task.train_rows(store), task.test_rows(store), task.labels(store)
    blocks = store.images.reshape(80, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(80, 256)
    standardised = (blocks - blocks[train].mean(axis=0)) / blocks[train].std(axis=0)
    agreements = [
        np.corrcoef(
            scores[0, :, 1],
            model.fit(standardised[train], labels[train, 1]).decision_function(standardised[test]),
        )[0, 1]
        for model in (LogisticRegression(C=c, max_iter=1000) for c in floors.linear.C_GRID)
    ]
    assert max(agreements) > 0.9999
    assert roc_auc_score(labels[test, 1], scores[0, :, 1]) > 0.9


def test_scores_are_computed_once_for_what_they_depend_on(store, monkeypatch):
    calls = []

    def scores(spec, network_seed, *rest):
        calls.append(network_seed)
        return np.full((40, 2), network_seed, np.float32)

    monkeypatch.setattr(floors, "_scores", scores)
    task = load_task("folder")
    spec = FloorSpec("random resnet18", "resnet18", seeds=(3, 4))
    first = floor_scores(spec, store, task, 32, progress=False)
    np.testing.assert_array_equal(first[:, 0, 0], [3, 4])
    np.testing.assert_array_equal(floor_scores(spec, store, task, 32, progress=False), first)
    assert calls == [3, 4]
    floor_scores(spec, store, task, 48, progress=False)
    floor_scores(spec, store, task, 32, seed=1, progress=False)
    monkeypatch.setattr(floors.linear, "C_GRID", (1.0,))
    floor_scores(spec, store, task, 32, progress=False)
    object.__setattr__(store, "sha256", "1" * 64)
    floor_scores(spec, store, task, 32, progress=False)
    assert len(calls) == 10
    assert {path.suffix for path in (store.path / "floors").iterdir()} == {".npz"}


def test_a_floor_that_was_stopped_leaves_nothing(store, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(floors, "_scores", stopped)
    with pytest.raises(KeyboardInterrupt):
        floor_scores(FloorSpec("random resnet18", "resnet18"), store, load_task("folder"), 32, progress=False)
    assert not (store.path / "floors").exists()
