"""One readable file a method; `build` picks the one that a recipe asks for."""

import torch

from ..distributed import ALONE, World
from ..recipe import Objective, Recipe
from .c2l import C2L
from .contrastive import Contrastive
from .method import Method
from .moco import MoCo
from .model_genesis import ModelGenesis
from .variants import Variant

__all__ = ["Method", "build"]


def build(recipe: Recipe, world: World = ALONE, generator: torch.Generator | None = None) -> Method:
    """The recipe's method, or a variant of C2L where it departs from the method; arguments as of `Contrastive`."""
    if recipe.method == "model_genesis":
        return ModelGenesis(recipe, world)
    kind: type[Contrastive] = C2L if recipe.objective == Objective() else Variant
    if recipe.method == "moco":
        kind = MoCo
    return kind(recipe, generator, world)
