"""The architectures, and the names of their ends in a state dict: the same in timm and torchvision."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from .errors import WeightsNotFound


class Architecture(NamedTuple):
    """The layers that change with input channels and classes, the width of the features between, and the batch norm
    that follows the first convolution."""

    first_conv: str
    classifier: str
    num_features: int
    first_norm: str


ARCHITECTURES = {
    "densenet121": Architecture("features.conv0", "classifier", 1024, "features.norm0"),
    "resnet18": Architecture("conv1", "fc", 512, "bn1"),
}


def list_models() -> list[str]:
    """The architectures' names, those without a release included."""
    return sorted(ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """The entry of an architecture. Raises `WeightsNotFound`, which says what there is."""
    if name not in ARCHITECTURES:
        raise WeightsNotFound(f"no architecture {name!r}{suggest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def suggest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the closest one, and all there are."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} There are: {', '.join(sorted(known)) or 'none'}"
