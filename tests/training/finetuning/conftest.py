"""A small store whose labels can be learnt, and a small network as initialization."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch

from c2l_models.training.evaluation import predictions
from c2l_models.training.evaluation.report import Report
from c2l_models.training.finetuning import finetune as finetune_module
from c2l_models.training.finetuning import task_split
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.initialization import Initialization
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA

TRAIN_PATIENTS, TEST_PATIENTS, IMAGES_PER_PATIENT = 40, 20, 2


def build_store(path: Path, size: int = 32) -> ImageStore:
    """Noise images; those with label `bright` have a brighter middle.

    `rare` is never positive in training, and `always` is always positive in the test part. `bright` is unknown for
    each tenth image, and one image has no labels.
    """
    rng = np.random.default_rng(0)
    count = (TRAIN_PATIENTS + TEST_PATIENTS) * IMAGES_PER_PATIENT
    bright = np.arange(count) // IMAGES_PER_PATIENT % 2 == 1
    images = rng.integers(0, 150, (count, size, size), dtype=np.uint8)
    images[bright, size // 4 : -size // 4, size // 4 : -size // 4] += 60
    rows = []
    for n in range(count):
        test = n >= TRAIN_PATIENTS * IMAGES_PER_PATIENT
        labels = {"bright": float(bright[n]), "rare": float(test and n % 3 == 0), "always": float(test or n % 3 == 0)}
        if n % 10 == 0:
            del labels["bright"]
        rows.append(
            {
                "path": f"{n}.png",
                "dataset": "folder",
                "patient": f"folder:{n // IMAGES_PER_PATIENT:03d}",
                "view": "",
                "split": "test" if test else "train",
                "labels": [] if n == 1 else list(labels.items()),
                "sha256": "",
            }
        )
    path.mkdir(parents=True, exist_ok=True)
    return ImageStore(path, images, pa.Table.from_pylist(rows, INDEX_SCHEMA), "0" * 64)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """80 training images of 40 patients, 40 test images of 20."""
    return build_store(tmp_path_factory.mktemp("finetuning") / "store")


@pytest.fixture(autouse=True)
def small_tuning_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's 16 held-out images may choose the epoch."""
    monkeypatch.setattr(task_split, "MIN_TUNING_IMAGES", 10)
    monkeypatch.setattr(predictions, "MIN_CASES", 3)


@pytest.fixture
def settings() -> Settings:
    """Three epochs of about four steps, which suffice to learn `bright`."""
    return Settings(size=32, epochs=3, batch_size=16, lr=3e-3, bootstrap=20)


def small_initialization(seen: frozenset[str] = frozenset()) -> Initialization:
    """timm's smallest ResNet, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    return Initialization("small", "test_resnet", network, 32, 0.5, 0.25, {"architecture": "test_resnet"}, seen)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each initialization is the small network; torch runs on one thread."""
    monkeypatch.setattr(finetune_module, "load_initialization", lambda *_: small_initialization())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without plots, because drawing them takes longer than the training."""
    monkeypatch.setattr(finetune_module, "draw_roc", lambda *_: None)
    monkeypatch.setattr(Report, "picture", lambda _: b"")
