"""Model Genesis' views: each transform against its restatement, and the pixels that must not change."""

from dataclasses import fields, replace

import pytest
import torch
from oracles import corruption as oracle

from c2l_models.training.augment import Geometry, resample
from c2l_models.training.distributed import World
from c2l_models.training.objectives.corruption import (
    Corruption,
    bend,
    corrupt,
    corrupted_and_original,
    draw_blocks,
    draw_corruption,
    draw_windows,
    last_window,
    paint,
    shuffle,
)
from c2l_models.training.recipe import Recipe, Restoration

RECIPE = Recipe("restored", method="model_genesis", size=40, restoration=Restoration(shuffle_windows=60))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(count, side=48):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=seeded(9))


def restored(**changes):
    return replace(RECIPE, restoration=replace(RECIPE.restoration, **changes))


def tensors(drawn):
    for field in fields(drawn):
        value = getattr(drawn, field.name)
        yield from tensors(value) if isinstance(value, Geometry) else (value,)


def yes(count):
    return torch.ones(count, dtype=torch.bool)


@pytest.mark.parametrize("size", [9, 10, 31])
def test_shuffling_against_a_loop(size):
    images = torch.rand(6, 1, size, size, generator=seeded())
    before = images.clone()
    restoration = Restoration(shuffle_windows=12, shuffle_side=0.4)
    windows = draw_windows(torch.arange(6) < 5, restoration, size, seeded(1))
    keys = torch.randint(2**31, (6, size**2), generator=seeded(2))
    shuffled = shuffle(images, windows, keys, int(0.4 * size))
    for i in range(6):
        expected = oracle.shuffle(images[i, 0].tolist(), windows[i].tolist(), keys[i].tolist())
        assert shuffled[i, 0].tolist() == expected
    assert torch.equal(images, before)
    assert torch.equal(shuffled[5], images[5])
    assert not torch.equal(shuffled[0], images[0])


def test_a_windows_pixels_stay_in_it_and_no_other_moves():
    images = torch.rand(40, 1, 20, 20, generator=seeded())
    windows = draw_windows(yes(40), Restoration(shuffle_windows=1, shuffle_side=0.4), 20, seeded(1))
    keys = torch.randint(2**31, (40, 400), generator=seeded(2))
    shuffled = shuffle(images, windows, keys, 8)
    for image, moved, (top, left, height, width) in zip(images, shuffled, windows[:, 0].tolist(), strict=True):
        window = (0, slice(top, top + height), slice(left, left + width))
        assert torch.equal(image[window].flatten().sort().values, moved[window].flatten().sort().values)
        moved[window] = image[window]
        assert torch.equal(moved, image)


def test_every_order_of_a_window_is_as_likely():
    """Three pixels have six orders."""
    count = 6000
    images = torch.arange(9.0).view(1, 1, 3, 3).expand(count, -1, -1, -1)
    windows = torch.tensor([[[1, 0, 1, 3]]]).expand(count, -1, -1)
    shuffled = shuffle(images, windows, torch.randint(2**31, (count, 9), generator=seeded()), 3)
    orders, found = shuffled[:, 0, 1].unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert (found - count / 6).abs().max() < 4 * (count / 6) ** 0.5


def test_windows():
    windows = draw_windows(yes(2000), Restoration(shuffle_windows=5), 64, seeded())
    corner, sides = windows[..., :2], windows[..., 2:]
    assert (sides.min(), sides.max()) == (1, 6)  # a tenth of 64
    assert corner.min() == 0
    assert (corner + sides).max() == 64
    assert draw_windows(yes(3), Restoration(), 9, seeded())[..., 2:].max() == 1  # a tenth of 9 is less than a pixel
    assert draw_windows(~yes(3), Restoration(), 64, seeded())[..., 2:].max() == 1


@pytest.mark.parametrize(("size", "times"), [(64, 1.8), (224, 1.6)])
def test_how_much_windows_cover(size, times):
    windows = draw_windows(yes(16), Restoration(), size, seeded())
    assert windows[..., 2:].prod(dim=-1).sum(dim=1).float().mean() / size**2 == pytest.approx(times, abs=0.05)
    covered = last_window(windows, size, size // 10) > 0
    assert covered.float().mean() == pytest.approx(1 - 2.71828**-times, abs=0.05)


@pytest.mark.parametrize("falls", [False, True])
def test_curves_against_the_formula(falls):
    points = torch.rand(30, 2, 2, generator=seeded())
    images = torch.rand(30, 1, 3, 3, generator=seeded(1))
    bent = bend(images, points, torch.full((30,), falls))
    for image, result, (first, second) in zip(images.flatten(1), bent.flatten(1), points.tolist(), strict=True):
        expected = [oracle.curve(x, first, second, falls) for x in image.tolist()]
        torch.testing.assert_close(result, torch.tensor(expected), rtol=0, atol=1e-4)


def test_curves_that_one_knows():
    x = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    line = torch.tensor([[[1 / 3, 1 / 3], [2 / 3, 2 / 3]]])
    torch.testing.assert_close(bend(x, line, torch.tensor([False])), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(bend(x, line, torch.tensor([True])), 1 - x, rtol=0, atol=1e-6)
    root = torch.tensor([[[0.0, 1 / 3], [1 / 3, 2 / 3]]])  # x = t², y = t
    torch.testing.assert_close(bend(x, root, torch.tensor([False])), x.sqrt(), rtol=0, atol=1e-3)


def test_curves_are_monotone_at_every_corner_of_the_square():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(16, 2, 2)
    ramp = torch.linspace(0, 1, 400).view(1, 1, 20, 20).expand(16, -1, -1, -1)
    for falls, sign in ((False, 1), (True, -1)):
        bent = bend(ramp, corners, torch.full((16,), falls)).flatten(1)
        assert (bent.min(), bent.max()) == (0, 1)
        assert (sign * bent.diff(dim=1)).min() >= -1e-6


@pytest.mark.parametrize("outside", [False, True])
def test_painting_against_a_loop(outside):
    images, noise = torch.rand(2, 8, 1, 31, 31, generator=seeded())
    out = torch.full((8,), outside)
    blocks = draw_blocks(torch.arange(8) < 6, out, Restoration(), 31, seeded(1))
    painted = paint(images, blocks, out, noise)
    for i in range(8):
        expected = oracle.paint(images[i, 0].tolist(), blocks[i].tolist(), outside, noise[i, 0].tolist())
        assert painted[i, 0].tolist() == expected
    changed = painted != images
    assert not outside or changed[6:].all()
    assert outside or not changed[6:].any()


def test_blocks():
    count, size = 20_000, 64
    paints, outside = torch.arange(count) >= count // 4, torch.arange(count) >= count // 2
    blocks = draw_blocks(paints, outside, Restoration(), size, seeded())
    there = blocks[..., 2] > 0
    assert not there[~paints].any()
    assert not there.int().diff(dim=1).gt(0).any()  # no block follows an unused one
    share = there.float().mean(dim=0)
    within, around = there[paints & ~outside].float().mean(dim=0), there[outside].float().mean(dim=0)
    assert share.diff().max() < 0
    torch.testing.assert_close(within, 0.95 ** torch.arange(1.0, 6), rtol=0, atol=0.02)
    torch.testing.assert_close(around, 0.95 ** torch.arange(0.0, 5), rtol=0, atol=0.02)
    assert (around[0], within[0] < 1) == (1, True)
    for chosen, shortest, longest in ((paints & ~outside, 10, 21), (outside, 27, 36)):
        rectangles = blocks[chosen][there[chosen]]
        assert rectangles[:, 2:].amin(dim=0).tolist() == [shortest] * 2
        assert rectangles[:, 2:].amax(dim=0).tolist() == [longest] * 2
        assert rectangles[:, :2].amin(dim=0).tolist() == [0, 0]
        assert (rectangles[:, :2] + rectangles[:, 2:]).amax(dim=0).tolist() == [size, size]


def test_probabilities():
    count, small = 4000, replace(restored(shuffle_windows=3), size=12)
    drawn = draw_corruption(count, replace(small, restoration=replace(small.restoration, shuffle_side=0.5)), seeded())
    painted = drawn.outside | (drawn.blocks[:, 0, 2] > 0)
    shuffles = (drawn.windows[..., 2:] > 1).any(dim=2).any(dim=1)
    for found, expected in (
        (drawn.bends, 0.9),
        (drawn.falls, 0.5),
        (drawn.outside, 0.9 * 0.8),
        (painted, 0.9 * (0.8 + 0.2 * 0.95)),
        (shuffles, 0.5),
    ):
        assert found.float().mean() == pytest.approx(expected, abs=0.03)


def test_the_order_is_shuffle_bend_paint():
    drawn = draw_corruption(8, RECIPE, seeded())
    image = resample(make_images(8) / 255, drawn.geometry, 40)
    shuffled = shuffle(image, drawn.windows, drawn.keys, 4)
    bent = torch.where(drawn.bends.view(8, 1, 1, 1), bend(shuffled, drawn.points, drawn.falls), shuffled)
    expected = paint(bent, drawn.blocks, drawn.outside, drawn.noise)
    assert torch.equal(corrupt(image, drawn, RECIPE.restoration), expected)
    corrupted, original = corrupted_and_original(make_images(8), RECIPE, seeded())
    assert torch.equal(original, image)
    assert torch.equal(corrupted, (expected - RECIPE.mean) / RECIPE.std)
    assert 0 <= original.min() < original.max() <= 1


def test_nothing_drawn_leaves_the_view():
    recipe = restored(shuffle=0.0, bend=0.0, paint=0.0)
    corrupted, original = corrupted_and_original(make_images(4), recipe, seeded())
    assert torch.equal(corrupted, (original - recipe.mean) / recipe.std)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_views_do_not_depend_on_the_number_of_processes(size):
    batch = make_images(8)
    original = corrupted_and_original(batch, RECIPE, seeded())
    share, states = 8 // size, []
    for rank in range(size):
        own, generator = slice(rank * share, (rank + 1) * share), seeded()
        views = corrupted_and_original(batch[own], RECIPE, generator, World(rank, size))
        states.append(generator.get_state())
        for view, expected in zip(views, original, strict=True):
            assert torch.equal(view, expected[own])
    assert all(torch.equal(state, states[0]) for state in states)


def test_fixed_draws_are_applied_and_nothing_is_drawn():
    store, rows, generator = make_images(12), torch.tensor([7, 2, 11, 2]), seeded(1)
    fixed = draw_corruption(12, RECIPE, seeded())
    original = corrupted_and_original(store, RECIPE, seeded())
    views = corrupted_and_original(store[rows], RECIPE, generator, World(1, 2), fixed[rows])
    assert torch.equal(generator.get_state(), seeded(1).get_state())
    for view, expected in zip(views, original, strict=True):
        assert torch.equal(view, expected[rows])


def test_draws_have_a_row_an_image_and_follow_from_the_generator():
    one, same, other = (list(tensors(draw_corruption(6, RECIPE, seeded(seed)))) for seed in (0, 0, 1))
    assert all(len(values) == 6 for values in one)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[-1], other[-1])


def test_no_value_is_read_back_from_the_device():
    """A meta tensor has no values to read or to mask with, so code that works on it does not wait for a GPU."""
    drawn = draw_corruption(4, RECIPE, seeded())
    geometry, *own = (getattr(drawn, field.name) for field in fields(Corruption))
    shell = Geometry(*(values.to("meta") for values in tensors(geometry)))
    on_meta = Corruption(shell, *(values.to("meta") for values in own))
    corrupted, original = corrupted_and_original(
        torch.empty(4, 1, 48, 48, dtype=torch.uint8, device="meta"), RECIPE, seeded(), fixed=on_meta
    )
    assert corrupted.shape == original.shape == (4, 1, 40, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for():
    batch, generator = make_images(8).cuda(), torch.Generator("cuda").manual_seed(0)
    corrupted_and_original(batch, RECIPE, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        corrupted_and_original(batch, RECIPE, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
