"""Architectures with releases (`ARCHITECTURES`). Every other architecture of timm works with weights of your own.

To add an architecture, add its entry under its name in timm and torchvision. The following read the table:
`list_models()`, the builder `c2l_models.<name>`, and torch.hub's entry points. A release of the architecture is a
separate step. `create_model(name)`, recipes and weight files take timm's other architectures too.
"""

import difflib
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from .errors import WeightsNotFound


class Architecture(NamedTuple):
    """A network's title and the modules at its ends, whose names are the same in timm and torchvision.

    Attributes:
        title: name for readers.
        first_conv: first convolution; its shape depends on the input channels.
        first_norm: batch norm after the first convolution; "" if it is not known.
        classifier: final linear layer; its shape depends on the classes.
        num_features: width D of the pooled features [B, D].
    """

    title: str
    first_conv: str
    first_norm: str
    classifier: str
    num_features: int


ARCHITECTURES = {
    "densenet121": Architecture("DenseNet-121", "features.conv0", "features.norm0", "classifier", 1024),
    "resnet18": Architecture("ResNet-18", "conv1", "bn1", "fc", 512),
}


def list_models() -> list[str]:
    """The names of the architectures that have releases, or will have one."""
    return sorted(ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """The entry of an architecture. Raises `WeightsNotFound`, which lists the known names.

    timm is imported if the name is not in `ARCHITECTURES`.
    """
    if found := ARCHITECTURES.get(name) or _find_in_timm(name):
        return found
    raise WeightsNotFound(f"no architecture {name!r}{suggest(name, ARCHITECTURES)}, and timm's other architectures")


@cache
def _find_in_timm(name: str) -> Architecture | None:
    """The entry of one of timm's architectures; None if it is unknown.

    Raises WeightsNotFound if it does not have one first convolution and one classifier, or if its first convolution
    standardizes its weights: then one input channel and three equal ones do not give the same features.
    """
    import timm
    import torch
    from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

    if name not in timm.list_models():
        return None
    config: Any = timm.get_pretrained_cfg(name)
    ends = {"first convolution": config.first_conv, "classifier": config.classifier}
    for end, found in ends.items():
        if not isinstance(found, str) or not found:
            raise WeightsNotFound(
                f"expected an architecture with one {end}, found {found or 'none'} in timm's {name}; choose another "
                "architecture"
            )
    with torch.device("meta"):  # shapes alone
        network: Any = timm.create_model(name, num_classes=0)
    first = dict(network.named_modules()).get(config.first_conv)
    if isinstance(first, StdConv2d | StdConv2dSame | ScaledStdConv2d | ScaledStdConv2dSame):
        raise WeightsNotFound(
            f"expected an architecture with a plain first convolution, found a {type(first).__name__} in timm's "
            f"{name}, whose features of one and of three input channels differ; choose another architecture"
        )
    return Architecture(name, config.first_conv, "", config.classifier, network.head_hidden_size)


def loading_call(architecture: str, weights: object, in_chans: int = 3) -> str:
    """The Python call that loads a weight file of an architecture."""
    arguments = f"weights={str(weights)!r}" + (f", in_chans={in_chans}" if in_chans != 3 else "")
    if architecture in ARCHITECTURES:
        return f"c2l_models.{architecture}({arguments})"
    return f"c2l_models.create_model({architecture!r}, {arguments})"


def suggest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the closest known name, and all known names."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}"
