"""Readouts: the features of a network, from its last feature map or from the last three."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import C2LError

if TYPE_CHECKING:
    from torch import Tensor

Readout = Literal["pooled", "multiscale"]
"""How features are read: the last feature map, averaged; or the last three, averaged and concatenated."""
SCALES = 3
"""Number of feature maps of "multiscale": strides 8, 16 and 32."""


def feature_width(network: Any, readout: Readout) -> int:
    """Number D of features per image; 0 for a model that does not state it."""
    if readout == "multiscale":
        return sum(stage["num_chs"] for stage in network.feature_info[-SCALES:])
    # timm states the width after the head's hidden layers; older versions, without a pool that concatenates.
    maps = int(getattr(network, "num_features", 0))
    width = int(getattr(network, "head_hidden_size", 0) or maps)
    times = getattr(getattr(network, "global_pool", None), "feat_mult", None)
    return width * int(times()) if times and width == maps else width


def compute_features(network: Any, inputs: "Tensor", readout: Readout) -> np.ndarray:
    """Pooled features before any head, float32 [B, D]."""
    if readout == "multiscale":
        if not hasattr(network, "forward_intermediates"):
            raise C2LError(
                f"expected a timm model with forward_intermediates for multiscale features, found a "
                f"{type(network).__name__}; use features='pooled', or, with a DenseNet, timm 1.0.31"
            )
        import torch

        maps = network.forward_intermediates(inputs, indices=SCALES, intermediates_only=True)
        return torch.cat([one.mean((2, 3)) for one in maps], dim=1).float().cpu().numpy()
    if hasattr(network, "forward_head"):
        outputs = network.forward_head(network.forward_features(inputs), pre_logits=True)
    else:
        outputs = network(inputs)
    if getattr(outputs, "ndim", 0) != 2:
        raise C2LError(
            "expected a model with one feature vector per image, found another output; "
            "leave out features_only and global_pool=''"
        )
    return outputs.float().cpu().numpy()
