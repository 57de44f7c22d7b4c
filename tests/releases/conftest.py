"""A random network and its weight file."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from weight_config import CONFIG

from c2l_models.releases.record import save_weights


@pytest.fixture(scope="module")
def state_dict() -> dict[str, Tensor]:
    """The state dict of a random backbone with one input channel."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0, in_chans=1, zero_init_last=False).state_dict()


@pytest.fixture(scope="module")
def file(state_dict: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, state_dict, CONFIG)
    return path
