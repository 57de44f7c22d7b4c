"""The chest as bodies of tissue: the path length of each ray in each tissue.

All lengths are in cm, on an upright frontal film. The origin is the middle of the chest; x grows to the right of the
film (the patient's left), y downwards. Side +1 is the right of the film.
"""

import math
from collections.abc import Collection
from itertools import pairwise

import numpy as np

from .patient import APEX_AXIS, Anatomy, Lesions
from .shapes import Point, around, chord, ellipsoid, shell, tube

# Linear attenuation at 60 keV in 1/cm: mass attenuation (NIST SRD 126, table 4, ICRU-44 tissues) times density.
ATTENUATION = {
    "soft": 0.2048 * 1.06,  # soft tissue
    "lung": 0.2053 * 0.26,  # inflated lung
    "bone": 0.3148 * 1.50,  # coefficient of cortical bone; mean density of cortex and marrow
    "fluid": 0.2059 * 1.02,  # pleural fluid, as water
    "gas": 0.1875 * 0.0012,  # air
}

PLEURA = 3.0  # path length in the visceral pleura where it lies along the beam
WALL = 5.5  # thickness of the chest wall, front and back together
TRACHEA_LENGTH = 12.5
SULCUS_DEPTH = 6.0  # from the top of the diaphragm down to the costophrenic angle


def thicknesses(
    anatomy: Anatomy, lesions: Lesions, findings: Collection[str], x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Path length in cm in each tissue of `ATTENUATION`, for the rays through the points (x, y); shaped as `x`.

    A body replaces the tissue that it displaces. So the lengths add up to the depth of the trunk, before bone is scaled
    by its mineralization.
    """
    trunk = _trunk(anatomy, x, y)
    bone = np.minimum(_skeleton(anatomy, x, y), 0.7 * trunk)
    heart = _heart(anatomy, "cardiomegaly" in findings, x, y)
    lung, pleural_gas, fluid = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for side in (-1, 1):
        cavity = np.clip(_cavity(anatomy, side, x, y) - heart, 0, trunk - bone)
        aerated, gas, effusion = _hemithorax(anatomy, lesions, findings, side, cavity, x, y)
        lung, pleural_gas, fluid = lung + aerated, pleural_gas + gas, fluid + effusion
    soft = np.maximum(trunk - bone - lung - pleural_gas - fluid, 0)
    inner_gas = np.minimum(_airway_and_stomach(anatomy, x, y), soft)
    soft, gas = soft - inner_gas, pleural_gas + inner_gas
    return {"soft": soft, "lung": lung, "bone": anatomy.bone * bone, "fluid": fluid, "gas": gas}


def _hemithorax(
    anatomy: Anatomy,
    lesions: Lesions,
    findings: Collection[str],
    side: int,
    cavity: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aerated lung, pleural gas and pleural fluid of one side, which share the depth of its `cavity`."""
    u = side * x
    lung, gas, fluid = cavity, np.zeros_like(x), np.zeros_like(x)
    if "pneumothorax" in findings and side == -lesions.effusion_side:
        lung, gas = _collapse(anatomy, lesions, cavity, u, y)
    lung = np.maximum(lung - _vessels(anatomy, side, x, y), 0.35 * lung)
    if "nodule" in findings and side == lesions.nodule_side:
        r = lesions.nodule_radius
        lung = np.maximum(lung - ellipsoid(x, y, _point_in_lung(anatomy, side, lesions.nodule_at), (r, r, r)), 0)
    if "consolidation" in findings and side == lesions.consolidation_side:
        lung = lung * (1 - lesions.consolidation_share * _patches(anatomy, lesions, x, y))
    if "effusion" in findings and side == lesions.effusion_side:
        filled = _below_meniscus(anatomy, lesions, u, y)
        lung, fluid = lung * (1 - filled), cavity * filled
    return lung, gas, fluid


def _collapse(
    anatomy: Anatomy, lesions: Lesions, cavity: np.ndarray, u: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Retracted lung, and gas between lung and wall. The visceral pleura is visible as a line."""
    radius = _lung_radius(anatomy, u, y, lesions.pneumothorax_retraction)
    lung = cavity * np.sqrt(np.clip((1 - radius) / 0.3, 0, 1))
    gas = cavity - lung
    # A membrane of half a millimetre is 2 cm deep along the beam. It is drawn wider, to be visible at 128 pixels.
    slope = np.hypot(*np.gradient(radius)) / abs(float(y[1, 0] - y[0, 0]))
    edge = np.exp(-(((radius - 1) / np.maximum(slope, 1e-3) / 0.22) ** 2))
    return lung, np.maximum(gas - np.minimum(gas, PLEURA) * edge, 0)


def _lung_radius(anatomy: Anatomy, u: np.ndarray, y: np.ndarray, retraction: float) -> np.ndarray:
    """Relative radius of a lung: 1 on its outline, less inside. `retraction` from the wall is largest at the apex."""
    top = anatomy.dome - anatomy.lung_height
    drop = 0.75 * anatomy.lung_height
    height = np.maximum(top + drop - y, 0) / (drop - 1.3 * retraction)
    taper = np.clip((anatomy.dome + 4.5 - y) / (0.6 * anatomy.lung_height), 0, 1)
    offset = u - APEX_AXIS
    lateral = offset / (anatomy.lung_width - retraction * taper)
    medial = -offset / (APEX_AXIS - 1.9)
    across = np.where(offset > 0, np.abs(lateral) ** 2.2, np.maximum(medial, 0) ** 3)
    return across + height**2.2


def _cavity(anatomy: Anatomy, side: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the pleural cavity of one side above the diaphragm, without the heart."""
    u = side * x
    radius = _lung_radius(anatomy, u, y, 0.0)
    depth = (anatomy.depth - WALL) * np.sqrt(np.clip((1 - radius) / 0.5, 0, 1))
    # Below the top of the dome, the lung continues in front of and behind the diaphragm, and becomes thinner.
    sunk = np.maximum(y - _diaphragm(anatomy, side, u), 0)
    return depth * np.clip(1 - np.sqrt(sunk / 3.5), 0, 1)


def _diaphragm(anatomy: Anatomy, side: int, u: np.ndarray) -> np.ndarray:
    """Level of the diaphragm: a dome with a steep slope to the costophrenic angle; higher on the patient's right."""
    middle, half = APEX_AXIS, anatomy.lung_width
    across = np.clip((u - middle) / half, -1.0, 1.0)
    top = anatomy.dome - (1.4 if side < 0 else 0)
    return top + np.where(across > 0, SULCUS_DEPTH * across**2, 2.0 * across**2)


def _below_meniscus(anatomy: Anatomy, lesions: Lesions, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fraction of the pleural cavity filled by fluid, which rises along the chest wall and thins upwards."""
    level = anatomy.dome + SULCUS_DEPTH - 1.5 - lesions.effusion_level
    from_wall = np.maximum(APEX_AXIS + anatomy.lung_width - u, 0)
    surface = level - 3.0 * np.exp(-from_wall / 1.8) - 0.8 * np.exp(-np.maximum(u - 2, 0) / 1.5)
    share = np.clip((y - surface) / 1.2, 0, 1)
    return share * share * (3 - 2 * share)


def _point_in_lung(anatomy: Anatomy, side: int, at: Point) -> Point:
    """The point at fractions of a lung's width (from the axis of the apex) and height (from the apex)."""
    top = anatomy.dome - anatomy.lung_height
    return side * (APEX_AXIS + at[0] * anatomy.lung_width), top + at[1] * anatomy.lung_height


def _patches(anatomy: Anatomy, lesions: Lesions, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Density of a consolidation, 0 to 1: several soft-edged patches around a centre."""
    rng = np.random.default_rng(anatomy.texture + 2)
    radius = lesions.consolidation_radius
    centre = _point_in_lung(anatomy, lesions.consolidation_side, lesions.consolidation_at)
    rows, columns = around(x, y, centre, centre, 2.2 * radius)
    near_x, near_y = x[rows, columns] - centre[0], y[rows, columns] - centre[1]
    puffs = np.zeros_like(near_x)
    for dx, dy in rng.normal(0, 0.55 * radius, (10, 2)).tolist():
        spread = radius * rng.uniform(0.2, 0.5)
        puffs += np.exp(-((near_x - dx) ** 2 + (near_y - dy) ** 2) / (2 * spread**2))
    rim = np.clip(2.2 - np.hypot(near_x, near_y) / radius, 0, 1)  # 0 beyond 2.2 radii
    share = np.zeros_like(x)
    share[rows, columns] = rim * (1 - np.exp(-puffs))
    return share


def _heart(anatomy: Anatomy, enlarged: bool, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heart, aortic arch and great vessels. The cardiothoracic ratio sets the width of the heart."""
    width = anatomy.cardiothoracic_ratio(enlarged) * anatomy.thorax_width
    tilt, flatness = math.radians(38), 0.72
    long = 0.5 * width / math.hypot(math.cos(tilt), flatness * math.sin(tilt))
    rise = math.hypot(math.sin(tilt), flatness * math.cos(tilt)) * long
    centre = (0.17 * width, anatomy.dome + 1.8 - rise)
    heart = ellipsoid(x, y, centre, (long, flatness * long, 0.42 * width), tilt)
    arch = anatomy.dome - 0.74 * anatomy.lung_height
    return np.maximum.reduce(
        [
            heart,
            ellipsoid(x, y, (1.7, arch), (1.7, 1.6, 3.5)),  # aortic knob
            ellipsoid(x, y, (1.6, arch + 4.0), (2.1, 3.2, 3.5)),  # pulmonary trunk
            ellipsoid(x, y, (-1.4, arch + 2.0), (1.6, 6.0, 2.5)),  # superior vena cava
        ]
    )


def _airway_and_stomach(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Air in the trachea and the main bronchi, and gas in the stomach under the left diaphragm."""
    carina = anatomy.dome - 0.62 * anatomy.lung_height
    tubes = [((-0.1, carina - TRACHEA_LENGTH), (0.2, carina)), ((0.2, carina), (-3.0, carina + 2.4))]
    tubes.append(((0.2, carina), (3.4, carina + 2.6)))
    air = np.maximum.reduce([tube(x, y, a, b, 0.85 if i == 0 else 0.6) for i, (a, b) in enumerate(tubes)])
    bubble = ellipsoid(x, y, (5.5, anatomy.dome + 3.6), (2.6, 1.5, 2.0))
    return np.where(y > anatomy.dome + 1, bubble, air)


def _vessels(anatomy: Anatomy, side: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pulmonary vessels, which leave the hilum in eight directions and become thinner outwards."""
    rng = np.random.default_rng([anatomy.texture, side + 1])
    hilum = (side * 2.8, anatomy.dome - 0.47 * anatomy.lung_height)
    blood = ellipsoid(x, y, hilum, (1.5, 2.4, 1.2))
    for angle in (np.linspace(-1.25, 1.45, 8) + rng.normal(0, 0.1, 8)).tolist():
        start, bearing, length, radius = hilum, angle, rng.uniform(3.5, 5.5), rng.uniform(0.32, 0.5)
        for _ in range(3):
            end = (start[0] + length * side * math.cos(bearing), start[1] + length * math.sin(bearing))
            rows, columns = around(x, y, start, end, 2 * radius)
            stem = tube(x[rows, columns], y[rows, columns], start, end, radius)
            blood[rows, columns] = np.maximum(blood[rows, columns], 1.6 * stem)
            start, bearing = end, bearing + rng.normal(0, 0.35)
            length, radius = 0.75 * length, 0.62 * radius
    return blood


def _skeleton(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spine, ribs, clavicles and shoulder blades."""
    bone = _spine(anatomy, x, y)
    for rib in range(11):
        bone += _rib_pair(anatomy, rib, x, y)
    top = anatomy.dome - anatomy.lung_height
    for side in (-1, 1):
        joints = [(1.6, 3.6), (5.0, 2.6), (9.5, 1.9), (14.5, 1.2 - anatomy.clavicle_tilt)]
        points = [(side * u, top + v) for u, v in joints]
        bone += np.maximum.reduce([1.5 * shell(x, y, a, b, 0.62) for a, b in pairwise(points)])
        blade = ellipsoid(x, y, (side * 13.4, top + 8.0), (3.1, 6.6, 0.3), -side * math.radians(8))
        bone += np.minimum(blade, 0.45)
        bone += 0.35 * ellipsoid(x, y, (side * 17.6, top + 3.6), (2.1, 2.3, 2.1))  # head of the humerus
    return bone


def _rib_pair(anatomy: Anatomy, rib: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pair of ribs as a tilted ring around the chest.

    On the film, the upper half of the ring is the posterior ribs, the lower half the anterior ribs. At the chest wall
    the ring runs along the beam, so the path through it is long.
    """
    top = anatomy.dome - anatomy.lung_height
    half_drop = 2.4 + 0.22 * rib
    middle = top + 0.4 + rib * anatomy.rib_spacing + half_drop
    # A little wider than the lung at this level.
    above = np.clip((top + 0.75 * anatomy.lung_height - middle) / (0.75 * anatomy.lung_height), 0, 0.97)
    a = APEX_AXIS + 0.35 + anatomy.lung_width * (1 - above**2.2) ** (1 / 2.2)
    c = 0.42 * anatomy.depth
    rows, columns = around(x, y, (-a, middle - half_drop), (a, middle + half_drop + 2), 1.5)
    u, v = np.abs(x[rows, columns]), y[rows, columns] - middle
    v = v - 0.06 * u + 0.35
    # A superellipse, |u/a|^1.5 + |v/b|^1.5 = 1, because ribs are straighter than an ellipse.
    root_u, root_v = np.sqrt(u / a), np.sqrt(np.abs(v) / half_drop)
    rho = root_u**3 + root_v**3 + 1e-6
    distance = (rho - 1) / (1.5 * np.hypot(root_u / a, root_v / half_drop) + 1e-6)
    sine = np.minimum(u / a, 1)
    cosine = np.sqrt(1 - sine**2)
    across = (a * cosine) ** 2 + (half_drop * sine) ** 2
    stretch = np.sqrt(1 + (c * sine) ** 2 / np.maximum(across, 1e-6))
    height = np.where(v < 0, 0.6, 0.7)
    wall = chord(distance, height) - 0.5 * chord(distance, 0.7 * height)
    seen = np.where(v < 0, np.clip((u - 1.5) / 0.6, 0, 1), 0.75 * np.clip((u / a - 0.6) / 0.08, 0, 1))
    bone = np.zeros_like(x)
    bone[rows, columns] = 0.8 * wall * np.minimum(stretch, 1.8) * seen
    return bone


def _spine(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral bodies with discs between them, and spinous processes in the middle."""
    bone = np.zeros_like(x)
    rows, columns = around(x, y, (-2.5, -30.0), (2.5, 30.0), 0.0)
    u, v = x[rows, columns], y[rows, columns]
    half = 1.5 + 0.02 * (v + 15)
    phase = (v / (1.08 * anatomy.rib_spacing)) % 1.0
    body = np.sqrt(np.clip(1 - (u / half) ** 4, 0, 1)) * np.where(phase < 0.8, 1.1, 0.6)
    spinous = ellipsoid(u, (phase - 0.4) * 1.8, (0.0, 0.0), (0.35, 0.6, 0.5))
    bone[rows, columns] = body + spinous
    return bone


def _trunk(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Neck, shoulders, chest and upper abdomen as a stack of ellipses, with the breasts."""
    top = anatomy.dome - anatomy.lung_height
    levels = top + np.array([-6.0, -2.5, -0.5, 2.0, 7.0, 13.0, 30.0])
    wide = APEX_AXIS + anatomy.lung_width
    widths = np.interp(y, levels, [6.2, 7.0, 12.0, wide + 6, wide + 6, wide + 2.6, wide + 2.2])
    depths = np.interp(y, levels, np.array([0.55, 0.55, 0.66, 0.8, 0.92, 1.0, 1.0]) * anatomy.depth)
    trunk = (depths * np.sqrt(np.clip(1 - np.abs(x / widths) ** 2.6, 0, 1))).astype(x.dtype)
    for side in (-1, 1):
        size = (5.2, 5.6, 0.5 * anatomy.breast)
        trunk = trunk + ellipsoid(x, y, (side * 8.2, top + 15.5), size)
    return trunk
