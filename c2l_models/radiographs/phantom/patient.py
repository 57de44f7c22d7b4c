"""A random patient: measures of the chest, and position and size of each finding."""

from dataclasses import dataclass

import numpy as np

from .shapes import Point

APEX_AXIS = 5.2  # distance of the apex of a lung from the midline, cm


@dataclass(frozen=True)
class Anatomy:
    """The chest of a patient; lengths in cm."""

    depth: float  # of the trunk, front to back
    lung_width: float  # from the axis of the apex to the lateral border
    lung_height: float  # from the apex to the top of the diaphragm
    rib_spacing: float
    heart_ratio: float  # cardiothoracic ratio of the normal heart
    enlarged_ratio: float  # cardiothoracic ratio with cardiomegaly
    dome: float  # level of the left diaphragm; the right one is higher
    breast: float  # thickness; 0: none
    bone: float  # relative mineralization
    clavicle_tilt: float
    texture: int  # seed of the vessels and the consolidation

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient of average build."""
        return cls(
            depth=rng.uniform(19, 24),
            lung_width=rng.uniform(7.6, 9.4),
            lung_height=rng.uniform(20, 25),
            rib_spacing=rng.uniform(2.0, 2.5),
            heart_ratio=rng.uniform(0.39, 0.49),
            enlarged_ratio=rng.uniform(0.52, 0.62),
            dome=rng.uniform(8.0, 10.5),
            breast=max(0.0, rng.uniform(-4, 4)),
            bone=rng.uniform(0.75, 1.2),
            clavicle_tilt=rng.uniform(-0.5, 2.5),
            texture=int(rng.integers(2**31)),
        )

    @property
    def thorax_width(self) -> float:
        """Inner width of the chest, between the lateral borders of the lungs."""
        return 2 * (APEX_AXIS + self.lung_width)

    def cardiothoracic_ratio(self, enlarged: bool) -> float:
        """Largest width of the heart divided by the inner width of the chest."""
        return self.enlarged_ratio if enlarged else self.heart_ratio


@dataclass(frozen=True)
class Lesions:
    """Position and size of a patient's findings, whether or not a film shows them."""

    nodule_side: int
    nodule_at: Point  # fractions of the lung's width and height; consolidation_at as well
    nodule_radius: float  # cm
    effusion_side: int
    effusion_level: float  # cm above the costophrenic angle
    pneumothorax_retraction: float  # cm between chest wall and lung, on the side opposite to the effusion
    consolidation_side: int
    consolidation_at: Point
    consolidation_radius: float  # cm
    consolidation_share: float  # fraction of the lung's depth that is filled

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Lesions":
        """Draw lesions from subtle to obvious."""
        return cls(
            nodule_side=int(rng.choice((-1, 1))),
            nodule_at=(rng.uniform(0.0, 0.6), rng.uniform(0.2, 0.75)),
            nodule_radius=rng.uniform(0.9, 2.0),
            effusion_side=int(rng.choice((-1, 1))),
            effusion_level=rng.uniform(2.5, 10.0),
            pneumothorax_retraction=rng.uniform(1.8, 5.0),
            consolidation_side=int(rng.choice((-1, 1))),
            consolidation_at=(rng.uniform(-0.1, 0.5), rng.uniform(0.05, 0.7)),
            consolidation_radius=rng.uniform(2.2, 4.2),
            consolidation_share=rng.uniform(0.35, 0.8),
        )
