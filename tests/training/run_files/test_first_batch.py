"""The picture of the first batch shows the networks' inputs, and no name of a file or patient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from c2l_models.training import mixup
from c2l_models.training.augment import draw_two, two_views
from c2l_models.training.distributed import ALONE, World
from c2l_models.training.objectives import build, momentum_teacher
from c2l_models.training.recipe import Objective, Recipe
from c2l_models.training.run_files.first_batch import GAP, LINE, MARGIN, TILE, draw_first_batch, first_batch_columns

RECIPE = Recipe("seen", size=16, batch_size=6, batch_norm_group=3, queue_length=19, feature_dim=5, mean=0.4, std=0.3)


class Small(nn.Module):
    """A linear layer in place of backbone and projection."""

    def __init__(self, architecture, feature_dim, *projection):
        super().__init__()
        self.layer = nn.Linear(256, feature_dim)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.fixture
def method(monkeypatch):
    monkeypatch.setattr(momentum_teacher, "Encoder", Small)
    return lambda world=ALONE, **objective: build(replace(RECIPE, objective=Objective(**objective)), world)


def seeded():
    return torch.Generator().manual_seed(4)


def make_images():
    return torch.randint(0, 256, (6, 1, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def given(network, method, draws):
    """A step's inputs of one network, as intensities."""
    seen = []
    hook = getattr(method, network).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator = seeded()
    method(*two_views(make_images(), RECIPE, generator, fixed=draws), generator)
    hook.remove()
    return (torch.cat(seen) * RECIPE.std + RECIPE.mean).clamp(0, 1)


CASES = [
    ({}, ["film", "view 1", "view 2", "film mixed in", "mixed view 1", "mixed view 2"]),
    (
        {"mixup": "separate", "mixup_lambda": "max"},
        ["film", "view 1", "view 2", "film mixed in", "mixed view 1", "film mixed in", "mixed view 2"],
    ),
    ({"terms": ("clean",)}, ["film", "view 1", "view 2"]),
    ({"terms": ("clean", "feature")}, ["film", "view 1", "view 2", "film mixed in", "mixed view 1"]),
]


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(("objective", "titles"), CASES)
def test_it_shows_what_the_step_gives_to_its_networks(method, objective, titles, once):
    model = method(**objective)
    draws = draw_two(6, RECIPE, torch.Generator().manual_seed(8)) if once else None
    columns = first_batch_columns(make_images(), model, seeded(), draws, count=4)
    assert [column.title for column in columns] == titles
    torch.testing.assert_close(columns[0].images, make_images()[:4] / 255)
    for column in columns:
        if "view" in column.title:
            inputs = given(column.subtitle.rpartition(" ")[2], model, draws)
            for image in column.images:
                assert (inputs - image).abs().amax(dim=(1, 2, 3)).min() < 1e-6
    student = given("student", model, draws)
    torch.testing.assert_close(columns[1].images, student[:4])


def test_captions_say_which_films_are_mixed_and_how_much(method):
    generator = seeded()
    two_views(make_images(), RECIPE, generator)
    m = mixup.draw(6, 1.0, generator)
    _, _, _, partners, mixed, other = first_batch_columns(make_images(), method(), seeded(), count=3)
    for row in range(3):
        partner = int(m.permutation[row])
        assert partners.captions[row] == f"film {partner + 1}"
        torch.testing.assert_close(partners.images[row], make_images()[partner] / 255)
        share = float(m.lam)
        assert mixed.captions[row] == f"{share:.2f} of {row + 1} + {1 - share:.2f} of {partner + 1}"
    assert other.captions == mixed.captions


def test_a_processs_own_part(method):
    """Images and partners are numbered within the process's own part of the batch."""
    model = method(World(1, 2))
    columns = first_batch_columns(make_images(), model, seeded(), count=6)
    m = model.draw_mix(6, _after_views(World(1, 2)))
    expected = [f"film {partner - 6 + 1}" for partner in m.permutation[6:].tolist()]
    assert columns[3].captions == expected


def _after_views(world):
    generator = seeded()
    two_views(make_images(), RECIPE, generator, world)
    return generator


def test_the_picture(method, tmp_path):
    path = draw_first_batch(tmp_path / "first.png", make_images(), method(), seeded(), count=4)
    sheet = Image.open(path)
    assert sheet.info == {}
    columns = first_batch_columns(make_images(), method(), seeded(), count=4)
    assert sheet.width == 2 * MARGIN + 6 * TILE + 5 * GAP
    first = sheet.height - MARGIN - 4 * (TILE + LINE + GAP) + GAP
    for i, column in enumerate(columns):
        for row, image in enumerate(column.images):
            left, top = MARGIN + i * (TILE + GAP), first + row * (TILE + LINE + GAP)
            shown = sheet.convert("L").crop((left, top, left + TILE, top + TILE)).resize((16, 16), Image.Resampling.BOX)
            expected = Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()).resize(shown.size)
            assert np.corrcoef(np.ravel(shown), np.ravel(expected))[0, 1] > 0.9


def test_a_batch_smaller_than_the_picture(method, tmp_path):
    small, large = (
        Image.open(draw_first_batch(tmp_path / f"{count}.png", make_images(), method(), seeded(), count=count))
        for count in (6, 50)
    )
    assert small.size == large.size
