"""The augmentation against torchvision's functional transforms, plain loops, and the expected distributions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import augment as oracle
from scipy import stats
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as tv

from c2l_models.training import augment
from c2l_models.training.augment import Geometry, clean_view, draw_geometry, draw_view, resample, two_views
from c2l_models.training.recipe import Augment, Recipe
from c2l_models.training.recipe_files import from_dict

STILL = Augment(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    rotation=0.0,
    brightness=0.0,
    contrast=0.0,
    flip=0.0,
    cutout_holes=0,
)
"""An augmentation that changes nothing."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count=1, side=128, seed=0):
    """Images without fine detail or symmetry: slow waves, float [B, 1, S, S] in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    images = []
    for _ in range(count):
        wave = sum(
            rng.uniform(0.3, 1) * np.sin(2 * np.pi * (rng.uniform(-1.5, 1.5) * x + rng.uniform(-1.5, 1.5) * y) + phase)
            for phase in rng.uniform(0, 6, 4)
        )
        images.append((wave - wave.min()) / (wave.max() - wave.min()))
    return torch.tensor(np.stack(images), dtype=torch.float32).unsqueeze(1)


def pixels(images):
    return (images * 255).round().to(torch.uint8)


def by_torchvision(image, top, left, height, width, degrees, flip, size):
    """Crop, then rotate, then flip, one image [1, S, S]."""
    view = tv.resized_crop(image, top, left, height, width, [size, size], v2.InterpolationMode.BILINEAR, antialias=True)
    view = tv.rotate(view, degrees, v2.InterpolationMode.BILINEAR)
    return tv.horizontal_flip(view) if flip else view


def geometry_of(top, left, height, width, degrees, flip, side):
    """The same crop as `Geometry`: pixel edges 0 to S are coordinates -1 to 1."""
    centre = [(2 * left + width) / side - 1, (2 * top + height) / side - 1]
    return Geometry(
        torch.tensor([centre]),
        torch.tensor([[width / side, height / side]]),
        torch.tensor([math.radians(degrees)]),
        torch.tensor([flip]),
    )


CROPS = [
    (0, 0, 128, 128, 0.0, False),
    (0, 0, 128, 128, 10.0, False),
    (0, 0, 128, 128, -10.0, True),
    (20, 7, 90, 60, 0.0, False),
    (20, 7, 90, 60, 8.0, False),
    (5, 50, 60, 75, -6.5, True),
    (64, 64, 64, 64, 0.0, True),
]


@pytest.mark.parametrize("crop", CROPS, ids=str)
@pytest.mark.parametrize("size", [128, 96])
def test_geometry_against_torchvision(crop, size):
    image = smooth()
    view = resample(image, geometry_of(*crop, side=128), size)
    expected = by_torchvision(image[0], *crop, size=size)[None]
    inside = slice(size // 6, -(size // 6))  # the corners differ by design
    difference = (view - expected)[..., inside, inside].abs()
    assert difference.max() < 0.01
    assert difference.mean() < 0.002


def test_a_wrong_sign_would_be_seen():
    """The tolerance above is sharp: a wrong direction of rotation or flip is off by a hundred times as much."""
    image, inside = smooth(), slice(21, -21)
    for crop, wrong in ((CROPS[4], (20, 7, 90, 60, -8.0, False)), (CROPS[6], (64, 64, 64, 64, 0.0, False))):
        view = resample(image, geometry_of(*wrong, side=128), 128)
        expected = by_torchvision(image[0], *crop, size=128)[None]
        assert (view - expected)[..., inside, inside].abs().max() > 0.05


def test_no_change_gives_the_film_itself():
    image = torch.rand(2, 1, 16, 16, generator=seeded())
    torch.testing.assert_close(resample(image, draw_geometry(2, STILL, seeded()), 16), image, rtol=0, atol=1e-5)


def test_corners_show_film_where_it_reaches_and_black_beyond():
    white = torch.ones(1, 1, 64, 64)
    turned = geometry_of(16, 16, 32, 32, 10.0, False, side=64)
    assert resample(white, turned, 32).min() > 0.999  # crop-then-rotate would leave black corners here
    whole = geometry_of(0, 0, 64, 64, 10.0, False, side=64)
    assert resample(white, whole, 64)[0, 0, 0, 0] == 0


def test_each_image_has_its_own_geometry():
    images = smooth(1).expand(4, -1, -1, -1)
    views = resample(images, draw_geometry(4, Augment(), seeded()), 64)
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(views[i], views[j], atol=0.05)


def test_crop_distribution():
    count = 20_000
    drawn = draw_geometry(count, Augment(crop_scale=(0.2, 0.7)), seeded())  # a side is never longer than the image
    width, height = drawn.half_side.double().T
    area, ratio = (width * height).numpy(), (width / height).log().numpy()
    assert stats.kstest(area, stats.uniform(0.2, 0.5).cdf).pvalue > 0.01
    low, high = math.log(3 / 4), math.log(4 / 3)
    assert stats.kstest(ratio, stats.uniform(low, high - low).cdf).pvalue > 0.01
    for axis in (0, 1):  # the crop's position within its range
        where = drawn.centre[:, axis] / (1 - drawn.half_side[:, axis])
        assert stats.kstest(where.numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    degrees = drawn.angle.rad2deg().numpy()
    assert stats.kstest(degrees, stats.uniform(-10, 20).cdf).pvalue > 0.01
    assert abs(drawn.flip.float().mean() - 0.5) < 4 * 0.5 / count**0.5
    assert abs(np.corrcoef(area, degrees)[0, 1]) < 0.03


def torchvisions_crops(count, scale, ratio):
    """Left, top, width and height of torchvision's crops, as shares of the image: float [4, count]."""
    torch.manual_seed(0)
    image = torch.zeros(1, 2000, 2000)
    top, left, height, width = np.array(
        [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)]
    ).T
    return np.stack([left, top, width, height]) / 2000


def our_crops(count, augment):
    drawn = draw_geometry(count, augment, seeded())
    corner, half_side = (drawn.centre - drawn.half_side + 1) / 2, drawn.half_side
    return torch.cat([corner.T, half_side.T]).double().numpy()


@pytest.mark.parametrize(
    ("scale", "ratio", "fits"),
    [
        ((0.2, 0.7), (3 / 4, 4 / 3), ("clamp", "redraw")),  # no side is too long, so both are torchvision's
        ((0.2, 1.0), (3 / 4, 4 / 3), ("redraw",)),
        ((0.9, 1.0), (1.2, 1.6), ("redraw",)),  # no draw fits: a central crop, as wide as the image
        ((0.9, 1.0), (1 / 2, 0.8), ("redraw",)),
        ((0.85, 1.0), (1 / 2, 2.0), ("redraw",)),  # three in a hundred crops find no draw that fits: the whole image
    ],
)
def test_crops_against_torchvisions(scale, ratio, fits):
    theirs = torchvisions_crops(4000, scale, ratio)
    for fit in fits:
        ours = our_crops(4000, Augment(crop_scale=scale, crop_ratio=ratio, crop_fit=fit))
        for one, other in zip([*theirs, theirs[2] * theirs[3]], [*ours, ours[2] * ours[3]], strict=True):
            assert stats.ks_2samp(one.round(2), other.round(2)).pvalue > 0.01


def test_clamped_crops_are_larger_than_torchvisions():
    area = {fit: np.median(our_crops(20_000, Augment(crop_fit=fit))[2:].prod(axis=0)) for fit in ("clamp", "redraw")}
    theirs = torchvisions_crops(4000, (0.2, 1.0), (3 / 4, 4 / 3))
    assert area["redraw"] == pytest.approx(0.53, abs=0.01)
    assert area["redraw"] == pytest.approx(np.median(theirs[2] * theirs[3]), abs=0.02)
    assert area["clamp"] == pytest.approx(0.60, abs=0.01)


def test_clamped_crops_are_those_of_earlier_versions():
    """Numbers recorded before the key `crop_fit` existed. An old recipe lacks the key, so its crops are clamped."""
    drawn = draw_geometry(3, from_dict({"name": "old", "augment": {"rotation": 10.0}}).augment, seeded())
    half_sides, centres = [[0.695049, 0.858940], [0.853898, 0.953952]], [[-0.006042, 0.037326], [0.115843, -0.013916]]
    np.testing.assert_allclose(drawn.half_side[:2], half_sides, atol=1e-6)
    np.testing.assert_allclose(drawn.centre[:2], centres, atol=1e-6)


@pytest.mark.parametrize("fit", ["clamp", "redraw"])
def test_crops_lie_inside_the_film(fit):
    drawn = draw_geometry(5000, Augment(crop_fit=fit), seeded(1))
    assert ((drawn.centre.abs() + drawn.half_side) <= 1 + 1e-6).all()
    area = drawn.half_side.prod(dim=1)
    assert area.min() >= 0.15
    assert area.max() <= 1


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_brightness_and_contrast_against_torchvision(factor):
    image = smooth(2)
    factors, ones, first = torch.full((2,), factor), torch.ones(2), torch.ones(2, dtype=torch.bool)
    bright = tv.adjust_brightness(image, factor)
    torch.testing.assert_close(augment.jitter(image, factors, ones, first), bright, rtol=0, atol=1e-6)
    contrast = torch.stack([tv.adjust_contrast(one, factor) for one in image])
    torch.testing.assert_close(augment.jitter(image, ones, factors, first), contrast, rtol=0, atol=1e-6)


def test_jitter_against_torchvision_in_each_images_order():
    images, count = smooth(1).expand(40, -1, -1, -1)[..., ::4, ::4].contiguous(), 40
    drawn = draw_view(count, recipe(), seeded(3))
    jittered = augment.jitter(images, drawn.brightness, drawn.contrast, drawn.brightness_first)
    for i in range(count):
        by_brightness, by_contrast = drawn.brightness[i].item(), drawn.contrast[i].item()
        if drawn.brightness_first[i]:
            expected = tv.adjust_contrast(tv.adjust_brightness(images[i], by_brightness), by_contrast)
        else:
            expected = tv.adjust_brightness(tv.adjust_contrast(images[i], by_contrast), by_brightness)
        torch.testing.assert_close(jittered[i], expected, rtol=0, atol=1e-5)
    other = augment.jitter(images, drawn.brightness, drawn.contrast, ~drawn.brightness_first)
    assert ((other - jittered).abs().amax(dim=(1, 2, 3)) > 0.01).sum() > 10  # the order matters


def test_jitters_distribution():
    count = 20_000
    drawn = draw_view(count, recipe(augment=Augment(brightness=0.3, contrast=0.6)), seeded())
    assert stats.kstest(drawn.brightness.numpy(), stats.uniform(0.7, 0.6).cdf).pvalue > 0.01
    assert stats.kstest(drawn.contrast.numpy(), stats.uniform(0.4, 1.2).cdf).pvalue > 0.01
    assert abs(drawn.brightness_first.float().mean() - 0.5) < 4 * 0.5 / count**0.5
    assert abs(np.corrcoef(drawn.brightness, drawn.contrast)[0, 1]) < 0.03


@pytest.mark.parametrize(("side", "holes", "size"), [(32 / 224, 3, 21), (0.3, 1, 20), (0.25, 5, 17), (0.0, 3, 9)])
def test_cutout_against_a_loop(side, holes, size):
    image = 1 + torch.rand(4, 1, size, size, generator=seeded())
    centres = draw_view(4, Recipe("holes", size=size, augment=Augment(cutout_holes=holes)), seeded(5)).holes
    assert centres.shape == (4, holes, 2)
    out = augment.cutout(image, centres, round(side * size))
    for i in range(4):
        assert out[i, 0].tolist() == oracle.cut_out(image[i, 0].tolist(), centres[i].tolist(), round(side * size))


def test_cutout_at_the_papers_size():
    drawn = draw_view(300, Recipe("paper", augment=Augment(cutout_holes=1)), seeded())
    out = augment.cutout(torch.ones(300, 1, 224, 224), drawn.holes, 32)
    holes = (out == 0).sum(dim=(1, 2, 3))
    assert holes.max() == 32 * 32
    assert holes.min() < 32 * 32  # a hole at the border is cut off
    # Centres are uniform over 224 pixels: the expected share of a hole inside is its mean over centres, squared.
    inside = np.mean([min(224, c + 16) - max(0, c - 16) for c in range(224)]) / 32
    assert holes.double().mean().item() == pytest.approx(32 * 32 * inside**2, rel=0.04)


def test_grayscale_saturation_and_hue_change_nothing_on_grey():
    """torchvision's versions of the omitted transforms change nothing on a grey image converted to RGB."""
    grey = smooth(1)[0].expand(3, -1, -1)
    torch.testing.assert_close(v2.RandomGrayscale(p=1.0)(grey), grey, rtol=0, atol=2e-4)
    torch.manual_seed(0)
    for jitter in (v2.ColorJitter(hue=0.4), v2.ColorJitter(saturation=0.4)):
        for _ in range(5):
            torch.testing.assert_close(jitter(grey), grey, rtol=0, atol=2e-4)
    as_bytes = pixels(smooth(1))[0].expand(3, -1, -1)
    assert torch.equal(v2.RandomGrayscale(p=1.0)(as_bytes)[0], v2.RandomGrayscale(p=1.0)(as_bytes)[2])
    assert (v2.RandomGrayscale(p=1.0)(as_bytes).int() - as_bytes.int()).abs().max() <= 1
    coloured = torch.rand(3, 8, 8, generator=seeded())  # but they change a coloured one
    assert not torch.allclose(v2.ColorJitter(hue=0.4)(coloured), coloured, atol=1e-2)


def recipe(**keys):
    return Recipe("views", size=48, **keys)


def test_two_views():
    batch = pixels(smooth(4))
    one, two = two_views(batch, recipe(), seeded())
    assert one.shape == two.shape == (4, 1, 48, 48)
    assert one.dtype == two.dtype == torch.float32
    for i in range(4):
        assert not torch.allclose(one[i], two[i], atol=0.1)
    same = two_views(batch, recipe(), seeded())
    assert torch.equal(one, same[0])
    assert torch.equal(two, same[1])
    assert not torch.equal(one, two_views(batch, recipe(), seeded(1))[0])


def test_views_draw_from_their_generator_alone():
    before = torch.get_rng_state()
    two_views(pixels(smooth(2)), recipe(), seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_batch_is_left_as_it_was():
    batch = pixels(smooth(2))
    before = batch.clone()
    two_views(batch, recipe(), seeded())
    assert torch.equal(batch, before)


def test_holes_are_exactly_zero_after_normalisation():
    """White image, mean 0.5, std 0.25: every pixel is 2, or 0 in a hole."""
    plain = replace(STILL, cutout_holes=3)
    views = two_views(torch.full((16, 1, 48, 48), 255, dtype=torch.uint8), recipe(augment=plain), seeded())
    for view in views:
        hole = view == 0
        assert 0.01 < hole.float().mean() < 0.1
        torch.testing.assert_close(view[~hole], torch.full_like(view[~hole], 2.0), rtol=0, atol=1e-4)


def test_normalisation_is_the_recipes():
    batch = pixels(smooth(2, side=48))
    view, _ = two_views(batch, recipe(augment=STILL, mean=0.3, std=0.5), seeded())
    torch.testing.assert_close(view, (batch / 255 - 0.3) / 0.5, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [32, 50, 96, 128])
def test_clean_view_against_torchvision(size):
    batch = torch.randint(0, 256, (3, 1, 96, 96), dtype=torch.uint8, generator=seeded())
    expected = tv.resize(batch.float() / 255, [size, size], v2.InterpolationMode.BILINEAR, antialias=True)
    view = clean_view(batch, size, 0.5, 0.25)
    assert view.dtype == torch.float32
    torch.testing.assert_close(view, (expected - 0.5) / 0.25, rtol=0, atol=1e-5)


def test_clean_view_of_the_same_size_is_the_film():
    batch = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8, generator=seeded())
    torch.testing.assert_close(clean_view(batch, 32, 0.5, 0.25), batch / 63.75 - 2)


def test_a_whole_crop_of_a_white_film_is_white_to_its_edge_and_black_beyond():
    white = torch.ones(2, 1, 16, 16)
    whole = Geometry(torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(2), torch.tensor([False, True]))
    torch.testing.assert_close(resample(white, whole, 28), torch.ones(2, 1, 28, 28))
    turned = replace(whole, angle=torch.full((2,), 0.5))
    view = resample(white, turned, 28)
    outside = view == 0
    torch.testing.assert_close(view[~outside], torch.ones(int((~outside).sum())))
    assert outside[:, :, 0, 0].all()
