"""Every stage on a GPU, as far as it can be proven without one: no mixed devices, and no step waits for the GPU.

Training, features and recalibration run on fake tensors (see fake_gpu.py). Where Python decides by values, as in the
fits of a probe, torch's default device is one without values: a tensor made without the given device fails there.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from fake_gpu import GPU, FakeGenerator, HostCopy, fake_gpu, put_on_gpu
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from c2l_models.training.batches import Batch
from c2l_models.training.benchmark.frozen_run import noise_in_memory
from c2l_models.training.detection import train as detection_training
from c2l_models.training.detection.detector import build_detector
from c2l_models.training.detection.predict import predict
from c2l_models.training.detection.settings import Settings as DetectionSettings
from c2l_models.training.features import extract_features, recalibrate
from c2l_models.training.finetuning.finetune import train_step as finetuning_step
from c2l_models.training.finetuning.finetuning_run import FinetuningRun
from c2l_models.training.finetuning.network import make_optimizer as make_finetuning_optimizer
from c2l_models.training.finetuning.network import make_schedule
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.finetuning.task_split import TaskSplit
from c2l_models.training.initialization import Initialization
from c2l_models.training.objectives import build
from c2l_models.training.objectives.distillation import Distillation
from c2l_models.training.pretrain import train_step
from c2l_models.training.probing.linear_probe import linear_probe
from c2l_models.training.recipe import Augment, Objective, Recipe
from c2l_models.training.run import make_optimizer
from c2l_models.training.run_files.log import StepGroup

pytestmark = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 14),
    reason="older PyTorch looks for a GPU when it indexes a fake tensor of one",
)

CPU = torch.device("cpu")
SMALL = Recipe("small", architecture="test_resnet", size=32, batch_size=8, batch_norm_group=4, queue_length=64)
RECIPES = {
    "c2l": SMALL,
    "ablation": replace(SMALL, objective=Objective(mixup="separate", queue_update="interleaved")),
    "jigsaw": replace(SMALL, augment=Augment(jigsaw=0.5, crop_fit="redraw"), projection_dropout=0.5),
    "moco": replace(SMALL, method="moco"),
    "model_genesis": replace(SMALL, method="model_genesis"),
    "distillation": replace(SMALL, method="distillation"),
}


def run_steps(recipe, host_copies=0):
    """Two steps with all that a run does after each, and a line of the log with `host_copies`; returns its metrics."""
    with torch.device("meta"):
        method = build(recipe).to(memory_format=torch.channels_last).train()
        if isinstance(method, Distillation):
            method.set_source(nn.Sequential(nn.Flatten(), nn.Linear(recipe.size**2, recipe.feature_dim)))
    with fake_gpu() as gpu:
        for network in (method, *getattr(method, "_source", ())):
            put_on_gpu(gpu, network)
        optimizer, group = make_optimizer(recipe, method.student, 0.1), StepGroup()
        store = noise_in_memory(32, 32, GPU)
        order = torch.from_numpy(np.arange(32)).to(GPU)
        for step in range(2):
            found = train_step(method, optimizer, store[order[8 * step : 8 * step + 8]], FakeGenerator())
            group.add(recipe.batch_size, 0.0, found.metrics())
        health = method.health(found)
        assert all(value.device == GPU and value.dim() == 0 for value in health.values())
        assert gpu.found == 0
        gpu.allowed = host_copies
        return group.read() if host_copies else None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_stays_on_the_gpu_and_never_waits(name, precision):
    run_steps(replace(RECIPES[name], precision=precision))


def test_gradient_checkpointing_stays_on_the_gpu():
    run_steps(replace(SMALL, gradient_checkpointing=True))


def test_a_line_of_the_log_copies_one_tensor():
    metrics = run_steps(SMALL, host_copies=1)
    assert metrics.device == CPU
    assert metrics.shape == (2, 5)  # loss and its two parts, top-1 and spread, of two steps


PLANTED = {
    "a tensor on another device": (lambda x: x + torch.ones(len(x), 1, 1, 1), RuntimeError),
    "item()": (lambda x: x * x.sum().item(), DataDependentOutputException),
    "a decision by a value": (lambda x: x if x.sum() > 0 else -x, DataDependentOutputException),
    "a copy to the host": (lambda x: x * x.mean().cpu(), HostCopy),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, monkeypatch):
    planted, error = PLANTED[fault]
    views = type(build(SMALL)).views
    monkeypatch.setattr(type(build(SMALL)), "views", lambda *args: tuple(planted(x) for x in views(*args)))
    with pytest.raises(error):
        run_steps(SMALL)


def small_network():
    return timm.create_model("test_resnet", in_chans=1, num_classes=0)


def test_features_and_recalibration_take_the_given_device():
    """A copy per batch of features is their result."""
    store, rows = noise_in_memory(40, 32, CPU), np.arange(40)
    with fake_gpu(host_copies=5) as gpu:
        network = put_on_gpu(gpu, small_network())
        recalibrate(network, store, rows, 32, 0.5, 0.25, GPU)
        assert gpu.found == 0
        features = extract_features(network, store, rows, 32, 0.5, 0.25, GPU, batch_size=8)
        assert gpu.found == 5
    assert features.shape == (40, network.num_features)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_of_fine_tuning_stays_on_the_gpu(precision, frozen):
    settings = Settings(size=32, batch_size=8, precision=precision, frozen=frozen)
    split = TaskSplit(fit=np.arange(32), tune=np.arange(0), test=np.arange(0))
    init = Initialization("small", "test_resnet", small_network(), 32, 0.5, 0.25, {}, None)
    run = FinetuningRun(init, split, 3, settings, Path(), CPU)
    with fake_gpu() as gpu:
        put_on_gpu(gpu, run.network)
        run.device, run._generator, run.loss = GPU, FakeGenerator(), torch.zeros((), device=GPU)
        run.optimizer = make_finetuning_optimizer(run.network, settings)
        run.schedule = make_schedule(run.optimizer, settings, run.total_steps)
        run.train()
        images = noise_in_memory(32, 32, GPU)[torch.arange(8, device=GPU)]
        loss = finetuning_step(run, Batch(images, torch.arange(8, device=GPU), 0.0), torch.empty(8, 3, device=GPU))
        run.loss += loss
    assert loss.device == GPU


@pytest.fixture
def default_without_values():
    """A tensor made without a device has no values, and an operation with it and others fails."""
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("default_without_values")
def test_the_fits_of_a_probe_take_the_given_device():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 4)).astype(np.float32)
    labels = (features[:, :2] > 0).astype(np.float32)
    patients = np.arange(40).astype(str)
    fitted = linear_probe(features[:40], labels[:40], patients, features[40:], lambda *_: 0.5, device="cpu")
    assert np.isfinite(fitted.scores).all()


@pytest.mark.usefixtures("default_without_values")
def test_detection_takes_the_given_device(monkeypatch):
    # torchvision draws these on the default device, and copies them to no other
    monkeypatch.setattr(detection_training, "augment", lambda *both: both)
    monkeypatch.setattr(GeneralizedRCNNTransform, "torch_choice", lambda self, choices: choices[0])
    store = noise_in_memory(4, 128, CPU)
    settings = DetectionSettings(size=128, batch_size=2)
    with torch.device("cpu"):
        network = timm.create_model("resnet18", in_chans=1, num_classes=0)
        detector = build_detector(Initialization("any", "resnet18", network, 128, 0.5, 0.25, {}, None), 128)
    images = SimpleNamespace(store=store, rows=np.arange(4), boxes=[np.array([[8.0, 8.0, 40.0, 48.0]])] * 4)
    optimizer = detection_training.make_optimizer(detector, settings)
    losses = detection_training.train_step(detector, optimizer, images, np.arange(2), 0.01, 0, CPU)
    assert losses["loss"].isfinite()
    assert len(predict(detector, images, np.arange(4), 2, CPU)) == 4
