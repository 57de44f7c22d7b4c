"""Write a folder in timm's layout, which `timm.create_model("local-dir:FOLDER", pretrained=True)` and hubs load."""

import json
import os
from pathlib import Path

from ..architectures import find_architecture
from ..files import write_atomically
from ..hub.weight_file import FILE_NAME
from ..releases.record import Weights
from ..releases.timm_config import pretrained_config


def write_timm_folder(weights: Weights, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` into `folder`, which is created if necessary. Returns the folder.

    The weight file is the release's own, byte for byte, so its sha256 does not change. timm >= 1.0.16 and
    `c2l_models.create_model(..., weights=folder)` load the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": weights.architecture,
        "num_classes": 0,
        "num_features": find_architecture(weights.architecture).num_features,
        "pretrained_cfg": pretrained_config(weights),
    }
    write_atomically(folder / FILE_NAME, weights.read().data)
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return folder
