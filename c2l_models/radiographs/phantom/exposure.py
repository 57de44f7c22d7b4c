"""Take a film of a phantom patient: Beer–Lambert's law, scatter, quantum noise and development."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from .bodies import ATTENUATION, WALL, thicknesses
from .patient import Anatomy, Lesions

FIELD = 36.0  # width and height of the film, cm
SUPERSAMPLING = 2  # rays per pixel in each direction


@dataclass(frozen=True)
class Exposure:
    """The patient's position, the beam and the development of one film."""

    scale: float  # magnification
    turn: float  # radians, in the plane of the film
    shift: tuple[float, float]  # cm
    quanta: float  # per square centimetre at the detector, without a patient
    scatter: float  # added signal, relative to the signal behind a lung
    centre: float  # optical depth at mid-grey, relative to the usual
    width: float  # range of optical depths shown, relative to the usual
    gamma: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Exposure":
        """Draw an exposure as varied as in clinical routine."""
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


def transmission(paths: Mapping[str, np.ndarray], mus: Mapping[str, float] = ATTENUATION) -> np.ndarray:
    """Beer–Lambert's law: I / I0 = exp(-sum of mu_i t_i).

    `paths` holds the path length t_i in cm of each tissue, `mus` its attenuation mu_i in 1/cm.
    """
    return np.exp(-sum(mus[tissue] * path for tissue, path in paths.items()))


def expose(
    anatomy: Anatomy, lesions: Lesions, findings: Collection[str], rng: np.random.Generator, size: int
) -> np.ndarray:
    """Take a film of a patient who shows these findings: uint8 [size, size]."""
    exposure = Exposure.draw(rng)
    rays = transmission(thicknesses(anatomy, lesions, findings, *_rays(exposure, size)))
    primary = rays.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
    # The automatic exposure control depends on the patient's build, not on the findings.
    behind_lung = math.exp(-(ATTENUATION["lung"] * (anatomy.depth - WALL) + ATTENUATION["soft"] * WALL))
    signal = primary + exposure.scatter * behind_lung
    quanta = exposure.quanta * (FIELD / size) ** 2
    # Normal approximation of Poisson noise: the number of draws does not depend on the signal.
    signal = signal + np.sqrt(signal / quanta) * rng.standard_normal(signal.shape)
    return _develop(np.maximum(signal, 1 / quanta) / behind_lung, exposure)


def _rays(exposure: Exposure, size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y in cm where each ray passes the patient's middle plane: float32, size * SUPERSAMPLING squared."""
    steps = size * SUPERSAMPLING
    line = ((np.arange(steps) + 0.5) / steps - 0.5) * FIELD / exposure.scale
    x, y = line - exposure.shift[0], line[:, None] - exposure.shift[1]
    cosine, sine = math.cos(exposure.turn), math.sin(exposure.turn)
    return (cosine * x + sine * y).astype(np.float32), (cosine * y - sine * x).astype(np.float32)


def _develop(signal: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Convert a signal, relative to the signal behind a lung, to grey levels: logarithm, window, gamma."""
    depth = -np.log(signal)
    low, high = -0.95, 2.5
    middle, span = (low + high) / 2 + exposure.centre, (high - low) * exposure.width
    grey = np.clip((depth - middle) / span + 0.5, 0, 1) ** exposure.gamma
    return np.round(255 * grey).astype(np.uint8)
