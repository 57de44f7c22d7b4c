"""The 14 observations of CheXpert and MIMIC-CXR-JPG: 1 present, 0 absent, -1 uncertain, blank not mentioned."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from c2l_models.errors import DatasetError

from .record import label_names

NAMES = label_names("chexpert")
VALUES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0}


def observations(row: Mapping[str, str], table: Path, line: int) -> Mapping[str, float]:
    """The observations that a row mentions, in their fixed order; of blank ones there is none.

    Equal rows share one mapping: a quarter of a million of them would not be light. Uncertain stays -1, for
    whoever trains on it to choose. Raises DatasetError for any other value.
    """
    try:
        return _mentioned(tuple(row[name] for name in NAMES))
    except KeyError:
        raise DatasetError(
            f"{table}, line {line}: an observation is none of 1, 0, -1 and blank; fetch the file again"
        ) from None


@cache
def _mentioned(fields: tuple[str, ...]) -> Mapping[str, float]:
    return {name: VALUES[field] for name, field in zip(NAMES, fields, strict=True) if field}
