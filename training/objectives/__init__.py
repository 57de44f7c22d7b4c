"""Pretraining methods: one file each, and one line each in `METHODS`.

This module imports neither torch nor a method, so reading a recipe is quick. A method's file is imported by `build`.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..constraints import check

if TYPE_CHECKING:
    import torch

    from ..distributed import World
    from ..recipe import Recipe
    from .method import Method


@dataclass(frozen=True)
class MethodEntry:
    """Where a method's class is, and which keys of a recipe it reads.

    Attributes:
        path: "module.Class" in this package.
        sections: tables of a recipe that only this method reads.
        has_teacher: the method has a teacher, which can be exported.
        has_queue: the method has a memory queue, of `queue_length` features.
        takes_draws: the views' augmentation can be drawn once, before the loop (`views = "once"`).
    """

    path: str
    sections: tuple[str, ...] = ()
    has_teacher: bool = False
    has_queue: bool = False
    takes_draws: bool = False


METHODS: dict[str, MethodEntry] = {
    "c2l": MethodEntry("c2l.C2L", sections=("objective",), has_teacher=True, has_queue=True, takes_draws=True),
    "moco": MethodEntry("moco.MoCo", has_teacher=True, has_queue=True, takes_draws=True),
    "model_genesis": MethodEntry("model_genesis.ModelGenesis", sections=("restoration",)),
}
"""Each method by its name in a recipe."""


def build(recipe: "Recipe", world: "World | None" = None, generator: "torch.Generator | None" = None) -> "Method":
    """Make the networks and the state of a recipe's method.

    C2L with a key of `[objective]` that departs from the paper is a `Variant`.

    Args:
        recipe: names the method and its settings.
        world: the processes of the job; by default this one alone.
        generator: on the CPU, for the memory queue's initial features.
    """
    path = METHODS[recipe.method].path
    if recipe.method == "c2l" and recipe.objective != type(recipe.objective)():
        path = "variants.Variant"
    from ..distributed import ALONE

    module, _, name = path.rpartition(".")
    kind: Any = getattr(import_module(f".{module}", __name__), name)
    method: Method = kind(recipe, generator, world or ALONE)
    return method


def check_method(recipe: "Recipe") -> None:
    """Check the keys of a recipe that only some methods read. Raises RecipeError."""
    check(recipe.method in METHODS, recipe, "method", f"one of {', '.join(METHODS)}")
    entry = METHODS[recipe.method]
    for name, section in ((name, section) for name, other in METHODS.items() for section in other.sections):
        values = getattr(recipe, section)
        expected = f"{name}, because a key of [{section}] is set"
        check(section in entry.sections or values == type(values)(), recipe, "method", expected)
    expected = f"each_step, because {recipe.method} draws its views at each step"
    check(entry.takes_draws or recipe.views == "each_step", recipe, "views", expected)
    expected = f"student, because {recipe.method} has no teacher"
    check(entry.has_teacher or recipe.exported == "student", recipe, "exported", expected)
    enough = recipe.queue_length >= 3 * recipe.batch_size
    check(enough or not entry.has_queue, recipe, "queue_length", "at least 3 * batch_size")
