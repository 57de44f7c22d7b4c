"""Read recipes from TOML files: `base` names another recipe, and a file holds only the keys that differ from it."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from c2l_models.errors import RecipeError

from .recipe import SECTIONS, Recipe

RECIPES = Path(__file__).parent / "recipes"
OWN_KEYS = ("name", "description", "table")
"""Keys that describe one recipe. A base does not pass them on."""


def list_recipes() -> list[str]:
    """The names of the recipes in `recipes/`."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by its name, or from a TOML file, with the values of its bases and the defaults.

    Raises:
        RecipeError: no such recipe or base, a circular base, an unknown key, or a value of the wrong type or outside
            its range.
    """
    path = _find(name_or_path)
    try:
        return from_dict(_read(path) | {"name": path.stem})
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def recipe_keys(name_or_path: str | Path) -> dict[str, Any]:
    """The keys that a recipe's file and its bases set, without defaults. Raises RecipeError as `load_recipe`."""
    return _read(_find(name_or_path))


def from_dict(values: dict[str, Any]) -> Recipe:
    """Make a recipe from the result of `Recipe.to_dict`. Raises RecipeError as `load_recipe`."""
    values = dict(values)
    for key, section in SECTIONS.items():
        if key in values:
            values[key] = _build(section, values[key], key)
    recipe: Recipe = _build(Recipe, values, "the recipe")
    return recipe


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two tables: values of `over` replace those in `values`, and inner tables are merged key by key.

    The arguments are not changed.
    """
    result = {key: merged(value, {}) if isinstance(value, Mapping) else value for key, value in values.items()}
    for key, value in over.items():
        below = result.get(key)
        result[key] = (
            merged(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return result


def recipe_table() -> Table:
    """A table of all recipes in `recipes/`: name, table and row of the paper, description."""
    table = Table("recipe", "paper", "description", box=None, pad_edge=False)
    for recipe in map(load_recipe, list_recipes()):
        table.add_row(recipe.name, recipe.table, recipe.description)
    return table


def _find(name_or_path: str | Path, folder: Path | None = None) -> Path:
    """The file of a recipe. `folder` is where a relative path begins."""
    path = (folder or Path()) / name_or_path
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        raise RecipeError(
            f"no recipe {str(name_or_path)!r}: expected a .toml file or one of {', '.join(list_recipes())}"
        )
    return path


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's keys, merged over the keys of its bases.

    `derived`: the chain of files that leads to this base, to detect a circle.
    """
    if path.resolve() in derived:
        chain = " -> ".join(file.stem for file in (*derived, path))
        raise RecipeError(f"base: expected no circle of recipes, found the circle {chain}; change one base")
    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: expected UTF-8, found another encoding ({error}); save the file as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    if "base" not in keys:
        return keys
    if not isinstance(base := keys.pop("base"), str):
        raise RecipeError(f"base: expected the name of a recipe or a .toml file, found {base!r}; change this setting")
    try:
        file = _find(base, path.parent)
    except RecipeError as error:
        raise RecipeError(f"base of {path.stem}: {error}") from error
    inherited = _read(file, (*derived, path.resolve()))
    return merged({key: value for key, value in inherited.items() if key not in OWN_KEYS}, keys)


def _build(kind: Any, values: Any, where: str) -> Any:
    """Make a dataclass from a TOML table; lists become tuples.

    Raises:
        RecipeError: `values` is not a table, or a key is unknown or missing.
    """
    fields = dataclasses.fields(kind)
    names = ", ".join(field.name for field in fields)
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a table with keys among {names}, found {values!r}")
    if missing := [field.name for field in fields if _is_required(field) and field.name not in values]:
        raise RecipeError(f"{where} has no {', '.join(missing)}; add it")
    if unknown := sorted(set(values) - {field.name for field in fields}):
        raise RecipeError(f"unknown key {', '.join(unknown)} in {where}; expected keys among {names}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
