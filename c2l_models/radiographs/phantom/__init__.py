"""Synthetic frontal chest films with labels, for demos and tests.

X-rays are projected through bodies of known tissue (`bodies`) and developed into an 8-bit film in which bone is bright
(`exposure`). No data set is needed or redistributed. Results on these films say nothing about patients.

>>> from c2l_models.radiographs.phantom import films
>>> film = next(films(1, seed=0))
>>> film.pixels.shape, film.pixels.dtype
((128, 128), dtype('uint8'))
"""

import csv
import io
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count as naturals
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import C2LError, DatasetError
from ...files import remove_stale, temporary_beside, write_atomically
from .exposure import expose
from .patient import Anatomy, Lesions

FINDINGS = ("nodule", "effusion", "pneumothorax", "cardiomegaly", "consolidation")
PREDISPOSED, SHOWN = 0.36, 0.78  # P(patient has a finding), P(a film of this patient shows it): 28 % of films
LABELS = "labels.csv"
TEST_DIGITS = (2, 5, 8)  # A patient whose number ends with one of these is in the test split.


@dataclass(frozen=True)
class Film:
    """A film: pixels uint8 [size, size], the findings it shows (in the order of `FINDINGS`), and its patient."""

    pixels: np.ndarray
    findings: tuple[str, ...]
    patient: str


def render(findings: Collection[str], rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """Render a film of a random patient who has exactly these findings: uint8 [size, size].

    The random numbers do not depend on `findings`. So the same state of `rng` gives the same patient, position and
    noise with and without a finding.

    Raises C2LError for a finding that is not in `FINDINGS`.
    """
    for finding in findings:
        if finding not in FINDINGS:
            raise C2LError(f"expected findings among {', '.join(FINDINGS)}; found {finding!r}")
    return expose(Anatomy.draw(rng), Lesions.draw(rng), findings, rng, size)


def films(count: int, seed: int = 0, size: int = 128) -> Iterator[Film]:
    """Generate films: one to three per patient, who may show other findings on each.

    Film i depends only on `seed`, i and `size`, not on `count`.
    """
    return islice(_all_films(seed, size), count)


def write_films(folder: Path, count: int, seed: int = 0, size: int = 128) -> Path:
    """Write films as PNG files, and their labels as `labels.csv`. Returns `folder`.

    The columns are path, patient, view, split, and each of `FINDINGS` as 0 or 1. Three in ten patients are in the test
    split. The same films may be written again.

    Raises DatasetError, before anything is written, if the folder contains other files or another labels.csv. Other
    files would be taken for films without labels.
    """
    folder = Path(folder)
    files = {f"{film.patient}_{i}.png": film for i, film in enumerate(films(count, seed, size))}
    labels = _labels(files).encode()
    _check_folder(folder, files, labels)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder.resolve())
    new = temporary_beside(folder.resolve())
    new.mkdir()
    try:
        for name, film in files.items():
            Image.fromarray(film.pixels).save(new / name)
        for name in files:
            (new / name).replace(folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    write_atomically(folder / LABELS, labels)
    return folder


def _all_films(seed: int, size: int) -> Iterator[Film]:
    """Endless films, patient by patient."""
    for number in naturals():
        rng = np.random.default_rng([seed, number])
        anatomy, lesions = Anatomy.draw(rng), Lesions.draw(rng)
        predisposed = rng.random(len(FINDINGS)) < PREDISPOSED
        for _ in range(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))):
            shown = predisposed & (rng.random(len(FINDINGS)) < SHOWN)
            findings = tuple(finding for finding, present in zip(FINDINGS, shown, strict=True) if present)
            yield Film(expose(anatomy, lesions, findings, rng, size), findings, f"phantom{number:05d}")


def _labels(files: Mapping[str, Film]) -> str:
    """The text of labels.csv for films by file name."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "patient", "view", "split", *FINDINGS])
    for name, film in files.items():
        split = "test" if int(film.patient[-1]) in TEST_DIGITS else "train"
        writer.writerow([name, film.patient, "PA", split, *(int(f in film.findings) for f in FINDINGS)])
    return text.getvalue()


def _check_folder(folder: Path, names: Collection[str], labels: bytes) -> None:
    advice = "expected an empty folder or the same films; choose another folder"
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := found - {*names, LABELS}:
        raise DatasetError(f"{folder} contains {len(others)} other files (such as {min(others)}); {advice}")
    if LABELS in found and (folder / LABELS).read_bytes() != labels:
        raise DatasetError(f"{folder / LABELS} belongs to other films; {advice}")
