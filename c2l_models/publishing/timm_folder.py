"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads, and hubs hold."""

import json
import os
from pathlib import Path
from typing import Any

from ..architectures import find_architecture
from ..files import write_atomically
from ..hub import weight_file as hub
from ..releases.registry import Weights


def pretrained_config(weights: Weights) -> dict[str, Any]:
    """What timm calls `pretrained_cfg`. Without one of these keys it adapts channels or heads wrongly."""
    architecture = find_architecture(weights.architecture)
    side = weights.input_size[-1]
    return {
        "architecture": weights.architecture,
        "tag": weights.tag,
        "input_size": weights.input_size,
        "fixed_input_size": False,
        "interpolation": weights.interpolation,
        "crop_pct": weights.crop_pct,
        "crop_mode": "center",
        "mean": weights.mean,
        "std": weights.std,
        "num_classes": 0,
        "pool_size": (-(-side // 32), -(-side // 32)),
        "first_conv": architecture.first_conv,
        "classifier": architecture.classifier,
        "license": weights.license,
    }


def write_timm_folder(weights: Weights, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` into `folder`, which is made where it is not there.

    The weight file is the release's own, byte for byte, so its sha256 stays. Needs timm >= 1.0.16
    to be loaded; `c2l_models.create_model(..., weights=folder)` loads it too. Returns the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": weights.architecture,
        "num_classes": 0,
        "num_features": find_architecture(weights.architecture).num_features,
        "pretrained_cfg": pretrained_config(weights),
    }
    write_atomically(folder / hub.FILE_NAME, weights.read().data)
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return folder
