"""Synthetic frontal chest films: no data needed, none redistributed.

Bodies of known tissue (`bodies`) are projected by Beer–Lambert's law, counted by a noisy detector
and developed into an 8-bit film in which bone is bright. They look like chest films and come with their
labels, which is what a demo or a test needs; nothing measured on them says anything about patients.

>>> from c2l_models.radiographs.phantom import films
>>> film = next(films(1, seed=0))
>>> film.pixels.shape, film.pixels.dtype
((128, 128), dtype('uint8'))
"""

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count as naturals
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import C2LError, DatasetError
from .bodies import ATTENUATION, WALL, thicknesses
from .patient import Anatomy, Lesions

FINDINGS = ("nodule", "effusion", "pneumothorax", "cardiomegaly", "consolidation")
FIELD = 36.0  # the film's width and height, cm
SUPERSAMPLING = 2  # rays per pixel, each way
PREDISPOSED, SHOWN = 0.36, 0.78  # a patient has a finding; a film of such a patient shows it: 28 % of films
LABELS = "labels.csv"
TEST_DIGITS = (2, 5, 8)  # patients whose number ends so are the test split


@dataclass(frozen=True)
class Film:
    """A film, uint8 [size, size], with what it shows (in the order of `FINDINGS`) and whose it is."""

    pixels: np.ndarray
    findings: tuple[str, ...]
    patient: str


@dataclass(frozen=True)
class Exposure:
    """How one film was taken: the patient's position, the beam and the development."""

    scale: float  # magnification
    turn: float  # radians, in the film's plane
    shift: tuple[float, float]  # cm
    quanta: float  # per square centimetre at the detector, without a patient
    scatter: float  # added signal, relative to that behind a lung
    centre: float  # optical depth at mid-grey, relative to the usual
    width: float  # the range of optical depths shown, relative to the usual
    gamma: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Exposure":
        """An exposure as a busy department makes them."""
        return cls(
            scale=rng.uniform(0.94, 1.06),
            turn=rng.normal(0, math.radians(1.5)),
            shift=(rng.normal(0, 0.6), rng.normal(0, 0.6)),
            quanta=math.exp(rng.uniform(math.log(8e4), math.log(8e5))),
            scatter=rng.uniform(0.05, 0.12),
            centre=rng.normal(0, 0.18),
            width=rng.uniform(0.85, 1.2),
            gamma=rng.uniform(0.8, 1.25),
        )


def render(findings: Collection[str], rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """A chest film, uint8 [size, size], of a random patient who has exactly these `findings`.

    The draws from `rng` do not depend on `findings`: the same generator state gives the same patient,
    position and noise with a finding and without it.

    Raises C2LError for a finding that is not in `FINDINGS`.
    """
    _check(findings)
    return _expose(Anatomy.draw(rng), Lesions.draw(rng), findings, rng, size)


def films(count: int, seed: int = 0, size: int = 128) -> Iterator[Film]:
    """The first `count` films of an endless archive: one to three a patient, findings coming and going.

    Film i depends on `seed`, i and `size` alone.
    """
    return islice(_archive(seed, size), count)


def write_films(folder: Path, count: int, seed: int = 0, size: int = 128) -> Path:
    """Write films as PNG, and `labels.csv`; returns `folder`.

    The columns are path, patient, view, split and, as 0 or 1, each of `FINDINGS`. Three patients in ten are
    the test split. Writing the same films again is no error.

    Raises DatasetError, before anything is written, where the folder holds other files, which would pass for
    unlabelled films, or another labels.csv.
    """
    folder = Path(folder)
    archive = {f"{film.patient}_{i}.png": film for i, film in enumerate(films(count, seed, size))}
    labels = _labels(archive).encode()
    _check_folder(folder, archive, labels)
    folder.mkdir(parents=True, exist_ok=True)
    for name, film in archive.items():
        Image.fromarray(film.pixels).save(folder / name)
    (folder / LABELS).write_bytes(labels)
    return folder


def _labels(archive: Mapping[str, Film]) -> str:
    """The text of labels.csv for films under their files' names."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "patient", "view", "split", *FINDINGS])
    for name, film in archive.items():
        split = "test" if int(film.patient[-1]) in TEST_DIGITS else "train"
        writer.writerow([name, film.patient, "PA", split, *(int(f in film.findings) for f in FINDINGS)])
    return text.getvalue()


def _check_folder(folder: Path, names: Collection[str], labels: bytes) -> None:
    advice = "wanted an empty folder, or the same films: choose another folder"
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if strangers := found - {*names, LABELS}:
        raise DatasetError(f"{folder} holds {len(strangers)} other files (such as {min(strangers)}); {advice}")
    if LABELS in found and (folder / LABELS).read_bytes() != labels:
        raise DatasetError(f"{folder / LABELS} is of other films; {advice}")


def transmission(paths: Mapping[str, np.ndarray], mus: Mapping[str, float] = ATTENUATION) -> np.ndarray:
    """Beer–Lambert: I / I0 = exp(-sum of mu_i t_i); `paths` t_i in cm, `mus` in 1/cm, both by tissue."""
    return np.exp(-sum(mus[tissue] * path for tissue, path in paths.items()))


def _archive(seed: int, size: int) -> Iterator[Film]:
    for number in naturals():
        rng = np.random.default_rng([seed, number])
        anatomy, lesions = Anatomy.draw(rng), Lesions.draw(rng)
        predisposed = rng.random(len(FINDINGS)) < PREDISPOSED
        for _ in range(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))):
            shown = predisposed & (rng.random(len(FINDINGS)) < SHOWN)
            findings = tuple(finding for finding, there in zip(FINDINGS, shown, strict=True) if there)
            yield Film(_expose(anatomy, lesions, findings, rng, size), findings, f"phantom{number:05d}")


def _expose(
    anatomy: Anatomy, lesions: Lesions, findings: Collection[str], rng: np.random.Generator, size: int
) -> np.ndarray:
    exposure = Exposure.draw(rng)
    rays = transmission(thicknesses(anatomy, lesions, findings, *_rays(exposure, size)))
    primary = rays.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
    # the automatic exposure control knows the patient's build, not the findings
    behind_lung = math.exp(-(ATTENUATION["lung"] * (anatomy.depth - WALL) + ATTENUATION["soft"] * WALL))
    signal = primary + exposure.scatter * behind_lung
    quanta = exposure.quanta * (FIELD / size) ** 2
    # Poisson's normal limit, and not Poisson: as many draws whatever the film shows
    signal = signal + np.sqrt(signal / quanta) * rng.standard_normal(signal.shape)
    return _develop(np.maximum(signal, 1 / quanta) / behind_lung, exposure)


def _rays(exposure: Exposure, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays pass the patient's middle plane, cm: x and y, float32 [size * SUPERSAMPLING] squared."""
    steps = size * SUPERSAMPLING
    line = ((np.arange(steps) + 0.5) / steps - 0.5) * FIELD / exposure.scale
    x, y = line - exposure.shift[0], line[:, None] - exposure.shift[1]
    cosine, sine = math.cos(exposure.turn), math.sin(exposure.turn)
    return (cosine * x + sine * y).astype(np.float32), (cosine * y - sine * x).astype(np.float32)


def _develop(signal: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Signal relative to that behind a lung -> film: the logarithm, a window and a gamma; bone is bright."""
    depth = -np.log(signal)
    low, high = -0.95, 2.5
    middle, span = (low + high) / 2 + exposure.centre, (high - low) * exposure.width
    grey = np.clip((depth - middle) / span + 0.5, 0, 1) ** exposure.gamma
    return np.round(255 * grey).astype(np.uint8)


def _check(findings: Collection[str]) -> None:
    for finding in findings:
        if finding not in FINDINGS:
            raise C2LError(f"no finding {finding!r} on a phantom; wanted some of {', '.join(FINDINGS)}")
