"""The 14 observations of CheXpert and MIMIC-CXR-JPG: 1 present, 0 absent, -1 uncertain, blank not mentioned."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from c2l_models.errors import DatasetError

from .constants import label_names

NAMES = label_names("chexpert")
VALUES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0}


def observations(row: Mapping[str, str], table: Path, line: int) -> Mapping[str, float]:
    """The observations that a row mentions, in their fixed order; blank ones are left out.

    Equal rows share one mapping, because CheXpert has a quarter of a million rows. Uncertain stays -1: the training
    code decides how to use it. Raises DatasetError for any other value.
    """
    try:
        return _mentioned(tuple(row[name] for name in NAMES))
    except KeyError:
        raise DatasetError(
            f"{table}, line {line}: expected each observation to be 1, 0, -1 or blank, found another value; "
            "download the file again"
        ) from None


@cache
def _mentioned(fields: tuple[str, ...]) -> Mapping[str, float]:
    return {name: VALUES[field] for name, field in zip(NAMES, fields, strict=True) if field}
