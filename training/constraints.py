"""Dataclasses from TOML tables, strictly: unknown keys, wrong types and values out of range are refused by name."""

import dataclasses
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from c2l_models.errors import RecipeError

# What a value may be, beside its type; for pairs, each of the two.
_POSITIVE = {
    *("size", "std", "batch_size", "epochs", "feature_dim", "temperature", "queue_length", "mixup_alpha"),
    *("mixup_blocks", "batch_norm_group", "crop_scale", "crop_ratio", "lr_decay"),
    *("log_every", "checkpoint_every", "keep_checkpoints"),
    *("shuffle_windows", "blocks"),
}
_NOT_NEGATIVE = {"seed", "probe_every", "rotation", "cutout_holes", "lr", "weight_decay", "lr_milestones"}
_SHARE = {
    *("crop_scale", "brightness", "contrast", "flip", "jigsaw", "cutout_side"),
    *("teacher_momentum", "momentum", "hold_out", "projection_dropout"),
    *("shuffle", "shuffle_side", "bend", "paint", "paint_inside", "another_block", "inside_side", "outside_side"),
}
_ASCENDING = {"crop_scale", "crop_ratio", "inside_side", "outside_side"}


def build(kind: Any, values: Any, where: str) -> Any:
    """A dataclass from a table: lists become tuples.

    Raises:
        RecipeError: `values` is no table, or a key is unknown or missing.
    """
    names = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(values, dict):
        raise RecipeError(f"{where} = {values!r}; wanted a table of {', '.join(names)}")
    if missing := [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in values]:
        raise RecipeError(f"{where} has no {', '.join(missing)}")
    if unknown := sorted(set(values) - set(names)):
        raise RecipeError(f"unknown key {', '.join(unknown)} in {where}; there are {', '.join(names)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def check_values(part: Any) -> None:
    """Raise RecipeError for a value of the wrong type or outside its range."""
    for key, hint in get_type_hints(type(part)).items():
        value = getattr(part, key)
        check(_fits(value, hint), part, key, getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint))
        numbers = value if isinstance(value, tuple) else (value,)
        check(key not in _POSITIVE or min(numbers) > 0, part, key, "above 0")
        check(key not in _NOT_NEGATIVE or min(numbers, default=0) >= 0, part, key, "0 or above")
        check(key not in _SHARE or 0 <= min(numbers) <= max(numbers) <= 1, part, key, "in [0, 1]")
        check(key not in _ASCENDING or numbers[0] <= numbers[1], part, key, "the lower one first")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; a float may be written as an int, and has to be finite."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return value in arguments
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def check(holds: bool, part: Any, key: str, wanted: str) -> None:
    """Raise RecipeError where a key's value is not what is wanted."""
    if not holds:
        raise RecipeError(f"{key} = {getattr(part, key)!r}; wanted {wanted}")
