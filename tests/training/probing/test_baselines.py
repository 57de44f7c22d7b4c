"""Baselines: their networks, and their scores, which are computed once and cached."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.features import MEAN, STD, recalibrate
from c2l_models.training.networks import random_network
from c2l_models.training.probing import baselines
from c2l_models.training.probing.baselines import BaselineSpec, baseline_scores, baseline_specs
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare


def test_floors_of_each_architecture():
    specs = baseline_specs("resnet18")
    assert {spec.name: (spec.zero_init_last, spec.recalibrated, len(spec.seeds)) for spec in specs} == {
        "pixels 16×16": (None, False, 1),
        "random resnet18": (False, False, 5),
        "random resnet18, BN recalibrated": (False, True, 5),
        "random resnet18, zero init": (True, False, 5),
        "random resnet18, zero init, BN recalibrated": (True, True, 5),
    }
    assert [spec.name for spec in baseline_specs("densenet121")] == [
        "pixels 16×16",
        "random densenet121",
        "random densenet121, BN recalibrated",
    ]


def test_pixels_are_no_networks_target():
    assert baseline_specs("pixels") == []


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


@pytest.mark.parametrize("recalibrated", [True, False])
def test_zero_branches_are_skipped_without_a_trace(store, recalibrated):
    task = load_task("folder")
    whole, lean = (random_network("resnet18", 0, zero_init_last=True) for _ in range(2))
    baselines.without_zero_branches(lean)
    assert sum(1 for _ in lean.modules()) < 0.6 * sum(1 for _ in whole.modules())
    if recalibrated:
        for network in (whole, lean):
            recalibrate(network, store, task.train_rows(store), 32, MEAN, STD)
    films = torch.randn(3, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(lean.eval()(films), whole.eval()(films), rtol=1e-5, atol=1e-6)
    plain = random_network("resnet18", 0, zero_init_last=False)
    before = list(plain.modules())
    assert list(baselines.without_zero_branches(plain).modules()) == before


def test_recalibration_uses_the_training_part(store):
    task = load_task("folder")
    network = random_network("resnet18", 0)
    assert (network.bn1.running_mean == 0).all()
    recalibrate(network, store, task.train_rows(store), 32, MEAN, STD)
    films = torch.as_tensor(store.images[task.train_rows(store)])[:, None].float() / 255
    first = torch.nn.functional.conv2d((films - 0.5) / 0.25, network.conv1.weight, stride=2, padding=3)
    torch.testing.assert_close(network.bn1.running_mean, first.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_pixels_are_block_means_whatever_the_size(store):
    task = load_task("folder")
    spec = baseline_specs("resnet18")[0]
    scores = baseline_scores(spec, store, task, size=64)
    assert scores.shape == (1, 40, 2)
    np.testing.assert_array_equal(baseline_scores(spec, store, task, size=32), scores)
    assert len(list((store.path / "floors").iterdir())) == 1

    train, test, labels = task.train_rows(store), task.test_rows(store), task.labels(store)
    blocks = store.images.reshape(80, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(80, 256)
    standardised = (blocks - blocks[train].mean(axis=0)) / blocks[train].std(axis=0)
    agreements = []
    for c in baselines.linear_probe.C_GRID:
        model = LogisticRegression(C=c, max_iter=1000).fit(standardised[train], labels[train, 1])
        expected = model.decision_function(standardised[test])
        agreements.append(np.corrcoef(scores[0, :, 1], expected)[0, 1])
    assert max(agreements) > 0.9999
    assert roc_auc_score(labels[test, 1], scores[0, :, 1]) > 0.9


def test_scores_are_computed_once_for_what_they_depend_on(store, monkeypatch):
    calls = []

    def scores(spec, network_seed, *rest):
        calls.append(network_seed)
        return np.full((40, 2), network_seed, np.float32)

    monkeypatch.setattr(baselines, "_scores", scores)
    task = load_task("folder")
    spec = BaselineSpec("random resnet18", "resnet18", seeds=(3, 4))
    first = baseline_scores(spec, store, task, 32)
    np.testing.assert_array_equal(first[:, 0, 0], [3, 4])
    np.testing.assert_array_equal(baseline_scores(spec, store, task, 32), first)
    assert calls == [3, 4]
    baseline_scores(spec, store, task, 48)
    baseline_scores(spec, store, task, 32, seed=1)
    monkeypatch.setattr(baselines.linear_probe, "C_GRID", (1.0,))
    baseline_scores(spec, store, task, 32)
    object.__setattr__(store, "sha256", "1" * 64)
    baseline_scores(spec, store, task, 32)
    assert len(calls) == 10
    assert {path.suffix for path in (store.path / "floors").iterdir()} == {".npz"}


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped"])
def test_a_damaged_file_is_computed_again(store, monkeypatch, damage):
    calls = []

    def scores(spec, network_seed, *_):
        calls.append(network_seed)
        return np.random.default_rng(network_seed).random((40, 2), np.float32)

    monkeypatch.setattr(baselines, "_scores", scores)
    task, spec = load_task("folder"), BaselineSpec("random resnet18", "resnet18", seeds=(3, 4))
    first = baseline_scores(spec, store, task, 32)
    (file,) = (store.path / "floors").iterdir()
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    file.write_bytes({"truncated": content[:-40], "text": b"text", "empty": b"", "flipped": bytes(flipped)}[damage])
    for _ in range(2):
        np.testing.assert_array_equal(baseline_scores(spec, store, task, 32), first)
    assert calls == [3, 4, 3, 4]
    assert file.read_bytes() == content


def test_a_store_that_cannot_be_written_has_scores_all_the_same(store, monkeypatch):
    (store.path / "floors").write_text("no folder")  # also for root, whom no permission stops
    monkeypatch.setattr(baselines, "_scores", lambda spec, seed, *_: np.full((40, 2), seed, np.float32))
    spec = BaselineSpec("random resnet18", "resnet18", seeds=(3, 4))
    scores = baseline_scores(spec, store, load_task("folder"), 32)
    np.testing.assert_array_equal(scores[:, 0, 0], [3, 4])


def test_a_floor_that_was_stopped_leaves_nothing(store, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(baselines, "_scores", stopped)
    with pytest.raises(KeyboardInterrupt):
        baseline_scores(BaselineSpec("random resnet18", "resnet18"), store, load_task("folder"), 32)
    assert not (store.path / "floors").exists()


def test_pixels_on_real_knees(real_data, tmp_path):
    """16×16 pixels alone reach an AUROC near 0.75 on the official test part."""
    prepare([("knee_kl", real_data / "knee-kl")], tmp_path / "knees", size=32)
    store, task = ImageStore.open(tmp_path / "knees"), load_task("knee_kl")
    test = task.test_rows(store)
    assert (len(task.train_rows(store)), len(test)) == (5778 + 826, 1656)
    [scores] = baseline_scores(baseline_specs("resnet18")[0], store, task, size=32)
    assert 0.70 < roc_auc_score(task.labels(store)[test, 0], scores[:, 0]) < 0.80
