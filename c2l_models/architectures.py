"""The supported architectures, each one entry of `ARCHITECTURES`.

To add an architecture, add its entry under its name in timm and torchvision. The following read the table:
`list_models()`, `create_model(name)`, the builder `c2l_models.<name>`, torch.hub's entry points, and the architectures
that a recipe or a benchmark accepts. A release of the architecture is a separate step.
"""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from .errors import WeightsNotFound


class Architecture(NamedTuple):
    """A network's title and the modules at its ends, whose names are the same in timm and torchvision.

    Attributes:
        title: name for readers.
        first_conv: first convolution; its shape depends on the input channels.
        first_norm: batch norm after the first convolution.
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
    """The names of the supported architectures, with or without a release."""
    return sorted(ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """The entry of an architecture. Raises `WeightsNotFound`, which lists the known names."""
    if name not in ARCHITECTURES:
        raise WeightsNotFound(f"no architecture {name!r}{suggest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def suggest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the closest known name, and all known names."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}"
