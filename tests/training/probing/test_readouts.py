"""Readouts and sides: features against forward hooks; the choice against an explicit loop over training patients."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import timm
import torch

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.predictions import tuning_metric
from c2l_models.training.evaluation.result import Result
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.features import extract_features
from c2l_models.training.patient_splits import patient_folds
from c2l_models.training.probing.classifiers import fit_and_score, score_task
from c2l_models.training.probing.linear_probe import linear_probe
from c2l_models.training.probing.probe import probe
from c2l_models.training.probing.readouts import READOUTS, PooledMaps, select

STAGES = {
    "resnet18": {2: "layer2", 3: "layer3", 4: "layer4"},
    "densenet121": {2: "features.denseblock2", 3: "features.denseblock3", 4: "features.norm5"},
}


@pytest.mark.parametrize("architecture", STAGES)
def test_readouts_are_the_pooled_outputs_of_the_stages(architecture):
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=0, in_chans=1).eval()
    if not hasattr(network, "forward_intermediates"):  # missing in older versions of timm's DenseNet
        with pytest.raises(C2LError, match=r"timm 1\.0\.31"):
            PooledMaps(network)
        return
    images = torch.rand(3, 1, 64, 64)
    maps = {}
    for stage, name in STAGES[architecture].items():
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, stage=stage: maps.__setitem__(stage, output.numpy())
        )

    def oracle(readout, x):
        output = network(x).numpy()
        parts = []
        for pool in readout.pools:
            for stage in readout.stages:
                values = maps[stage].reshape(*maps[stage].shape[:2], -1)
                parts.append(values.mean(-1) if pool == "average" else values.max(-1))
        return np.concatenate(parts, axis=1), output

    wrapper = PooledMaps(network)
    with torch.inference_mode():
        pooled = wrapper(images).numpy()
        for readout in READOUTS:
            found = select(pooled, wrapper.channels, readout)
            expected, output = oracle(readout, images)
            if readout.flipped:
                expected = (expected + oracle(readout, torch.flip(images, dims=[3]))[0]) / 2
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            if readout.name == "layer 4":
                np.testing.assert_allclose(found, output, rtol=1e-4, atol=1e-5)


def noise_and_signal(store, task, asked):
    """Features by name: noise, and the labels themselves with some noise; `asked` notes the rows of each request."""
    labels = np.nan_to_num(task.labels(store))

    def features_of(name, strength, rows):
        asked.append((name, rows.tolist()))
        noise = np.random.default_rng(0).normal(size=(len(store), labels.shape[1]))
        return (strength * labels + noise)[rows].astype(np.float32)

    return {name: partial(features_of, name, strength) for name, strength in (("noise", 0), ("signal", 1))}


def test_the_best_on_training_patients_is_tested_and_no_other(store):
    task, asked = load_task("folder"), []
    candidates = noise_and_signal(store, task, asked)
    train, test = task.train_rows(store), task.test_rows(store)
    found = score_task("linear", candidates, store, task)
    assert asked == [("noise", train.tolist()), ("signal", train.tolist()), ("signal", test.tolist())]

    metric = partial(tuning_metric, task, task.label_names(store))
    parts = (task.labels(store)[train], store.patients[train])
    alone = {name: linear_probe(of(train), *parts, of(test), metric) for name, of in candidates.items()}
    tuned = {name: round(fitted.tuning_auroc, 4) for name, fitted in alone.items()}
    assert tuned["signal"] > tuned["noise"]
    assert found.facts["tuning_auroc_by_features"] == tuned
    assert (found.facts["features"], found.facts["tuning_auroc"]) == ("signal", tuned["signal"])
    assert found.facts["C"] == alone["signal"].C
    np.testing.assert_array_equal(found.scores, alone["signal"].scores)


def test_each_fold_chooses_without_its_own_patients(store):
    task = replace(load_task("folder"), train=("train", "test"), test=(), folds=4)
    candidates = noise_and_signal(store, task, [])
    found = score_task("linear", candidates, store, task)
    rows = task.train_rows(store)
    labels, patients = task.labels(store)[rows], store.patients[rows]
    metric = partial(tuning_metric, task, task.label_names(store))
    folds = patient_folds(patients, 4, "out_of_fold")
    for fold in range(4):
        test = folds == fold
        parts = (labels[~test], patients[~test])
        tried = {
            name: fit_and_score("linear", of(rows)[~test], *parts, of(rows)[test], metric)
            for name, of in candidates.items()
        }
        tuned = {name: one.facts["tuning_auroc"] for name, one in tried.items()}
        best = max(tuned, key=tuned.get)
        assert found.facts["features"][fold] == best
        assert found.facts["tuning_auroc_by_features"][fold] == tuned
        np.testing.assert_allclose(found.scores[test], tried[best].scores, rtol=1e-5)


def test_the_report_shows_every_side_and_readout_that_was_tried(store, tmp_path):
    options = {"baselines": False, "bootstrap": 10, "progress": False}
    report = probe("random", store, "folder", tmp_path, sizes=(32, 48), readouts=True, **options)
    facts, text = Result.read(tmp_path).facts, (tmp_path / "report.md").read_text()
    assert list(facts["tuning_auroc_by_features"]) == [
        f"{side} px, {one.name}" for side in (32, 48) for one in READOUTS
    ]
    assert "## Features tried, chosen on training patients" in text
    for name, value in facts["tuning_auroc_by_features"].items():
        chosen = int(name == facts["features"])
        assert f"| {name} | {value:.4f} | {chosen} of 1 |" in text
    assert facts["features"].startswith(f"{facts['size']} px, ")
    assert len(report.tables) == 1

    sides = probe("random", store, "folder", sizes=(32, 48), **options)
    assert list(sides.facts["tuning_auroc_by_features"]) == ["32 px", "48 px"]
    one = probe("random", store, "folder", size=sides.facts["size"], **options)
    assert one.facts["C"] == sides.facts["C"]
    assert one.target.metrics["mean"] == sides.target.metrics["mean"]
    assert (one.tables, "features" in one.facts) == ((), False)


def test_contradictions_are_refused(store):
    with pytest.raises(C2LError, match=r"one size or several .*found both 32 and \[32, 48\]"):
        probe("random", store, "folder", size=32, sizes=(32, 48))
    with pytest.raises(C2LError, match="expected the linear probe to choose among 2 features, found knn"):
        probe("random", store, "folder", sizes=(32, 48), classifier="knn", baselines=False)


def test_features_of_the_same_images_are_computed_once(store, monkeypatch):
    """All readouts of a side share one pass over the training images; only the chosen side sees the test images."""
    from c2l_models.training.probing import readouts as module

    passes = []

    def counted(network, store, rows, size, mean, std, device):
        passes.append((size, len(rows)))
        return extract_features(network, store, rows, size, mean, std, device)

    monkeypatch.setattr(module, "cached_features", counted)
    probe("random", store, "folder", sizes=(32, 48), readouts=True, baselines=False, bootstrap=2, progress=False)
    assert sorted(passes[:2]) == [(32, 40), (48, 40)]
    assert len(passes) == 3
