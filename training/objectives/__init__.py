"""One readable file a method; `build` picks the one that a recipe asks for."""

import torch

from ..distributed import ALONE, World
from ..recipe import Objective, Recipe
from .c2l import C2L
from .variants import Variant

__all__ = ["build"]


def build(recipe: Recipe, world: World = ALONE, generator: torch.Generator | None = None) -> C2L:
    """The method, or a variant of it where the recipe departs from the method; arguments as of `C2L`."""
    kind = C2L if recipe.objective == Objective() else Variant
    return kind(recipe, generator, world)
