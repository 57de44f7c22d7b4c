"""Write the provenance of converted weights: origin, conversion, patients, versions, golden embedding."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from .. import __version__
from ..models import create_model
from ..releases.record import Weights
from ..verification import golden_embedding

PATIENTS_UNKNOWN: Literal["unknown"] = "unknown"

LIBRARIES = ("torch", "timm", "safetensors")
"""Libraries whose versions are recorded, beside this package's own."""


def provenance(
    path: Path, origin: str, conversion: Mapping[str, Any], patients: Literal["unknown", "none"]
) -> dict[str, Any]:
    """Return the provenance of a converted weight file, a JSON-serialisable table.

    Args:
        path: the written weight file.
        origin: where the source file comes from and under which terms.
        conversion: facts about the conversion: the source file's name and sha256, and what was changed.
        patients: "none" states that no radiograph was trained on, so an evaluation list shares no patient with the
            weights. For "unknown" the table has no list of patients, and no evaluation list can be judged.
    """
    weights = Weights.from_file(path)
    none: dict[str, list[str]] = {line.partition(" ")[0]: [] for line in weights.trained_on}
    return {
        "release": weights.name,
        "sha256": weights.sha256,
        "origin": origin,
        "conversion": dict(conversion),
        "trained_on": list(weights.trained_on),
        "python": platform.python_version(),
        "versions": {"c2l-models": __version__, **{name: version(name) for name in LIBRARIES}},
        **({"patients": none} if patients == "none" else {}),
        "golden_embedding": golden_embedding(create_model(weights.architecture, weights=weights), weights),
    }
