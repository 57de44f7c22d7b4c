"""Read the provenance of a release, a JSON file beside its weight file."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import WeightsCorrupted, WeightsNotFound
from .record import Weights


def read_provenance(weights: Weights, *keys: str) -> dict[str, Any]:
    """Read a release's provenance, which must have these keys.

    Raises `WeightsNotFound` if the file or a key is missing, and `WeightsCorrupted` if the file holds no JSON table or
    belongs to other weights.
    """
    path = weights.provenance_path()
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise damaged(weights, "a JSON table") from None
    if not isinstance(provenance, dict):
        raise damaged(weights, "a JSON table")
    if provenance.get("sha256") != weights.sha256:
        raise damaged(weights, f"the provenance of weights with sha256 {weights.sha256}")
    for key in keys:
        if key not in provenance:
            raise WeightsNotFound(f"{path}: expected {key} of {weights.name}, found no such key. {_REINSTALL}")
    return provenance


def earlier_patients_known(provenance: Mapping[str, Any]) -> bool:
    """Whether the patients of all earlier weights, from which a release was made, are known.

    The facts about earlier weights in its provenance have `patients` null if they are not.
    """

    def known(facts: Mapping[str, Any]) -> bool:
        parts = [value for value in facts.values() if isinstance(value, Mapping)]
        return facts.get("patients", ()) is not None and all(map(known, parts))

    return known({"initialization": provenance.get("initialization", {})})


def damaged(weights: Weights, expected: str) -> WeightsCorrupted:
    """The error for a provenance file with wrong content."""
    return WeightsCorrupted(f"{weights.provenance_path()}: damaged, expected {expected}. {_REINSTALL}")


_REINSTALL = "The file is part of the release: install or copy both again; remove it if it belongs to other weights"
