"""What a weight file says about itself: its configuration as a record, checked, and its tensors."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..architectures import find_architecture
from ..errors import WeightsCorrupted, WeightsNotFound
from ..hub import weight_file as hub

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
    location: hub.Place
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
        """The `.safetensors` file, downloaded where it is on the hub and not in its cache. Raises as `hub.locate`."""
        return hub.locate(self.location)

    def provenance_path(self) -> Path:
        """The JSON file that says where a release came from, found as `path` is. Raises as `hub.locate`."""
        return hub.locate_provenance(self.location)

    def read(self) -> hub.VerifiedFile:
        """The file, checked against `sha256`. Raises `WeightsCorrupted`, and as `hub.locate`."""
        return hub.read_verified(self.location, self.sha256)

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
        `WeightsCorrupted` for another hash, format or configuration, and as `hub.locate`.
        """
        return carried_record(hub.read_verified(path, sha256))


CONFIG_KEYS = tuple(f.name for f in fields(Weights) if f.name not in ("sha256", "location", "metrics"))


def stored_tensors(file: hub.VerifiedFile) -> "dict[str, Tensor]":
    """The tensors as the file holds them: float16, the first convolution float32, counters int64."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.data)
    except SafetensorError as error:
        raise WeightsCorrupted(f"{file.place}: not a valid safetensors file ({error})") from error


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


def carried_record(file: hub.VerifiedFile) -> Weights:
    """The record that a file carries in itself."""
    metadata = file.header.get("__metadata__", {})
    if METADATA_KEY not in metadata:
        raise WeightsCorrupted(
            f"{file.place}: carries no {METADATA_KEY!r} configuration, so its normalisation and size are unknown. "
            "Write it with c2l_models.releases.registry.save_weights. "
            "A repository that timm's users made is timm's to load: "
            "timm.create_model('hf-hub:…', pretrained=True)"
        )
    try:
        config = dict(json.loads(metadata[METADATA_KEY]))
    except (TypeError, ValueError):
        raise WeightsCorrupted(f"{file.place}: its configuration is not a JSON object") from None
    return make_record(config, str(file.place), location=file.place, sha256=file.sha256)


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
