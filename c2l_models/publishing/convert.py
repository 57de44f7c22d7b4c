"""Checkpoints of others -> weight files: the paper's authors', MoCo's, Lightly's, torchvision's."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..architectures import ARCHITECTURES, find_architecture
from ..errors import C2LError
from ..releases.record import save_weights
from ..verification import golden_image
from .normalisation import IMAGENET_MEAN, IMAGENET_STD, fold_normalisation
from .safe_pickle import read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 0.05
"""Largest change of a feature that folding may make, as a share of the largest feature.

The fold is exact but for the frame of the picture, where a convolution sees padding: zeros, which stood for the old
mean of each channel and stand for the new one. That changes features by a few thousandths; a wrong fold by tenths.
"""

ROLES = {
    "teacher": {"k", "key", "ema", "momentum", "teacher", "target"},
    "student": {"q", "query", "student", "online"},
}
"""Words in the names of the two networks of a momentum method: encoder_q and encoder_k, model and model_ema, …"""

COUNTER = "num_batches_tracked"
"""A batch norm's count of batches, which torch wrote from 0.4.1 on and evaluation does not use."""

RESNET_INDICES = {"conv1": "0", "bn1": "1", **{f"layer{n}": f"{n + 3}" for n in range(1, 5)}}
"""Names where a ResNet was saved as the `nn.Sequential` of its children, as Lightly's examples do."""

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""`norm.1` of the files that torchvision still hands out, `norm1` of its code."""


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote: the file and its hash, where in the checkpoint the backbone was, and what else was there.

    `counters`: batch norms' counts of batches that the checkpoint lacks, set to 0. `dropped`: number of tensors by
    the module that they were in. `difference`: the change of a feature by the fold, a share of the largest; 0 where
    there was nothing to fold.
    """

    path: Path
    sha256: str
    backbone: str
    counters: int
    dropped: dict[str, int]
    difference: float


def convert(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    architecture: str,
    network: str = "student",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int = 224,
    license: str = "unknown",
) -> Conversion:
    """Write the backbone of a checkpoint as a weight file that loads in one line.

    - `checkpoint`: what `torch.save` wrote: a state dict, or a table that holds some; see `read_tensors`.
    - `out`: `architecture.tag.safetensors`, whose tag is recorded, or another name ending so.
    - `network`: which of two to take, "student" or "teacher", where the checkpoint has both.
    - `mean`, `std`: of the input that it was trained on, pixels in 0..1: one number, or three. Three are folded into
      the first convolution and batch norm, so that the one mean and std that the file records, their averages, give
      the same features of a film, with one input channel and with three.
    - `size`: side of the images that it is for, pixels. `license`: recorded.

    Projections, heads, queues and the other network are left out. Raises `C2LError` for a checkpoint that cannot be
    read safely, has no backbone of this architecture or several, lacks one of its tensors, has one of another shape,
    or more than it, and where the fold changes the features; then nothing is written.
    """
    import torch

    source, target = Path(checkpoint), Path(out)
    find_architecture(architecture)
    if target.suffix != ".safetensors":
        raise C2LError(f"{target}: wanted a name that ends in .safetensors, as {architecture}.mine.safetensors")
    mean, std = _thrice("mean", mean), _thrice("std", std)
    if min(std) <= 0:
        raise C2LError(f"std is {std}; wanted numbers above 0")
    original = _plain_network(architecture)
    tensors = {OLD_DENSENET.sub(r"\1\2.", key): tensor for key, tensor in read_tensors(source).items()}
    wanted = {key: tensor.shape for key, tensor in original.state_dict().items()}
    prefix, names = _choose(source, tensors, architecture, wanted, network)
    backbone = {key: tensors[prefix + name] for name, key in names.items() if prefix + name in tensors}
    counters = {key: torch.tensor(0) for key in wanted if key.endswith(COUNTER) and key not in backbone}
    _check(source, architecture, backbone | counters, wanted, _more(tensors, prefix, names))

    used = {prefix + name for name in names}
    state, one_mean, one_std, difference = _folded(original, architecture, backbone | counters, mean, std)
    if math.isnan(difference):
        raise C2LError(f"{source}: its features are not finite, or all 0; wanted a network that was trained")
    if difference > TOLERANCE:
        raise C2LError(
            f"{source}: folding mean {mean} and std {std} changes a feature by {difference:.2g} of the largest; wanted "
            f"at most {TOLERANCE}. Were the weights trained on other ones? Name them with --mean and --std"
        )
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    config = {
        "architecture": architecture,
        "tag": target.stem.removeprefix(f"{architecture}."),
        "mean": one_mean,
        "std": one_std,
        "input_size": [3, size, size],
        "trained_on": ["not recorded in the checkpoint"],
        "recipe": f"converted from {source.name}, {network}, sha256 {digest}",
        "license": license,
    }
    sha256 = save_weights(target, state, config)
    return Conversion(
        path=target,
        sha256=sha256,
        backbone=prefix.rstrip("."),
        counters=len(counters),
        dropped=dict(Counter(_module(key, prefix) for key in tensors if key not in used)),
        difference=difference,
    )


def _plain_network(architecture: str) -> "nn.Module":
    import timm

    return timm.create_model(architecture, pretrained=False, num_classes=0).eval()


def _choose(
    source: Path, tensors: "Mapping[str, Tensor]", architecture: str, wanted: Collection[str], network: str
) -> tuple[str, dict[str, str]]:
    """Where the network's backbone is: the prefix of its keys, and our key by each of its names after it."""
    found, names = _backbones(tensors, wanted)
    if not found:
        others = (name for name in ARCHITECTURES if name != architecture)
        fitting = [name for name in others if _backbones(tensors, _plain_network(name).state_dict())[0]]
        hint = f"; it looks like a {fitting[0]}: --arch {fitting[0]}" if fitting else ""
        raise C2LError(f"{source}: no {architecture} among its {len(tensors)} tensors ({_few(tensors)}){hint}")
    roles = {prefix: _role(prefix) for prefix in found}
    chosen = [prefix for prefix, role in roles.items() if role == network]
    if len(chosen) != 1:
        there = ", ".join(f"{prefix.rstrip('.') or 'at the top'} ({role})" for prefix, role in roles.items())
        raise C2LError(f"{source}: {len(chosen)} networks that could be the {network}; wanted one. There are: {there}")
    return chosen[0], names


def _backbones(keys: Iterable[str], wanted: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """The prefixes after which more than half of an architecture's keys stand, and the spelling that they are in."""
    for names in _spellings(wanted):
        counts: Counter[str] = Counter()
        for key in keys:
            parts = key.split(".")
            starts = (".".join(parts[:i]) for i in range(len(parts)))
            counts.update(start for i, start in enumerate(starts) if ".".join(parts[i:]) in names)
        if found := [f"{start}." if start else "" for start, count in counts.items() if 2 * count > len(names)]:
            return found, names
    return [], {}


def _spellings(wanted: Collection[str]) -> list[dict[str, str]]:
    """The names that an architecture's tensors go by, each with our key: its own first."""
    own = {key: key for key in wanted}
    parted = {key: key.partition(".") for key in wanted}
    modules = {first for first, _, _ in parted.values()}
    if modules == {"features"}:  # a DenseNet's `features`, saved alone
        return [own, {rest: key for key, (_, _, rest) in parted.items()}]
    if modules <= RESNET_INDICES.keys():
        return [own, {f"{RESNET_INDICES[first]}.{rest}": key for key, (first, _, rest) in parted.items()}]
    return [own]


def _role(prefix: str) -> str:
    words = set(re.split(r"[._]", re.sub(r"([a-z])([A-Z])", r"\1_\2", prefix).lower()))
    return "teacher" if words & ROLES["teacher"] and not words & ROLES["student"] else "student"


def _more(tensors: Iterable[str], prefix: str, names: Collection[str]) -> list[str]:
    """Tensors in the backbone's own modules that it does not have: a deeper network holds all of a shallower one."""
    modules = tuple({f"{prefix}{name.partition('.')[0]}." for name in names})
    return [key for key in tensors if key.startswith(modules) and key.removeprefix(prefix) not in names]


def _check(
    source: Path,
    architecture: str,
    backbone: "Mapping[str, Tensor]",
    wanted: "Mapping[str, Sequence[int]]",
    more: Collection[str],
) -> None:
    missing = [key for key in wanted if key not in backbone]
    shapes = [
        f"{key} {list(backbone[key].shape)}, wanted {list(shape)}"
        for key, shape in wanted.items()
        if key in backbone and backbone[key].shape != shape
    ]
    odd = [key for key in wanted if key in backbone and not key.endswith(COUNTER) and not _is_plain(backbone[key])]
    faults = {"missing": missing, "of another shape": shapes, "not plain floats": odd, "too many": more}
    if told := [f"{len(what)} {fault} ({_few(what)})" for fault, what in faults.items() if what]:
        raise C2LError(f"{source}: not the tensors of a {architecture}: {'; '.join(told)}")


def _is_plain(tensor: "Tensor") -> bool:
    """Whether a tensor is dense, real and in memory."""
    import torch

    dense = tensor.layout == torch.strided and not tensor.is_quantized
    return dense and tensor.is_floating_point() and tensor.device.type == "cpu"


def _folded(
    original: "nn.Module",
    architecture: str,
    backbone: "Mapping[str, Tensor]",
    mean: Sequence[float],
    std: Sequence[float],
) -> "tuple[Mapping[str, Tensor], float, float, float]":
    """The tensors for one mean and std, those two, and the largest change of a feature, a share of the largest."""
    import timm
    import torch

    one_mean, one_std = round(sum(mean) / 3, 6), round(sum(std) / 3, 6)
    if len(set(mean)) == len(set(std)) == 1:
        return backbone, one_mean, one_std, 0.0
    floats = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in backbone.items()}
    state = fold_normalisation(floats, architecture, mean, std, one_mean, one_std)
    folded = timm.create_model(architecture, pretrained=False, num_classes=0, in_chans=1).eval()
    folded.load_state_dict(state)
    original.load_state_dict(floats)
    film = torch.tensor(list(golden_image(128).tobytes())).view(1, 1, 128, 128) / 255
    with torch.inference_mode():
        before = original((film - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        after = folded((film - one_mean) / one_std)
    return state, one_mean, one_std, float((after - before).abs().max() / before.abs().max())


def _thrice(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise C2LError(f"{name} is {len(values)} numbers; wanted one, or three, one a channel")
    return tuple(values) * (3 // len(values))


def _module(key: str, prefix: str) -> str:
    """The name that a dropped tensor is told under: the part of the network, or all that it stands in."""
    if key.startswith(prefix):
        return prefix + key.removeprefix(prefix).partition(".")[0]
    return re.split(r"\.(?=(?:conv1|bn1|layer\d|features|fc|classifier|\d+)\.)", key, maxsplit=1)[0]


def _few(names: Iterable[str]) -> str:
    ordered = list(names)
    return ", ".join(ordered[:3]) + (", …" if len(ordered) > 3 else "")
