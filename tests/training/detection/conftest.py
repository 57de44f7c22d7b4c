"""A miniature of the challenge: images with a bright square in each box, two images per patient of ChestX-ray14."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from store_helpers import write_dicom

from c2l_models.training.detection.images import DetectionImages, load_images

PATIENTS, SIDE = 8, 128
HEADER = ["patientId", "x", "y", "width", "height", "Target"]


def image_id(number: int) -> str:
    return f"{number:08x}-1111-4222-8333-444444444444"


def write_rows(path: Path, *rows: list) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def draw_challenge(root: Path) -> Path:
    """Write 16 images of 128 pixels. Each patient's first image has a box; the first patient's has two."""
    rng = np.random.default_rng(0)
    labels, mapping = [HEADER], [["patientId", "Image Index"]]
    for number in range(2 * PATIENTS):
        image = rng.integers(20, 60, (SIDE, SIDE), dtype=np.uint8)
        boxes = [(16 + number, 40, 40, 48), (80, 40, 32, 40)][: 0 if number % 2 else 1 + (number == 0)]
        for x, y, width, height in boxes:
            image[y : y + height, x : x + width] += 150
            labels.append([image_id(number), x, y, width, height, 1])
        if not boxes:
            labels.append([image_id(number), "", "", "", "", 0])
        mapping.append([image_id(number), f"{number // 2:08}_{number % 2:03}.png"])
        write_dicom(root / "stage_2_train_images" / f"{image_id(number)}.dcm", image)
    write_rows(root / "stage_2_train_labels.csv", *labels)
    write_rows(root / "nih_image_index.csv", *mapping)
    return root


@pytest.fixture(scope="session")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder; not to be written to."""
    return draw_challenge(tmp_path_factory.mktemp("challenge"))


@pytest.fixture(scope="session")
def images(challenge: Path, tmp_path_factory: pytest.TempPathFactory) -> DetectionImages:
    """The miniature, decoded and split."""
    return load_images(challenge, tmp_path_factory.mktemp("stores") / "store", SIDE, workers=1, progress=False)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, so that runs agree to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
