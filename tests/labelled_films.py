"""A folder of synthetic films with a labels.csv."""

import csv

import numpy as np
from PIL import Image


def draw_films(folder, labels=("finding",), patient="p", train=60, step=60):
    """Draw 80 films of 32 pixels, two per patient, brighter by `step` for each finding; the first are for training.

    Every second patient has the first finding. A film has each of the others at random.
    """
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", "split", *labels])
        for n in range(80):
            findings = [n // 2 % 2, *rng.integers(0, 2, len(labels) - 1)]
            pixels = rng.normal(90 + step * sum(findings), 25, (32, 32)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{n:02d}.png")
            table.writerow([f"{n:02d}.png", f"{patient}{n // 2}", "train" if n < train else "test", *findings])
    return folder
