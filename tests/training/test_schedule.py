"""The learning rate of an epoch: the values of the paper, worked out by hand."""

from dataclasses import replace

import pytest

from c2l_models.training.recipe import Recipe
from c2l_models.training.recipe_files import load_recipe
from c2l_models.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(1, 0.03), (120, 0.03), (121, 0.003), (160, 0.003), (161, 3e-4), (200, 3e-4), (201, 3e-5), (240, 3e-5)],
)
def test_learning_rate_steps(epoch, rate):
    """Epochs are counted from 1, as in the paper: epoch 121 is the first at the lower rate."""
    for name in ("paper-resnet18", "paper-densenet121"):
        assert learning_rate(load_recipe(name), epoch - 1) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("batch_size", "rate"), [(256, 0.03), (128, 0.015), (64, 0.0075), (1024, 0.12)])
def test_learning_rate_scales_with_the_batch(batch_size, rate):
    assert learning_rate(replace(Recipe("scaled"), batch_size=batch_size), 0) == pytest.approx(rate)
