"""What a weight file says about itself: its configuration as a record, checked, and its tensors."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..architectures import Architecture, find_architecture
from ..errors import WeightsCorrupted, WeightsNotFound
from ..files import write_atomically
from ..hub import weight_file

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIZE = 8192
"""Side of the largest input, pixels; the largest image that is read is as large."""

METADATA_KEY = "c2l"
"""The one metadata key of our files: safetensors writes several in random order."""


@dataclass(frozen=True)
class Weights:
    """One set of weights. Get a release from `get_weights`, a record of a file from `Weights.from_file`.

    `mean` and `std` are one scalar three times (on pixels in 0..1): then a network with one input
    channel and one with three give the same features. `input_size` is (3, S, S). `num_params`
    counts learnt parameters, without batch-norm statistics. `sha256` is that of the file's bytes,
    `location` a path or a repository on the hub.
    """

    architecture: str
    tag: str
    num_params: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, ...]
    trained_on: tuple[str, ...]
    recipe: str
    license: str
    sha256: str
    location: weight_file.Location
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what this package could not compute with; a file's configuration may hold anything."""
        for name in ("architecture", "tag", "recipe", "license", "sha256"):
            self._want(name, isinstance(getattr(self, name), str), "text")
        find_architecture(self.architecture)
        many = isinstance(self.trained_on, tuple) and all(isinstance(text, str) for text in self.trained_on)
        self._want("trained_on", many, "a list of texts")
        self._want("num_params", _is_number(self.num_params, int), "a whole number")
        self._want("mean", _is_thrice(self.mean), "one finite number three times")
        self._want("std", _is_thrice(self.std) and self.std[0] > 0, "one finite number above 0 three times")
        self._want("input_size", _is_size(self.input_size), f"[3, S, S] with a whole S from 1 to {MAX_SIZE}")
        self._want("interpolation", self.interpolation == "bilinear", "'bilinear'")
        self._want("crop_pct", _is_number(self.crop_pct) and self.crop_pct == 1, "1.0")
        self._want("metrics", isinstance(self.metrics, Mapping), "a table")

    def _want(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise WeightsCorrupted(f"{name} is {getattr(self, name)!r}, wanted {wanted}")

    @property
    def name(self) -> str:
        """`architecture.tag`, as `get_weights` takes it."""
        return f"{self.architecture}.{self.tag}"

    @property
    def config(self) -> dict[str, Any]:
        """What the file says about itself: all but its own hash, its place, and its metrics."""
        return {key: _plain(getattr(self, key)) for key in CONFIG_KEYS}

    def path(self) -> Path:
        """The `.safetensors` file, downloaded where it is on the hub and not cached. Raises as `weight_file.locate`."""
        return weight_file.locate(self.location)

    def provenance_path(self) -> Path:
        """The JSON file that says where a release came from, found as `path` is. Raises as `weight_file.locate`."""
        return weight_file.locate_provenance(self.location)

    def read(self) -> weight_file.VerifiedFile:
        """The file, checked against `sha256`. Raises `WeightsCorrupted`, and as `weight_file.locate`."""
        return weight_file.read_verified(self.location, self.sha256)

    def state_dict(self) -> "dict[str, Tensor]":
        """The backbone's tensors in float32 (counters int64), under the keys of timm and torchvision."""
        return {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in stored_tensors(self.read()).items()
        }

    def transform(self, in_chans: int = 3) -> "Callable[[Any], Tensor]":
        """What turns an image into this network's input, float32 [in_chans, S, S]: see `Transform`."""
        from ..radiographs.transform import Transform

        return Transform(size=self.input_size[-1], mean=self.mean[0], std=self.std[0], in_chans=in_chans)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], sha256: str | None = None) -> "Weights":
        """The record that a file carries in itself; a folder or `hf-hub:owner/name[@revision]` stands for its file.

        Later loads through the record are held to the bytes that were read now. Raises
        `WeightsCorrupted` for another hash, format or configuration, and as `weight_file.locate`.
        """
        return read_record(weight_file.read_verified(path, sha256))


CONFIG_KEYS = tuple(f.name for f in fields(Weights) if f.name not in ("sha256", "location", "metrics"))


def stored_tensors(file: weight_file.VerifiedFile) -> "dict[str, Tensor]":
    """The tensors as the file holds them: float16, the first convolution float32, counters int64."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.data)
    except SafetensorError as error:
        raise WeightsCorrupted(f"{file.location}: not a valid safetensors file ({error})") from error


def make_record(table: Mapping[str, Any], source: str, **more: Any) -> Weights:
    """A record from a registry's table or a file's configuration: lists to tuples, nothing unknown.

    `source` is what an error blames.
    """
    table = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return Weights(**table, **more)
    except (TypeError, WeightsNotFound, WeightsCorrupted) as error:
        known = ", ".join(CONFIG_KEYS)
        raise WeightsCorrupted(f"{source}: its configuration is wrong ({error}). It has {known}") from None


def read_record(file: weight_file.VerifiedFile) -> Weights:
    """The record that a file carries in itself."""
    metadata = file.header.get("__metadata__", {})
    if METADATA_KEY not in metadata:
        raise WeightsCorrupted(
            f"{file.location}: carries no {METADATA_KEY!r} configuration, so its normalisation and size are unknown. "
            "Write it with c2l_models.releases.record.save_weights. "
            "A repository that timm's users made is timm's to load: "
            "timm.create_model('hf-hub:…', pretrained=True)"
        )
    try:
        config = dict(json.loads(metadata[METADATA_KEY]))
    except (TypeError, ValueError):
        raise WeightsCorrupted(f"{file.location}: its configuration is not a JSON object") from None
    return make_record(config, str(file.location), location=file.location, sha256=file.sha256)


def save_weights(path: str | os.PathLike[str], state_dict: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> str:
    """Write a backbone and its configuration as safetensors; the same input gives the same bytes.

    `state_dict`: a plain model's, without a head. Floats become float16, but for the first
    convolution, which stays float32 and, where it has one input channel, is stored as three: the
    kernel divided by three. Integers stay as they are. `config`: the fields of `Weights` without
    `sha256`, `location`, `metrics`; `num_params` is counted here, `mean` and `std` may be one number,
    and `license` is "unknown" where none is named. Returns the file's sha256. Raises
    `WeightsCorrupted` for a head, a missing first convolution, numbers that are not finite or above
    float16's range, or an incomplete `config`.
    """
    from safetensors.torch import save

    location = Path(path)
    tensors = _packed(state_dict, find_architecture(config.get("architecture", "")), location)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    num_params = sum(value.numel() for key, value in tensors.items() if not key.endswith(statistics))
    table = {"license": "unknown", **config, "num_params": num_params}
    for key in ("mean", "std"):
        if isinstance(table.get(key), float | int):
            table[key] = [table[key]] * 3
    record = make_record(table, str(location), location=location, sha256="")
    metadata = {METADATA_KEY: json.dumps(record.config, sort_keys=True, separators=(",", ":"))}
    data = save(tensors, metadata=metadata)
    write_atomically(location, data)
    return hashlib.sha256(data).hexdigest()


def _packed(state_dict: "Mapping[str, Tensor]", architecture: Architecture, location: Path) -> "dict[str, Tensor]":
    """The tensors to store: contiguous, on the CPU, in their stored types."""
    import torch

    first_conv = f"{architecture.first_conv}.weight"
    if first_conv not in state_dict:
        raise WeightsCorrupted(f"{location}: the state dict has no {first_conv}: wanted a plain model's keys")
    packed = {}
    for key, tensor in state_dict.items():
        if key.startswith(f"{architecture.classifier}."):
            raise WeightsCorrupted(f"{location}: the state dict holds a head ({key}); save the backbone alone")
        stored = tensor.detach().cpu()
        if key == first_conv:
            stored = stored.float()
            if stored.shape[1] == 1:
                stored = (stored / 3).repeat(1, 3, 1, 1)
        elif stored.is_floating_point():
            stored = stored.half()
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise WeightsCorrupted(f"{location}: {key} holds numbers that are not finite in {stored.dtype}")
        packed[key] = stored.contiguous().clone()
    return packed


def _is_number(value: object, kind: Any = (int, float)) -> bool:
    """Whether it is a finite number; to Python True is one too."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_thrice(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values)) and len(set(values)) == 1


def _is_size(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) != 3 or not all(_is_number(value, int) for value in values):
        return False
    channels, height, width = values
    return channels == 3 and 1 <= height == width <= MAX_SIZE


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
