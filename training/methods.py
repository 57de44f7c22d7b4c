"""The pretraining methods, one line per method, with the recipe keys that only some methods read.

The classes are in `objectives/`. This module imports none of them, and no torch, so reading a recipe is quick.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .constraints import check

if TYPE_CHECKING:
    from .recipe import Recipe


@dataclass(frozen=True)
class MethodEntry:
    """The location of a method's class, and the recipe keys that the method accepts.

    Attributes:
        path: "module.Class" in `objectives/`.
        sections: tables of a recipe that only this method reads.
        has_teacher: the method has a teacher, which can be exported.
        has_queue: the method has a memory queue, of `queue_length` features.
        takes_draws: the views' augmentation can be drawn once, before the loop (`views = "once"`).
        has_projection: the method has a projection, which `projection` and `projection_dropout` describe.
    """

    path: str
    sections: tuple[str, ...] = ()
    has_teacher: bool = False
    has_queue: bool = False
    takes_draws: bool = False
    has_projection: bool = True


METHODS: dict[str, MethodEntry] = {
    "c2l": MethodEntry("c2l.C2L", sections=("objective",), has_teacher=True, has_queue=True, takes_draws=True),
    "moco": MethodEntry("moco.MoCo", has_teacher=True, has_queue=True, takes_draws=True),
    "model_genesis": MethodEntry("model_genesis.ModelGenesis", sections=("restoration",), has_projection=False),
    "distillation": MethodEntry(
        "distillation.Distillation", sections=("distillation",), takes_draws=True, has_projection=False
    ),
}
"""Each method by its name in a recipe."""


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
    for key, usual in (("projection", "linear"), ("projection_dropout", 0)):
        expected = f"{usual}, because {recipe.method} has no projection"
        check(entry.has_projection or getattr(recipe, key) == usual, recipe, key, expected)
    enough = recipe.queue_length >= 3 * recipe.batch_size
    check(enough or not entry.has_queue, recipe, "queue_length", "at least 3 * batch_size")
