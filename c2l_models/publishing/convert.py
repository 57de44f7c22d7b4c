"""Convert checkpoints of the paper's authors, MoCo, Lightly or torchvision to weight files."""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..architectures import ARCHITECTURES, find_architecture
from ..errors import C2LError
from ..files import write_atomically
from ..hub.weight_file import is_safetensors, read_verified
from ..releases.record import save_weights, unchecked_tensors
from ..releases.training_data import NOT_RECORDED
from ..verification import golden_image
from .converted_provenance import PATIENTS_UNKNOWN, provenance
from .normalisation import IMAGENET_MEAN, IMAGENET_STD, fold_normalisation
from .safe_pickle import read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 0.05
"""Largest allowed change of a feature by folding the normalisation, as a share of the largest feature.

The fold is exact except at the image's border, where the convolution sees padding: zeros represented the old mean of
each channel, and now represent the new mean. So a correct fold changes features by a few thousandths, in a network with
strong colour filters by up to 0.045 (`resnet18.imagenet`). A wrong mean, or channels in the wrong order, change them by
0.16 or more.
"""

ROLES = {
    "teacher": {"k", "key", "ema", "momentum", "teacher", "target"},
    "student": {"q", "query", "student", "online"},
}
"""Words in the names of a momentum method's two networks, such as encoder_q and encoder_k, or model and model_ema."""

COUNTER = "num_batches_tracked"
"""A batch norm's count of batches, written by torch since 0.4.1 and not used in evaluation mode."""

RESNET_INDICES = {"conv1": "0", "bn1": "1", **{f"layer{n}": f"{n + 3}" for n in range(1, 5)}}
"""Names of a ResNet's modules if it was saved as an `nn.Sequential` of its children, as in Lightly's examples."""

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""Matches `norm.1` in the files that torchvision distributes; its code says `norm1`."""


@dataclass(frozen=True)
class Conversion:
    """The result of `convert`: the file, its hash, and the backbone's position in the checkpoint.

    `provenance`: the JSON file beside the weights.
    `counters`: number of batch counters that the checkpoint lacks, set to 0. `dropped`: number of tensors left out,
    by module. `difference`: largest change of a feature by the fold, as a share of the largest feature; 0 if nothing
    was folded.
    """

    path: Path
    provenance: Path
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
    input_mean: float | None = None,
    input_std: float | None = None,
    trained_on: Sequence[str] = (f"{NOT_RECORDED} in the checkpoint",),
    origin: str = "not recorded",
    patients: Literal["unknown", "none"] = PATIENTS_UNKNOWN,
) -> Conversion:
    """Write the backbone of a checkpoint as a weight file, and its provenance beside it.

    - `checkpoint`: a `.safetensors` file, or a file written by `torch.save` with a state dict or a table of state
      dicts; see `read_tensors`.
    - `out`: `architecture.tag.safetensors`, whose tag is recorded, or another name ending in `.safetensors`.
    - `network`: "student" or "teacher", the network to take if the checkpoint holds both.
    - `mean`, `std`: of the training input, for pixels in 0..1: one number or three. Three numbers are folded into the
      first convolution and batch norm. So networks with one and with three input channels compute the same features of
      a film.
    - `input_mean`, `input_std`: the one mean and std that the file's network expects; by default the average of `mean`
      and of `std`.
    - `size`: side of the images that the weights are meant for, pixels. `license`, `trained_on`: recorded in the file.
    - `origin`, `patients`: recorded in the provenance; "none" states that no radiograph was trained on.

    Projections, heads, queues and the other network are left out. Raises `C2LError`, and writes nothing, if the
    checkpoint cannot be read safely, if it has no or several backbones of this architecture, if a tensor is missing,
    unexpected or has another shape, or if the fold changes the features.
    """
    import torch

    source, target = Path(checkpoint), Path(out)
    find_architecture(architecture)
    if target.suffix != ".safetensors":
        raise C2LError(f"expected a name like {architecture}.mine.safetensors for the output, found {target}")
    mean, std = _thrice("mean", mean), _thrice("std", std)
    if min(std) <= 0 or (input_std is not None and input_std <= 0):
        raise C2LError(f"expected std and input_std above 0, found {std} and {input_std}")
    onto = (
        round(sum(mean) / 3, 6) if input_mean is None else input_mean,
        round(sum(std) / 3, 6) if input_std is None else input_std,
    )
    original = _plain_network(architecture)
    tensors = {OLD_DENSENET.sub(r"\1\2.", key): tensor for key, tensor in _read(source).items()}
    expected = {key: tensor.shape for key, tensor in original.state_dict().items()}
    prefix, names = _choose(source, tensors, architecture, expected, network)
    backbone = {key: tensors[prefix + name] for name, key in names.items() if prefix + name in tensors}
    counters = {key: torch.tensor(0) for key in expected if key.endswith(COUNTER) and key not in backbone}
    _check(source, architecture, backbone | counters, expected, _more(tensors, prefix, names))

    used = {prefix + name for name in names}
    state, difference = _folded(original, architecture, backbone | counters, mean, std, onto)
    if math.isnan(difference):
        raise C2LError(f"{source}: expected a trained network, found features that are not finite or all 0")
    if difference > TOLERANCE:
        raise C2LError(
            f"{source}: folding mean {mean} and std {std} changes a feature by {difference:.2g} of the largest, "
            f"expected at most {TOLERANCE}. If the weights were trained with another mean and std, "
            "pass these as --mean and --std"
        )
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    role = network if prefix else ""  # at the top level, a checkpoint has only one network
    config = {
        "architecture": architecture,
        "tag": target.stem.removeprefix(f"{architecture}."),
        "mean": onto[0],
        "std": onto[1],
        "input_size": [3, size, size],
        "trained_on": list(trained_on),
        "recipe": f"converted from {source.name}, {f'{role}, ' if role else ''}sha256 {digest}",
        "license": license,
    }
    sha256 = save_weights(target, state, config)
    done = Conversion(
        path=target,
        provenance=target.with_suffix(".json"),
        sha256=sha256,
        backbone=prefix.rstrip("."),
        counters=len(counters),
        dropped=dict(Counter(_module(key, prefix) for key in tensors if key not in used)),
        difference=difference,
    )
    made = {
        "file": source.name,
        "sha256": digest,
        "network": role or "the only one",
        "backbone": done.backbone or "top level",
        "mean": list(mean),
        "std": list(std),
        "dropped": done.dropped,
        "counters_set_to_0": done.counters,
        "feature_change": difference,
    }
    table = provenance(target, origin, made, patients)
    write_atomically(done.provenance, (json.dumps(table, indent=1) + "\n").encode())
    return done


def _read(source: Path) -> "dict[str, Tensor]":
    """Read the tensors of a checkpoint by their dotted keys. Its content decides the format, not its name."""
    return unchecked_tensors(read_verified(source)) if is_safetensors(source) else read_tensors(source)


def _plain_network(architecture: str) -> "nn.Module":
    import timm

    return timm.create_model(architecture, pretrained=False, num_classes=0).eval()


def _choose(
    source: Path, tensors: "Mapping[str, Tensor]", architecture: str, expected: Collection[str], network: str
) -> tuple[str, dict[str, str]]:
    """Find the network's backbone: the prefix of its keys, and our key for each name after the prefix."""
    found, names = _backbones(tensors, expected)
    if not found:
        others = (name for name in ARCHITECTURES if name != architecture)
        fitting = [name for name in others if _backbones(tensors, _plain_network(name).state_dict())[0]]
        hint = f". They fit a {fitting[0]}: pass --arch {fitting[0]}" if fitting else ""
        raise C2LError(
            f"{source}: expected the tensors of a {architecture}, found {len(tensors)} others ({_few(tensors)}){hint}"
        )
    roles = {prefix: _role(prefix) for prefix in found}
    chosen = [prefix for prefix, role in roles.items() if role == network]
    if len(chosen) != 1:
        networks = ", ".join(f"{prefix.rstrip('.') or 'at the top level'} ({role})" for prefix, role in roles.items())
        raise C2LError(f"{source}: expected one {network}, found {len(chosen)}. The checkpoint's networks: {networks}")
    return chosen[0], names


def _backbones(keys: Iterable[str], expected: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Find the prefixes under which `keys` holds more than half of an architecture's keys, and the keys' spelling."""
    for names in _spellings(expected):
        counts: Counter[str] = Counter()
        for key in keys:
            parts = key.split(".")
            prefixes = (".".join(parts[:i]) for i in range(len(parts)))
            counts.update(prefix for i, prefix in enumerate(prefixes) if ".".join(parts[i:]) in names)
        if found := [f"{prefix}." if prefix else "" for prefix, count in counts.items() if 2 * count > len(names)]:
            return found, names
    return [], {}


def _spellings(expected: Collection[str]) -> list[dict[str, str]]:
    """Return the possible spellings of an architecture's keys, each mapped to our key; our own spelling is first."""
    own = {key: key for key in expected}
    parted = {key: key.partition(".") for key in expected}
    modules = {first for first, _, _ in parted.values()}
    if modules == {"features"}:  # a file may hold only a DenseNet's module `features`
        return [own, {rest: key for key, (_, _, rest) in parted.items()}]
    if modules <= RESNET_INDICES.keys():
        return [own, {f"{RESNET_INDICES[first]}.{rest}": key for key, (first, _, rest) in parted.items()}]
    return [own]


def _role(prefix: str) -> str:
    words = set(re.split(r"[._]", re.sub(r"([a-z])([A-Z])", r"\1_\2", prefix).lower()))
    return "teacher" if words & ROLES["teacher"] and not words & ROLES["student"] else "student"


def _more(tensors: Iterable[str], prefix: str, names: Collection[str]) -> list[str]:
    """List unexpected tensors in the backbone's modules: a deeper network also holds all keys of a shallower one."""
    modules = tuple({f"{prefix}{name.partition('.')[0]}." for name in names})
    return [key for key in tensors if key.startswith(modules) and key.removeprefix(prefix) not in names]


def _check(
    source: Path,
    architecture: str,
    backbone: "Mapping[str, Tensor]",
    expected: "Mapping[str, Sequence[int]]",
    more: Collection[str],
) -> None:
    missing = [key for key in expected if key not in backbone]
    shapes = [
        f"{key} {list(backbone[key].shape)}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in backbone and backbone[key].shape != shape
    ]
    odd = [key for key in expected if key in backbone and not key.endswith(COUNTER) and not _is_plain(backbone[key])]
    faults = {"missing": missing, "of another shape": shapes, "not plain floats": odd, "unexpected": more}
    if listed := [f"{len(keys)} {fault} ({_few(keys)})" for fault, keys in faults.items() if keys]:
        raise C2LError(f"{source}: expected the tensors of a {architecture}, found {'; '.join(listed)}")


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
    onto: tuple[float, float],
) -> "tuple[Mapping[str, Tensor], float]":
    """Fold the normalisation into one mean and std, `onto`; return tensors and largest relative change of a feature."""
    import timm
    import torch

    one_mean, one_std = onto
    if {round(value, 6) for value in mean} == {one_mean} and {round(value, 6) for value in std} == {one_std}:
        return backbone, 0.0
    floats = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in backbone.items()}
    state = fold_normalisation(floats, architecture, mean, std, one_mean, one_std)
    folded = timm.create_model(architecture, pretrained=False, num_classes=0, in_chans=1).eval()
    folded.load_state_dict(state)
    original.load_state_dict(floats)
    film = torch.tensor(list(golden_image(128).tobytes())).view(1, 1, 128, 128) / 255
    with torch.inference_mode():
        before = original((film - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        after = folded((film - one_mean) / one_std)
    return state, float((after - before).abs().max() / before.abs().max())


def _thrice(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise C2LError(f"expected one number for {name}, or three (one per channel), found {len(values)}")
    return tuple(values) * (3 // len(values))


def _module(key: str, prefix: str) -> str:
    """Return the module under which a dropped tensor is reported: part of the network, or the whole other network."""
    if key.startswith(prefix):
        return prefix + key.removeprefix(prefix).partition(".")[0]
    return re.split(r"\.(?=(?:conv1|bn1|layer\d|features|fc|classifier|\d+)\.)", key, maxsplit=1)[0]


def _few(names: Iterable[str]) -> str:
    ordered = list(names)
    return ", ".join(ordered[:3]) + (", …" if len(ordered) > 3 else "")
