"""torchvision's RetinaNet, of one class, on the network that a start gives."""

from typing import Any

import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from c2l_models.errors import C2LError

from ..initialization import Initialization

ARCHITECTURES = ("resnet18",)
LAYERS = ("layer2", "layer3", "layer4")
"""Their maps, of 1/8, 1/16 and 1/32 of the film's side, go into the feature pyramid (P3 to P5; P6 and P7 above)."""
CHANNELS = 256
OPACITY = 0
"""The class. torchvision counts a background in `num_classes`, but gives its sigmoid head one output for each of
`num_classes` labels from 0 up: of one class, label 0, an output for a background would learn nothing."""


def build_detector(start: Initialization, size: int, seed: int = 0) -> RetinaNet:
    """A detector whose body is the start's own network, and whose other layers are drawn by the seed.

    In training mode it takes films, a list of float [1, size, size] in [0, 1], and targets, and gives losses; in
    evaluation mode, boxes and scores. Every parameter is trained, and so is batch norm, for every start alike: a
    random network's has to be, and a rule of its own for pretrained ones would make the comparison one of rules. A
    batch of 4 films of 512 pixels gives batch norm 1,024 positions or more a channel.

    Raises:
        C2LError: an architecture that detection is not made for.
    """
    if start.architecture not in ARCHITECTURES:
        raise C2LError(f"{start.name} is a {start.architecture}; detection wants one of: {', '.join(ARCHITECTURES)}")
    layers: Any = start.network.feature_info
    widths = {layer["module"]: layer["num_chs"] for layer in layers}
    torch.manual_seed(seed)
    backbone = BackboneWithFPN(
        start.network,
        return_layers={layer: str(i) for i, layer in enumerate(LAYERS)},
        in_channels_list=[widths[layer] for layer in LAYERS],
        out_channels=CHANNELS,
        extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS),
    )
    return RetinaNet(
        backbone,
        num_classes=1,
        min_size=size,
        max_size=size,
        image_mean=[start.mean],
        image_std=[start.std],
    )
