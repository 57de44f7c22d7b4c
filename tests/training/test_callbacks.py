"""Callbacks of the training loop: which network is probed, and which time counts as training."""

from dataclasses import replace

import pytest
import torch

from c2l_models.training.pretrain import pretrain
from c2l_models.training.probing.knn_monitor import KnnMonitor


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
