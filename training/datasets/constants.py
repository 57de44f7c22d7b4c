"""Constants of the data sets, from `datasets.toml`."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from c2l_models.errors import DatasetError


@cache
def constants() -> dict[str, Any]:
    """The parsed `datasets.toml`: view codes, split names, and a table per data set."""
    return tomllib.loads(Path(__file__).with_name("datasets.toml").read_text(encoding="utf-8"))


PUBLIC = frozenset(name for name, entry in constants()["datasets"].items() if entry["public_patient_ids"])
"""Data sets whose patient ids are public."""

NUMBERED_PATHS = frozenset(name for name, entry in constants()["datasets"].items() if entry["private_numbers_in_paths"])
"""Data sets whose file paths contain patient numbers that are not public. No message or store may show these paths."""


def label_names(dataset: str) -> tuple[str, ...]:
    """The labels of a data set in their fixed order; empty for `folder`, whose labels are columns of the user's table.

    Raises DatasetError for an unknown data set.
    """
    datasets = constants()["datasets"]
    if dataset not in datasets:
        raise DatasetError(f"unknown data set {dataset!r}; choose from {', '.join(datasets)}")
    names = datasets[dataset]["labels"]
    return label_names(names) if isinstance(names, str) else tuple(names)
