"""Check that an earlier run had the same settings, before its files are resumed or reused."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from c2l_models.errors import RunError

from ..recipe import Recipe
from ..store.image_store import ImageStore

FREE_TO_CHANGE = frozenset(
    {
        *("description", "table", "recalibrate", "exported"),
        *("log_every", "checkpoint_minutes", "checkpoint_every", "keep_checkpoints", "probe_every"),
    }
)
"""Keys of a recipe that may change when a pretraining run resumes, because no step's result depends on them."""

FREE_TO_ROUNDING = frozenset({"compile", "gradient_checkpointing"})
"""Keys that may change too, for another GPU or compiler: they change only how a step's sums are rounded."""


def check_same_settings(
    folder: Path,
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    free: Collection[str] = (),
    advice: str = "Restore these settings to resume that run, or choose another folder for a new one",
) -> None:
    """Raise RunError if an earlier run in `folder` had other settings; the message names each key that differs.

    Args:
        folder: the earlier run's folder, for the message.
        earlier: the settings that the earlier run began with. Nested tables are compared key by key; a missing key
            counts as None.
        now: the settings of the present run.
        free: keys that may differ, as `flatten` writes them.
        advice: the message's last sentence, an instruction to the user.
    """
    earlier, now = flatten(earlier), flatten(now)
    keys = sorted(key for key in {*earlier, *now} - set(free) if earlier.get(key) != now.get(key))
    if keys:
        listed = "; ".join(f"{key}: began with {earlier.get(key)!r}, now {now.get(key)!r}" for key in keys)
        raise RunError(f"{folder} holds another run. These settings differ: {listed}. {advice}")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables: {"optimizer": {"lr": 1}} -> {"optimizer.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def pretraining_identity(recipe: Recipe, store: ImageStore, device: torch.device) -> dict[str, Any]:
    """Recipe, images and kind of device of a pretraining run. Each checkpoint holds these keys."""
    images = {"store_sha256": store.sha256, "store_size": store.size}
    return {"recipe": recipe.to_dict(), **images, "device": device.type}


def check_same_pretraining(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError unless a pretraining run may resume: same recipe, same images, same kind of device.

    Args:
        folder: the run's folder.
        earlier: the checkpoint's state, which holds the identity. Its other keys, such as the weights, are ignored.
        now: the identity of the present run.
    """
    began = _recipe_on_top({key: earlier.get(key) for key in now})
    check_same_settings(folder, began, _recipe_on_top(now), free=FREE_TO_CHANGE | FREE_TO_ROUNDING)


def _recipe_on_top(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Move the recipe's keys to the top level: "temperature" instead of "recipe.temperature"."""
    return {key: value for key, value in identity.items() if key != "recipe"} | dict(identity["recipe"])
