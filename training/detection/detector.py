"""torchvision's RetinaNet with one class, on an initialization's network."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from c2l_models.errors import C2LError

from ..initialization import Initialization

ARCHITECTURES = ("resnet18",)
LAYERS = ("layer2", "layer3", "layer4")
"""Layers whose feature maps (1/8, 1/16 and 1/32 of the image's side) enter the feature pyramid as P3 to P5. torchvision
adds P6 and P7."""
CHANNELS = 256
GROUPS = 32
"""Groups of the head's group norm."""
OPACITY = 0
"""Label of the only class. torchvision's `num_classes` counts a background, but its sigmoid head has one output for
each label from 0 to `num_classes` - 1. With one class, label 0, an output for the background would learn nothing."""


def build_detector(
    init: Initialization, size: int, seed: int = 0, head: Literal["plain", "group_norm"] = "plain"
) -> RetinaNet:
    """Build a detector on an initialization's network, which is used in place; the seed draws all other layers.

    In training mode the detector takes images, a list of float [1, size, size] in [0, 1], and targets, and returns
    losses. In evaluation mode it takes images and returns boxes and scores. All parameters and batch norm are trained
    for every initialization: a random network needs this, and another rule for pretrained networks would make the
    comparison unfair. A batch of 4 images of 512 pixels has at least 1,024 positions per channel for batch norm.

    `head` is the setting of this name.

    Raises:
        C2LError: the architecture is not supported.
    """
    if init.architecture not in ARCHITECTURES:
        raise C2LError(
            f"detection: expected an architecture among {', '.join(ARCHITECTURES)}, found {init.architecture} "
            f"({init.name}); choose another initialization"
        )
    layers: Any = init.network.feature_info
    widths = {layer["module"]: layer["num_chs"] for layer in layers}
    torch.manual_seed(seed)
    backbone = BackboneWithFPN(
        init.network,
        return_layers={layer: str(i) for i, layer in enumerate(LAYERS)},
        in_channels_list=[widths[layer] for layer in LAYERS],
        out_channels=CHANNELS,
        extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS),
    )
    detector = RetinaNet(
        backbone,
        num_classes=1,
        min_size=size,
        max_size=size,
        image_mean=[init.mean],
        image_std=[init.std],
    )
    if head == "group_norm":  # the two differences of torchvision's retinanet_resnet50_fpn_v2
        anchors = detector.anchor_generator.num_anchors_per_location()[0]
        detector.head = RetinaNetHead(CHANNELS, anchors, num_classes=1, norm_layer=partial(nn.GroupNorm, GROUPS))
        detector.head.regression_head._loss_type = "giou"
    detector.head.register_forward_hook(_as_float32)
    return detector


def _as_float32(head: nn.Module, inputs: Any, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's outputs in float32, also under autocast: bfloat16 would round the boxes' edges to whole pixels."""
    return {name: output.float() for name, output in outputs.items()}
