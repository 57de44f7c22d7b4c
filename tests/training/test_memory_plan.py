"""The plan of a GPU's memory, with a GPU that is not there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from c2l_models.training import memory_plan, pretrain
from c2l_models.training.fake_step import StepMemory
from c2l_models.training.features import extract_features, recalibrate
from c2l_models.training.memory_plan import MemoryPlan, plan_memory

GB = 10**9
STEP = StepMemory(networks=1 * GB, optimizer=2 * GB, queue=3 * GB, activations=4 * GB)


@pytest.mark.parametrize(("images", "fit"), [(24 * GB, True), (24 * GB + 1, False)])
def test_images_go_to_the_gpu_if_they_fit_beside_the_step(images, fit):
    """85 % of 40 GB are usable: 34 GB, of which the step takes 10."""
    plan = MemoryPlan(STEP, images, 40 * GB)
    assert plan.images_on_gpu == fit
    assert ("are copied to it" if fit else "stay in host memory and are read ahead") in str(plan)
    assert "a step takes about 10.00 GB (activations 4.00, networks 1.00, optimizer 2.00, queue 3.00)" in str(plan)
    assert "may not fit" not in str(plan)


def test_a_step_that_does_not_fit_is_told_what_to_change():
    assert "--recipe.gradient-checkpointing" in str(MemoryPlan(STEP, 1, 11 * GB))


def test_a_cpu_has_no_plan(tiny_recipe, tiny_store):
    assert plan_memory(tiny_recipe, tiny_store, pretrain.train_step, torch.device("cpu")) is None


@pytest.mark.parametrize(("total", "resident"), [(10**12, True), (10**3, False)])
@pytest.mark.usefixtures("small_networks")
def test_a_run_says_its_plan_and_follows_it(total, resident, tiny_recipe, tiny_store, tmp_path, monkeypatch):
    """The device's type is the CPU's, so that the run can end."""
    seen = []
    batches = pretrain.batches
    monkeypatch.setattr(pretrain, "plan_memory", lambda *_: MemoryPlan(STEP, tiny_store.images.nbytes, total))
    monkeypatch.setattr(pretrain, "batches", lambda *args: seen.append(args[-1]) or batches(*args))
    pretrain.pretrain(tiny_recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    assert seen == [resident]
    assert "memory: the GPU has" in (tmp_path / "run" / "log.jsonl").read_text()


def test_the_plan_of_a_gpu_counts_its_memory(tiny_recipe, tiny_store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=40 * GB))
    monkeypatch.setattr(memory_plan, "step_memory", lambda *_: STEP)
    plan = plan_memory(tiny_recipe, tiny_store, pretrain.train_step, torch.device("cuda", 0))
    assert plan == MemoryPlan(STEP, tiny_store.images.nbytes, 40 * GB)


def test_features_do_not_tune_convolutions_and_steps_do_again(tiny_store, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x):
            seen.append(torch.backends.cudnn.benchmark)
            return x.mean(dim=(1, 2, 3)).unsqueeze(1)

    extract_features(Network(), tiny_store, np.arange(5), 32, 0.5, 0.25, batch_size=3)
    recalibrate(Network(), tiny_store, np.arange(5), 32, 0.5, 0.25)
    assert seen == [False] * 3
    assert torch.backends.cudnn.benchmark
