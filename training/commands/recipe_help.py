"""The settings that `c2l pretrain RECIPE --help` shows: those that people change. `--help-all` shows all."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

from tyro.conf import Suppress

from ..recipe import Recipe

COMMON: Mapping[str, Any] = {
    **dict.fromkeys(("architecture", "initialization", "sources", "size", "batch_size", "epochs")),
    **dict.fromkeys(("seed", "temperature", "queue_length", "precision", "compile")),
    "optimizer": {"lr": None},
}
"""Settings of a recipe; those of a section are in its own mapping."""


def common_settings(recipe: Recipe) -> Recipe:
    """The same recipe, of a subclass that hides the other settings from tyro's help."""
    shown: Recipe = _hiding(recipe, COMMON)
    return shown


def _hiding(settings: Any, shown: Mapping[str, Any]) -> Any:
    kind = type(settings)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}
    values |= {name: _hiding(values[name], section) for name, section in shown.items() if section}
    hints = get_type_hints(kind, include_extras=True)
    hints |= {name: type(values[name]) for name, section in shown.items() if section}
    hints |= {name: Annotated[hints[name], Suppress] for name in values.keys() - shown}
    changed = [(name, hints[name], dataclasses.field(default=value)) for name, value in values.items()]
    return dataclasses.make_dataclass(kind.__name__, changed, bases=(kind,), frozen=True)(**values)
