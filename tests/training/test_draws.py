"""Random numbers of views are drawn first: for a job's whole batch, for some rows, or once for a run."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from oracles import augment as oracle
from scipy import stats

from c2l_models.training import augment
from c2l_models.training.augment import apply, draw_tiles, draw_two, draw_view, two_views
from c2l_models.training.distributed import World
from c2l_models.training.recipe import Augment, Recipe

RECIPE = Recipe("draws", size=40, augment=Augment(jigsaw=0.5))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(count, side=48):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=seeded(9))


def tensors(drawn):
    """Every tensor of a draw, in order."""
    for field in fields(drawn):
        value = getattr(drawn, field.name)
        yield from tensors(value) if is_dataclass(value) else (value,)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_views_do_not_depend_on_the_number_of_processes(size):
    batch = make_images(8)
    whole = two_views(batch, RECIPE, seeded())
    share = 8 // size
    for rank in range(size):
        own = slice(rank * share, (rank + 1) * share)
        views = two_views(batch[own], RECIPE, seeded(), World(rank, size))
        for view, expected in zip(views, whole, strict=True):
            assert torch.equal(view, expected[own])


def test_processes_leave_the_generator_in_the_same_state():
    states = []
    for rank in range(2):
        generator = seeded()
        two_views(make_images(4), RECIPE, generator, World(rank, 2))
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_fixed_draws_are_applied_and_nothing_is_drawn():
    store, rows = make_images(12), torch.tensor([7, 2, 11, 2])
    fixed = draw_two(12, RECIPE, seeded())
    whole = two_views(store, RECIPE, seeded(), fixed=fixed)
    generator = seeded(1)
    views = two_views(store[rows], RECIPE, generator, World(1, 2), fixed[rows])
    assert torch.equal(generator.get_state(), seeded(1).get_state())
    for view, expected in zip(views, whole, strict=True):
        assert torch.equal(view, expected[rows])
    assert torch.equal(whole[0], two_views(store, RECIPE, seeded())[0])  # drawing and applying in one call is the same


def test_rows_of_a_draw():
    drawn = draw_view(6, RECIPE, seeded())
    for rows in (torch.tensor([4, 0, 4]), slice(2, 5)):
        for own, all_of_them in zip(tensors(drawn[rows]), tensors(drawn), strict=True):
            assert torch.equal(own, all_of_them[rows])
    assert all(len(values) == 6 for values in tensors(drawn))


def test_the_two_views_are_drawn_apart():
    drawn = draw_two(6, RECIPE, seeded())
    for one, other in zip(tensors(drawn.first), tensors(drawn.second), strict=True):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("size", [9, 10, 11, 24])
def test_jigsaw_against_a_loop(size):
    images = torch.rand(20, 1, size, size, generator=seeded())
    before = images.clone()
    tiles = draw_tiles(20, 0.7, seeded(2))
    moved = augment.jigsaw(images, tiles)
    for i in range(20):
        assert moved[i, 0].tolist() == oracle.jigsaw(images[i, 0].tolist(), tiles[i].tolist())
    assert torch.equal(images, before)
    assert not torch.equal(moved, images)


def test_orders_of_tiles():
    count = 9_000
    tiles = draw_tiles(count, 0.5, seeded())
    assert torch.equal(tiles.sort(dim=1).values, torch.arange(9).expand(count, 9))
    moved = (tiles != torch.arange(9)).any(dim=1)
    assert abs(moved.float().mean() - 0.5) < 4 * 0.5 / count**0.5
    for place in range(9):  # apart from unchanged orders, each tile is equally likely in each place
        assert stats.chisquare(tiles[moved][:, place].bincount(minlength=9)).pvalue > 1e-3
    assert torch.equal(draw_tiles(5, 0.0, seeded()), torch.arange(9).expand(5, 9))


def test_jigsaw_comes_before_cutout_and_only_where_asked_for():
    batch = torch.rand(6, 1, 48, 48, generator=seeded())
    drawn = draw_view(6, replace(RECIPE, augment=Augment(jigsaw=1.0)), seeded())
    plain = replace(RECIPE, augment=Augment())
    no_holes = apply(batch, drawn, replace(plain, augment=Augment(cutout_side=0.0)))
    side = round(Augment().cutout_side * 40)
    expected = augment.cutout(augment.jigsaw(no_holes, drawn.tiles), drawn.holes, side)
    assert torch.equal(apply(batch, drawn, RECIPE), expected)
    assert torch.equal(apply(batch, drawn, plain), augment.cutout(no_holes, drawn.holes, side))


def test_no_value_is_read_back_from_the_device():
    """A meta tensor has no values to read or to mask with, so code that works on it does not wait for a GPU."""
    drawn = draw_view(4, RECIPE, seeded())
    shell = [values.to("meta") for values in tensors(drawn)]
    on_meta = replace(drawn, geometry=augment.Geometry(*shell[:4]), **dict(zip(NAMES, shell[4:], strict=True)))
    view = apply(torch.empty(4, 1, 48, 48, device="meta"), on_meta, RECIPE)
    assert view.shape == (4, 1, 40, 40)
    with pytest.raises((RuntimeError, NotImplementedError)):
        view.sum().item()


NAMES = [field.name for field in fields(augment.Draw) if field.name != "geometry"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for():
    batch, generator = make_images(8).cuda(), torch.Generator("cuda").manual_seed(0)
    two_views(batch, RECIPE, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        two_views(batch, RECIPE, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
