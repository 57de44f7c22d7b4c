"""Callbacks of the training loop: which network is probed, which time counts as training, when processes wait."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from c2l_models.training import pretrain as loop
from c2l_models.training.detection import train as detection
from c2l_models.training.detection.settings import Settings
from c2l_models.training.distributed import World
from c2l_models.training.pretrain import pretrain
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files import log as log_module


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("exported", ["student", "teacher"])
def test_the_monitor_probes_the_network_that_is_exported(tiny_recipe, tiny_store, tmp_path, monkeypatch, exported):
    probed = []

    def probe(monitor, backbone):
        probed.append({name: tensor.clone() for name, tensor in backbone.state_dict().items()})
        return {"folder": 0.5}

    monkeypatch.setattr(KnnMonitor, "__call__", probe)
    recipe = replace(tiny_recipe, exported=exported, epochs=1, probe_every=1)
    folder = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    (file,) = (folder / "checkpoints").glob("step-000000005-*.pt")
    state = torch.load(file, weights_only=True)["method"]
    student, teacher = (state[f"{name}.backbone.0.weight"] for name in ("student", "teacher"))
    assert not torch.equal(student, teacher)
    assert torch.equal(probed[-1]["0.weight"], {"student": student, "teacher": teacher}[exported])


@pytest.mark.usefixtures("small_networks")
def test_processes_wait_on_the_hosts_after_their_images_and_after_each_checkpoint(
    tiny_recipe, tiny_store, tmp_path, monkeypatch
):
    """On a GPU, a wait within a step ends after five minutes, which a slow disk can take."""
    events = []
    step, save, write = loop.train_step, checkpoint.save, log_module.RunLog.write_group
    monkeypatch.setattr(loop, "train_step", lambda *given: events.append("step") or step(*given))
    monkeypatch.setattr(checkpoint, "save", lambda *given: events.append("save") or save(*given))
    monkeypatch.setattr(log_module.RunLog, "write_group", lambda *given: events.append("log") or write(*given))
    monkeypatch.setattr(World, "wait", lambda world: events.append("wait"))
    recipe = replace(tiny_recipe, epochs=1, log_every=2, checkpoint_every=3, probe_every=0)
    pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert " ".join(events) == (
        "save wait step step log wait step save wait step log wait step log save wait"  # the first save is of step 0
    )


@pytest.fixture
def clock(monkeypatch):
    """The log's clock: a step takes a second, and a checkpoint a hundred."""
    now = SimpleNamespace(seconds=0.0)
    advance, save = log_module.RunLog.advance, checkpoint.save

    def one_step(log):
        now.seconds += 1
        advance(log)

    def slow_save(*arguments):
        now.seconds += 100
        return save(*arguments)

    monkeypatch.setattr(log_module, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    monkeypatch.setattr(log_module.RunLog, "advance", one_step)
    monkeypatch.setattr(checkpoint, "save", slow_save)
    return now


def speeds(folder):
    return [line["images_per_second"] for line in log_module.of_kind(log_module.read(folder), "train")]


@pytest.mark.usefixtures("small_networks")
def test_checkpoints_do_not_count_as_training(tiny_recipe, tiny_store, tmp_path, clock):
    recipe = replace(tiny_recipe, epochs=1, log_every=2, checkpoint_every=1, probe_every=0)
    folder = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert clock.seconds == 5 + 6 * 100  # the first checkpoint is that of step 0
    assert speeds(folder) == [8.0] * 3  # a batch a second


def test_checkpoints_of_a_detector_do_not_count_as_training(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(detection, "train_step", lambda *_: {"loss": torch.tensor(1.0)})
    monkeypatch.setattr(detection, "LOG_EVERY", 2)
    images = SimpleNamespace(of=lambda part: np.arange(4))
    settings = Settings(batch_size=4, epochs=4)
    detection.train(nn.Linear(1, 1), images, settings, tmp_path, torch.device("cpu"), progress=False)
    assert clock.seconds == 4 + 4 * 100
    assert speeds(tmp_path) == [4.0] * 2
