"""A tiny image store, and a recipe that takes a second or two on a CPU."""

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from c2l_models.training import callbacks
from c2l_models.training.objectives import momentum_teacher
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Optimizer, Recipe
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare

TRAIN, TEST = 44, 20


def draw_folder(root: Path, side: int = 32) -> Path:
    """Images of noise with a `labels.csv`. Those with the finding are brighter. Each patient has two images."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", "split", "finding"])
        for number in range(TRAIN + TEST):
            finding = number // 2 % 2
            noise = rng.normal(90 + 60 * finding, 25, (side, side)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(root / f"{number:03d}.png")
            split = "train" if number < TRAIN else "test"
            table.writerow([f"{number:03d}.png", f"p{number // 2}", split, finding])
    return root


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 PNG images of 32 pixels (44 train, 20 test) with patients and a binary finding."""
    return draw_folder(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="session")
def tiny_store_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`c2l prepare` of `tiny_folder`, with a fixed key for pseudonyms."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "patient.key").write_bytes(bytes(32))  # fixed, because pseudonyms decide who is held out
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "C2L_PATIENT_KEY", str(folder / "patient.key"))
        prepare([("folder", tiny_folder)], folder / "store", size=32, workers=1, progress=False)
    return folder / "store"


@pytest.fixture(scope="session")
def tiny_store(tiny_store_folder: Path) -> ImageStore:
    """The opened tiny store."""
    return ImageStore.open(tiny_store_folder)


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Five steps per epoch on the tiny store's 44 training images. The odd queue wraps within a batch."""
    return replace(
        Recipe("tiny"),
        size=32,
        batch_size=8,
        batch_norm_group=4,
        epochs=2,
        queue_length=37,
        feature_dim=16,
        optimizer=Optimizer(lr=0.3, lr_milestones=(1, 2)),
        log_every=3,
        checkpoint_every=7,
        probe_every=2,
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Recipe, tiny_store: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny recipe on one thread: ten steps, never stopped. Read only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pretrain(tiny_recipe, tiny_store, tmp_path_factory.mktemp("runs") / "whole", "cpu", progress=False)
    finally:
        torch.set_num_threads(threads)


class SmallEncoder(nn.Module):
    """A small network in place of student or teacher, for tests that are not about its cost."""

    def __init__(self, architecture: str, feature_dim: int, *projection: object) -> None:
        super().__init__()
        pool = (nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), *pool)
        self.projection = nn.Linear(16, feature_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.backbone(x))


def use_small_networks(patch: pytest.MonkeyPatch) -> None:
    """Replace student and teacher by one convolution, and draw no pictures."""
    patch.setattr(momentum_teacher, "Encoder", SmallEncoder)
    patch.setattr(callbacks, "draw_curves", lambda run_folder, panels: run_folder)
    patch.setattr(callbacks, "draw_first_batch", lambda *_: None)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`use_small_networks` for one test."""
    use_small_networks(monkeypatch)


@pytest.fixture(scope="session")
def small_run(tiny_recipe: Recipe, tiny_store: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny recipe with small networks: ten steps. Read only; it is quick to copy."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        return pretrain(tiny_recipe, tiny_store, tmp_path_factory.mktemp("runs") / "small", "cpu", progress=False)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's client with an empty cache and without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def cached_imagenet(hub_cache: Path) -> Callable[[str], tuple[nn.Module, Path]]:
    """Puts a random network into the cache as timm's ImageNet weights; returns it and its file."""

    def put(architecture: str) -> tuple[nn.Module, Path]:
        torch.manual_seed(0)
        network: nn.Module = timm.create_model(architecture).eval()
        repository = hub_cache / f"models--timm--{architecture}.tv_in1k"
        snapshot = repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        save_file(network.state_dict(), snapshot / "model.safetensors")
        return network, snapshot / "model.safetensors"

    return put


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On one thread, sums are always in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
