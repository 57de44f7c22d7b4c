"""The adapter of each data set in `datasets.toml`: the function `records` of the module with the data set's name."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from .constants import constants
from .record import Record

ADAPTERS: Mapping[str, Callable[[Path], list[Record]]] = {
    name: import_module(f"{__package__}.{name}").records for name in constants()["datasets"]
}
