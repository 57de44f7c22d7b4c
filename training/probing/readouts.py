"""Features that a linear probe chooses from: input sides, and readouts of a network's last three feature maps."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2l_models.errors import C2LError

from ..initialization import Initialization
from ..store.image_store import ImageStore
from .feature_cache import cached_features

Features = NDArray[np.float32]
FeaturesOf = Callable[[NDArray[np.int64]], Features]
"""Maps rows of a store [N] to features [N, D]."""

STAGES = (2, 3, 4)
"""The last three stages, named as in a ResNet: `layer2` to `layer4`, with strides 8, 16 and 32. In a DenseNet, the last
one includes the final norm and ReLU, as in the network's own features."""
POOLS = ("average", "maximum")


class Readout(NamedTuple):
    """A way to read features: the stages and pools are concatenated, and the flipped copy's features averaged in."""

    name: str
    stages: tuple[int, ...]
    pools: tuple[str, ...] = POOLS[:1]
    flipped: bool = False


READOUTS = (
    Readout("layer 4", (4,)),  # the network's own features
    Readout("layer 3", (3,)),
    Readout("layer 2", (2,)),
    Readout("layers 2-4", (2, 3, 4)),
    Readout("layer 4, average and maximum", (4,), POOLS),
    Readout("layer 2, average and maximum", (2,), POOLS),
    Readout("layers 2-4, average and maximum", (2, 3, 4), POOLS),
    Readout("layer 4, flip", (4,), flipped=True),
    Readout("layers 2-4, flip", (2, 3, 4), flipped=True),
    Readout("layers 2-4, average and maximum, flip", (2, 3, 4), POOLS, flipped=True),
)
"""The readouts that `c2l probe --readouts` tries, in the order of preference if they are equally good."""


class PooledMaps(nn.Module):
    """Both pools of the last three feature maps, for an image and its mirror image.

    float [B, 1, S, S] -> [B, 2 copies · 2 pools · C], where C is the number of channels of the three maps together.
    `select` takes a readout's features out of this vector, so that one pass over the images serves all readouts.
    """

    def __init__(self, network: Any) -> None:
        """`network`: timm network, [B, 1, S, S] -> [B, F].

        Raises C2LError if timm cannot return the network's feature maps.
        """
        super().__init__()
        if not hasattr(network, "forward_intermediates"):
            raise C2LError(
                f"expected a timm network with forward_intermediates, found a {type(network).__name__}; probe without "
                "readouts, or, with a DenseNet, install timm 1.0.31"
            )
        self.network = network
        self.channels = tuple(stage["num_chs"] for stage in network.feature_info[-len(STAGES) :])

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        network: Any = self.network  # timm's; torch's type hints know modules only
        for copy in (x, x.flip(-1)):
            maps = network.forward_intermediates(copy, indices=len(STAGES), intermediates_only=True)
            pooled += [one.mean((2, 3)) for one in maps] + [one.amax((2, 3)) for one in maps]
        return torch.cat(pooled, dim=1)


def select(pooled: Features, channels: tuple[int, ...], readout: Readout) -> Features:
    """Take a readout's features [N, D] out of the output of `PooledMaps`, float32 [N, 4 C].

    `channels`: `PooledMaps.channels`. D is the number of the readout's channels times its number of pools.
    """
    copies = pooled.reshape(len(pooled), 2, len(POOLS), sum(channels))
    image = copies.mean(axis=1) if readout.flipped else copies[:, 0]
    stages = dict(zip(STAGES, np.split(image, np.cumsum(channels)[:-1], axis=2), strict=True))
    parts = [stages[stage][:, POOLS.index(pool)] for pool in readout.pools for stage in readout.stages]
    return np.concatenate(parts, axis=1)


class Candidate(NamedTuple):
    """Features to choose from: the input side in pixels, and the function that computes them."""

    size: int
    features_of: FeaturesOf


def feature_candidates(
    inits: Sequence[Initialization], store: ImageStore, device: str | torch.device, readouts: bool
) -> dict[str, Candidate]:
    """The features that a probe chooses from, by a name such as "128 px, layers 2-4".

    Args:
        inits: one network, loaded for each side.
        store, device: as for `cached_features`.
        readouts: whether each of `READOUTS` is a candidate, or the networks' own output alone.
    """
    candidates = {}
    for init in inits:

        def computed(network: nn.Module, rows: NDArray[np.int64], init: Initialization = init) -> Features:
            return cached_features(network, store, rows, init.size, init.mean, init.std, device)

        own = {"": partial(computed, init.network)}
        for name, features_of in (_readout_features(init.network, computed) if readouts else own).items():
            candidates[f"{init.size} px, {name}".removesuffix(", ")] = Candidate(init.size, features_of)
    return candidates


def chosen_side(candidates: Mapping[str, Candidate], facts: Mapping[str, Any]) -> int:
    """The side of the chosen features; of a task with folds, the side that most folds chose.

    `facts`: of `ClassifierScores`; without a choice, if there was one candidate.
    """
    return candidates[Counter(_picks(facts.get("features", next(iter(candidates))))).most_common(1)[0][0]].size


def _picks(chosen: str | list[str]) -> list[str]:
    return [chosen] if isinstance(chosen, str) else chosen


def _readout_features(
    network: nn.Module, computed: Callable[[nn.Module, NDArray[np.int64]], Features]
) -> dict[str, FeaturesOf]:
    """The features of each readout by its name. Both pools of all maps are computed once for the same rows."""
    maps = PooledMaps(network).eval()
    known: dict[bytes, Features] = {}

    def features(readout: Readout, rows: NDArray[np.int64]) -> Features:
        if (key := rows.tobytes()) not in known:
            known[key] = computed(maps, rows)
        return select(known[key], maps.channels, readout)

    return {one.name: partial(features, one) for one in READOUTS}


def tried_table(facts: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows of the tried features: tuning metric, and how often they were chosen.

    `facts`: of `ClassifierScores`. Lists have one entry per fold of a task with folds; their metrics are averaged.
    """
    tuned, picks = facts["tuning_auroc_by_features"], _picks(facts["features"])
    folds = [tuned] if isinstance(tuned, dict) else tuned
    rows = [
        [name, f"{np.mean([fold[name] for fold in folds]):.4f}", f"{picks.count(name)} of {len(picks)}"]
        for name in folds[0]
    ]
    return "Features tried, chosen on training patients", ["features", "tuning AUROC", "chosen"], rows
