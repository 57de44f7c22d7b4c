"""Steps, learning rate and teacher momentum: the paper's values and closed forms, worked out by hand."""

from dataclasses import replace
from math import cos, pi

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.recipe import Optimizer, Recipe
from c2l_models.training.recipe_files import load_recipe
from c2l_models.training.schedule import Schedule


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(1, 0.03), (120, 0.03), (121, 0.003), (160, 0.003), (161, 3e-4), (200, 3e-4), (201, 3e-5), (240, 3e-5)],
)
def test_learning_rate_steps(epoch, rate):
    """Epochs are counted from 1, as in the paper: epoch 121 is the first at the lower rate."""
    for name in ("paper-resnet18", "paper-densenet121"):
        schedule = Schedule(load_recipe(name), images=7 * 256 + 200)
        assert (schedule.steps_per_epoch, schedule.total_steps) == (7, 7 * 240)
        for step in (7 * epoch - 7, 7 * epoch - 1):
            assert schedule.learning_rate(step) == pytest.approx(rate, rel=1e-12)


def test_a_milestone_may_lie_within_an_epoch():
    recipe = replace(Recipe("fraction"), batch_size=256, optimizer=Optimizer(lr=1.0, lr_milestones=(1, 1.75)))
    schedule = Schedule(recipe, images=4 * 256)
    assert [schedule.learning_rate(step) for step in (3, 4, 6, 7)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("batch_size", "rate"), [(256, 0.03), (128, 0.015), (64, 0.0075), (1024, 0.12)])
def test_learning_rate_scales_with_the_batch(batch_size, rate):
    schedule = Schedule(replace(Recipe("scaled"), batch_size=batch_size), images=2000)
    assert schedule.learning_rate(0) == pytest.approx(rate)


def cosine(**changes: object) -> Schedule:
    """Ten epochs of ten steps, with a peak of 0.1 per step."""
    optimizer = Optimizer(**{"lr": 0.4, "schedule": "cosine", **changes})
    return Schedule(replace(Recipe("cosine"), batch_size=64, epochs=10, optimizer=optimizer), images=10 * 64 + 63)


def test_cosine():
    schedule = cosine(final_lr=0.04)
    for step, rate in {0: 0.1, 25: 0.01 + 0.09 * (1 + cos(pi / 4)) / 2, 50: 0.055, 100: 0.01}.items():
        assert schedule.learning_rate(step) == pytest.approx(rate, rel=1e-12)
    rates = [schedule.learning_rate(step) for step in range(100)]
    assert rates == sorted(rates, reverse=True)


def test_warmup_rises_in_equal_parts_and_the_rest_is_a_whole_cosine():
    schedule = cosine(warmup=0.05)
    assert schedule.warmup_steps == 5
    rates = [schedule.learning_rate(step) for step in range(101)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1], rel=1e-12)
    assert rates[5] == pytest.approx(0.1, rel=1e-12)
    assert rates[5 + 19] == pytest.approx(0.1 * (1 + cos(pi / 5)) / 2, rel=1e-12)
    assert rates[100] == pytest.approx(0, abs=1e-15)


def test_warmup_with_milestones():
    schedule = cosine(schedule="steps", warmup=0.1, lr_milestones=(5,))
    assert [schedule.learning_rate(step) for step in (0, 9, 10, 49, 50, 99)] == pytest.approx(
        [0.01, 0.1, 0.1, 0.1, 0.01, 0.01], rel=1e-12
    )


def test_teacher_momentum():
    recipe = replace(Recipe("momentum"), batch_size=64, epochs=10, teacher_momentum=0.99)
    constant, rising = (Schedule(replace(recipe, teacher_momentum_final=final), images=640) for final in (0.0, 0.999))
    assert {constant.teacher_momentum(step) for step in range(100)} == {0.99}
    for step, momentum in {0: 0.99, 50: 0.9945, 75: 0.999 - 0.009 * (1 - cos(pi / 4)) / 2, 100: 0.999}.items():
        assert rising.teacher_momentum(step) == pytest.approx(momentum, rel=1e-12)


def test_phases_of_the_views_sizes():
    recipe = replace(
        Recipe("phases"), batch_size=64, steps=10, size=96, early_sizes=(32, 64), early_shares=(0.35, 0.25)
    )
    schedule = Schedule(recipe, images=640)
    assert schedule.phases() == [(0, 32), (4, 64), (6, 96)]  # 3.5 and 6 of 10 steps
    assert [schedule.size(step) for step in range(10)] == [32] * 4 + [64] * 2 + [96] * 4
    assert {Schedule(replace(Recipe("one"), batch_size=64), images=640).size(step) for step in (0, 9)} == {224}


def test_steps_replace_epochs():
    recipe = replace(Recipe("counted"), batch_size=64, epochs=10)
    assert Schedule(recipe, images=640).total_steps == 100
    assert Schedule(replace(recipe, steps=33), images=640).total_steps == 33


def test_images_that_fill_no_batch():
    with pytest.raises(DatasetError, match="expected at least one batch of 256 images to train on, found 255"):
        Schedule(Recipe("few"), images=255)
