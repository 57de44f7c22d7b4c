"""Where a release came from: the JSON file beside its weight file, written with it."""

import json
from typing import Any

from ..errors import WeightsCorrupted, WeightsNotFound
from .record import Weights


def read_provenance(weights: Weights, key: str | None = None) -> Any:
    """A release's provenance, a table, or what it holds under `key`.

    Raises `WeightsNotFound` where there is no provenance or no such key, `WeightsCorrupted` where it is no table.
    """
    path = weights.provenance_path()
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise damaged(weights, "a JSON table") from None
    if not isinstance(provenance, dict):
        raise damaged(weights, "a JSON table")
    if provenance.get("sha256", weights.sha256) != weights.sha256:
        raise damaged(weights, f"that of the weights with sha256 {weights.sha256}")
    if key is None:
        return provenance
    if key not in provenance:
        raise WeightsNotFound(f"{path}: no {key} of {weights.name}. {_AGAIN}")
    return provenance[key]


def damaged(weights: Weights, wanted: str) -> WeightsCorrupted:
    """The error for a provenance that does not hold what it should."""
    return WeightsCorrupted(f"{weights.provenance_path()}: damaged, wanted {wanted}. {_AGAIN}")


_AGAIN = "It is written with the release: install the package again"
