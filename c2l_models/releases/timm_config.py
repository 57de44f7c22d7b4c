"""timm's description of a release's weights, `pretrained_cfg`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..architectures import find_architecture
from .record import Weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch import Tensor


def pretrained_config(weights: Weights) -> dict[str, Any]:
    """The release's `pretrained_cfg`. If one of these keys is missing, timm adapts channels or heads wrongly."""
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


def config_with_tensors(weights: Weights, tensors: "Mapping[str, Tensor]") -> "PretrainedCfg":
    """The release's `pretrained_cfg` with its tensors, for `timm.create_model(pretrained_cfg=...)`. Imports timm."""
    from timm.models import PretrainedCfg

    class SharedConfig(PretrainedCfg):
        """A `PretrainedCfg` whose `to_dict` shares the state dict: timm's own copies every tensor."""

        def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
            values = {field.name: getattr(self, field.name) for field in fields(self)}
            state_dict = values.pop("state_dict")
            return PretrainedCfg(**values).to_dict(remove_source, remove_null) | {"state_dict": state_dict}

    return SharedConfig(**pretrained_config(weights), state_dict=dict(tensors))
