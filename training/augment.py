"""Two augmented views of a batch, drawn image by image, computed on the batch's own device (Algorithm 1, line 1).

The list is the released code's: random resized crop, rotation, colour jitter, horizontal flip, normalisation,
cutout. On one grey channel its random grayscale and its hue and saturation jitter change nothing (the tests show
it), so they are not here. Crop, rotation and flip are one affine map and one bilinear resampling; film from outside
the crop therefore shows in the corners that crop-then-rotate would leave black. Bilinear resampling does not smooth
before it shrinks: keep a store's side within twice the view's, or fine detail aliases.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .recipe import Augment, Recipe


@dataclass(frozen=True)
class Geometry:
    """How each of B images is cropped, turned and mirrored.

    Attributes:
        centre: [B, 2] crop centre (x, y) in the image's [-1, 1] coordinates.
        half_side: [B, 2] half the crop's width and height in the same coordinates.
        angle: [B] rotation of the crop about its centre, radians, counter-clockwise as seen.
        flip: [B] bool, mirrored left to right after the rotation.
    """

    centre: Tensor
    half_side: Tensor
    angle: Tensor
    flip: Tensor


def two_views(batch: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw X_1^A and X_2^A (Algorithm 1, line 1).

    Args:
        batch: uint8 [B, 1, S, S].
        recipe: gives the output size, the normalisation and the augmentation's ranges.
        generator: on the batch's device; the only source of randomness.

    Returns:
        Two float32 tensors [B, 1, size, size], normalised; cutout's holes are 0, the mean.
    """
    image = batch.float() / 255
    return _view(image, recipe, generator), _view(image, recipe, generator)


def clean_view(batch: Tensor, size: int, mean: float, std: float) -> Tensor:
    """The unaugmented view that probes, batch-norm recalibration and users see.

    uint8 [B, 1, S, S] -> float32 [B, 1, size, size]: the whole image, resized with antialiasing, normalised.
    """
    image = batch.float() / 255
    if image.shape[-1] != size:
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (image - mean) / std


def _view(image: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    augment = recipe.augment
    view = resample(image, draw_geometry(len(image), augment, generator), recipe.size)
    view = jitter(view, augment, generator)
    view = (view - recipe.mean) / recipe.std
    return cutout(view, augment, generator)


def draw_geometry(batch_size: int, augment: Augment, generator: torch.Generator) -> Geometry:
    """Draw crop, rotation and flip for each image of a square-image batch.

    Crop: area U(crop_scale) of the image, aspect ratio log-uniform in crop_ratio. A side longer than the image is
    shortened to it (torchvision redraws up to ten times, then falls back to a centre crop).
    """
    uniform = _Uniform(batch_size, generator)
    area = uniform(*augment.crop_scale)
    ratio = uniform(math.log(augment.crop_ratio[0]), math.log(augment.crop_ratio[1])).exp()
    half_side = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
    where = torch.stack([uniform(-1, 1), uniform(-1, 1)], dim=1)
    angle = uniform(-augment.rotation, augment.rotation) * (math.pi / 180)
    return Geometry((1 - half_side) * where, half_side, angle, uniform(0, 1) < augment.flip)


def resample(image: Tensor, geometry: Geometry, size: int) -> Tensor:
    """Crop, rotate and flip in one bilinear resampling: float [B, 1, S, S] -> [B, 1, size, size].

    An output point p is looked up at centre + half_side * R(angle) F p, with F the flip: the inverse of crop, then
    rotate, then flip. What lies outside the film is 0 (black).
    """
    cos, sin = geometry.angle.cos(), geometry.angle.sin()
    mirror = torch.where(geometry.flip, -1.0, 1.0)
    turn = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=1).view(-1, 2, 2)
    affine = torch.cat([geometry.half_side[:, :, None] * turn, geometry.centre[:, :, None]], dim=2)
    grid = functional.affine_grid(affine, [len(image), 1, size, size], align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1)
    view = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return view * inside  # zero padding would also darken the film's own last row of pixels


def jitter(image: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Brightness and contrast, each by its own factor, in a random order an image; [0, 1] float [B, 1, H, W]."""
    uniform = _Uniform(len(image), generator)
    by_brightness = _per_image(uniform(1 - augment.brightness, 1 + augment.brightness))
    by_contrast = _per_image(uniform(1 - augment.contrast, 1 + augment.contrast))
    brightness_first = _per_image(uniform(0, 1) < 0.5)
    one = contrast(brightness(image, by_brightness), by_contrast)
    other = brightness(contrast(image, by_contrast), by_brightness)
    return torch.where(brightness_first, one, other)


def brightness(image: Tensor, factor: Tensor) -> Tensor:
    """Scale [0, 1] intensities by a factor [B, 1, 1, 1], clamped."""
    return (image * factor).clamp(0, 1)


def contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Stretch [0, 1] intensities about each image's mean by a factor [B, 1, 1, 1], clamped."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return ((image - mean) * factor + mean).clamp(0, 1)


def cutout(image: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Zero square holes [B, 1, H, W]; centres are uniform over the image, holes are cut off at its border.

    A hole covers the pixels from centre - side // 2 (inclusive) to centre - side // 2 + side (exclusive).
    """
    size = image.shape[-1]
    side = round(augment.cutout_side * size)
    pixel = torch.arange(size, device=image.device)
    keep = torch.ones_like(image, dtype=torch.bool)
    for _ in range(augment.cutout_holes):
        first = torch.randint(size, (2, len(image), 1), generator=generator, device=image.device) - side // 2
        inside = (pixel >= first) & (pixel < first + side)  # [2, B, size]: rows, columns
        keep &= ~(inside[0, :, None, :, None] & inside[1, :, None, None, :])
    return image * keep


class _Uniform:
    """Draws [B] numbers uniformly in [low, high) on the generator's device."""

    def __init__(self, batch_size: int, generator: torch.Generator) -> None:
        self.batch_size, self.generator = batch_size, generator

    def __call__(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self.batch_size, generator=self.generator, device=self.generator.device)
        return low + (high - low) * drawn


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
