"""A store of synthetic chests and of noise as knees, boxes on its test images, and a network fine-tuned on it."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from c2l_models.radiographs.phantom import films
from c2l_models.training.datasets.constants import label_names
from c2l_models.training.evaluation.report import Report
from c2l_models.training.finetuning import finetune as loop
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA

CHESTS, TEST_CHESTS, KNEES, TEST_KNEES = 36, 16, 16, 10
SIDE = 48
BOXES = [
    ["Effusion", 100, 500, 300, 400],
    ["Cardiomegaly", 350, 450, 400, 300],
    ["Infiltrate", 600, 600, 128, 256],
]


def image(number: int) -> str:
    """File name of a chest; each patient has two images."""
    return f"{7000 + number // 2:08d}_{number % 2:03d}.png"


def _chest(number: int, findings: tuple[str, ...]) -> dict:
    shown = {name.capitalize() for name in findings} | ({"Infiltration"} if number % 3 == 0 else set())
    return {
        "path": f"images/{image(number)}",
        "dataset": "chestxray14",
        "patient": f"chestxray14:{7000 + number // 2:08d}",
        "view": ("PA", "AP")[number % 2],
        "split": "train_val" if number < CHESTS else "test",
        "labels": [(name, float(name in shown)) for name in label_names("chestxray14")],
    }


def _knee(number: int) -> dict:
    return {
        "path": f"images/{9990000 + number // 2}{'LR'[number % 2]}.jpg",
        "dataset": "knee_kl",
        "patient": f"knee_kl:{9990000 + number // 2}",
        "view": "PA",
        "split": "train" if number < KNEES else "test",
        "labels": [("kl_grade", float(number % 5))],
    }


def build_store(path: Path) -> ImageStore:
    chests = list(films(CHESTS + TEST_CHESTS, seed=3, size=SIDE))
    noise = np.random.default_rng(0).integers(0, 256, (KNEES + TEST_KNEES, SIDE, SIDE), dtype=np.uint8)
    rows = [_chest(number, film.findings) for number, film in enumerate(chests)]
    rows += [_knee(number) for number in range(len(noise))]
    images = np.concatenate([np.stack([film.pixels for film in chests]), noise])
    path.mkdir(parents=True, exist_ok=True)
    rows = [{"study": "", "sha256": ""} | row for row in rows]
    return ImageStore(path, images, pa.Table.from_pylist(rows, INDEX_SCHEMA), "5" * 64)


def write_boxes(path: Path, rows: list[list]) -> Path:
    """A box file with the header of NIH's file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """52 chests of 26 patients (16 images are test images) and 26 knees (10 are test images)."""
    return build_store(tmp_path_factory.mktemp("look") / "store")


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three boxes on the first test images, one on a training image, one on an image not in the store."""
    rows = [[image(CHESTS + i), *box] for i, box in enumerate(BOXES)]
    rows += [[image(0), *BOXES[0]], ["99999999_000.png", *BOXES[0]]]
    return write_boxes(tmp_path_factory.mktemp("boxes") / "boxes.csv", rows)


@pytest.fixture(scope="session")
def finetuned(store: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one ResNet-18 step on the chests at 64 pixels, with maps of 2 x 2 cells. Tests must not change it."""
    settings = Settings(size=64, epochs=1, batch_size=32, hold_out=0.4, bootstrap=10)
    out = tmp_path_factory.mktemp("tuned") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_roc", lambda *_: None)
        patch.setattr(Report, "picture", lambda _: b"")
        loop.finetune("random", store, "chestxray14", out, settings, "cpu", progress=False)
    torch.set_num_threads(threads)
    return out
