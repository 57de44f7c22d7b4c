"""Pretraining methods, one file each. `methods.METHODS` lists them; `build` makes the one that a recipe names."""

from importlib import import_module
from typing import Any

import torch

from ..distributed import ALONE, World
from ..methods import METHODS
from ..recipe import Objective, Recipe
from .method import Method


def build(recipe: Recipe, world: World = ALONE, generator: torch.Generator | None = None) -> Method:
    """Make the networks and the state of a recipe's method.

    For C2L with a key of `[objective]` that is not the default, the method is a `Variant`.

    Args:
        recipe: names the method and its settings.
        world: the processes of the job; by default this one alone.
        generator: draws the memory queue's initial features, on the CPU.
    """
    method: Method = class_of(recipe)(recipe, generator, world)
    return method


def class_of(recipe: Recipe) -> Any:
    """The class of a recipe's method, which has the `PANELS` of its plots."""
    path = METHODS[recipe.method].path
    if recipe.method == "c2l" and recipe.objective != Objective():
        path = "variants.Variant"
    module, _, name = path.rpartition(".")
    return getattr(import_module(f".{module}", __name__), name)
