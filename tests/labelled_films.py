"""A folder of synthetic films with a labels.csv."""

import csv

import numpy as np
from PIL import Image


def draw_films(folder):
    """Draw 80 films of 32 pixels, brighter if they have the finding: two per patient, 20 for testing."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", "split", "finding"])
        for n in range(80):
            finding = n // 2 % 2
            noise = rng.normal(90 + 60 * finding, 25, (32, 32)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"{n:02d}.png")
            table.writerow([f"{n:02d}.png", f"p{n // 2}", "train" if n < 60 else "test", finding])
