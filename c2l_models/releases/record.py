"""Weight files: their configuration as a checked record, and reading and writing their tensors."""

import hashlib
import json
import os
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..architectures import Architecture, find_architecture
from ..errors import WeightsCorrupted, WeightsNotFound
from ..files import write_atomically
from ..hub import weight_file

if TYPE_CHECKING:
    from torch import Tensor

    from ..radiographs.transform import Transform

MAX_SIZE = 8192
"""Largest side of a network's input, pixels; also the largest side of an image that is read."""

FLOATS = ("F16", "BF16", "F32", "F64")
"""Dtypes of weights that are read, as a safetensors header names them. `save_weights` writes F16 and F32."""

METADATA_KEY = "c2l"
"""The only metadata key in a weight file, because safetensors writes several keys in random order."""


@dataclass(frozen=True)
class Weights:
    """The record of a set of weights. `get_weights` returns a release's record, `Weights.from_file` a file's.

    Attributes:
        architecture: name of the network in timm.
        tag: name of the weights among those of the architecture; a release's name is `architecture.tag`.
        num_params: number of learnt parameters, without batch-norm statistics.
        mean: mean of the input, for pixels in 0..1: one number three times, so that networks with one and with three
            input channels compute the same features.
        std: standard deviation of the input, like `mean`.
        input_size: (3, S, S).
        trained_on: the training data, one text per data set.
        recipe: name of the recipe that trained the weights.
        license: license of the weights.
        sha256: hash of the file's bytes.
        location: path of the file, or a repository on the hub.
        interpolation: "bilinear", for timm.
        crop_pct: 1.0, for timm.
        metrics: a release's metrics; empty for a file.
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
        """Check every field, because a file's configuration may hold any value. Raises `WeightsCorrupted`."""
        for name in ("architecture", "tag", "recipe", "license", "sha256"):
            self._check(name, _is_text(getattr(self, name)), "text that can be printed")
        find_architecture(self.architecture)
        many = isinstance(self.trained_on, tuple) and all(map(_is_text, self.trained_on))
        self._check("trained_on", many, "a list of texts that can be printed")
        self._check("num_params", _is_number(self.num_params, int), "a whole number")
        self._check("mean", _is_one_number_thrice(self.mean), "one finite number three times")
        self._check("std", _is_one_number_thrice(self.std) and self.std[0] > 0, "one finite number above 0 three times")
        self._check("input_size", _is_size(self.input_size), f"[3, S, S] with a whole S from 1 to {MAX_SIZE}")
        self._check("interpolation", self.interpolation == "bilinear", "'bilinear'")
        self._check("crop_pct", _is_number(self.crop_pct) and self.crop_pct == 1, "1.0")
        self._check("metrics", isinstance(self.metrics, Mapping), "a table")

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise WeightsCorrupted(f"expected {name} to be {expected}, found {_brief(getattr(self, name))}")

    @property
    def name(self) -> str:
        """The release's name, `architecture.tag`."""
        return f"{self.architecture}.{self.tag}"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration stored in the file: all fields except `sha256`, `location` and `metrics`."""
        return {key: _plain(getattr(self, key)) for key in CONFIG_KEYS}

    def path(self) -> Path:
        """The path of the `.safetensors` file; downloads it if it is not cached.

        Raises `WeightsNotFound`; for a repository also `HubRefused`, `HubUnavailable` or `HubCacheError`.
        """
        return weight_file.locate(self.location)

    def provenance_path(self) -> Path:
        """The path of the release's provenance, a JSON file beside the weights. Raises as `path`."""
        return weight_file.locate_provenance(self.location)

    def read(self) -> weight_file.VerifiedFile:
        """Read the file and verify `sha256`. Raises `WeightsCorrupted`, and as `path`."""
        return weight_file.read_verified(self.location, self.sha256)

    def state_dict(self) -> "dict[str, Tensor]":
        """The backbone's tensors in float32 (counters int64), with the keys of timm and torchvision."""
        return {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in stored_tensors(self.read()).items()
        }

    def transform(self, in_chans: int = 3) -> "Transform":
        """A transform from an image to the network's input, float32 [in_chans, S, S]: see `Transform`."""
        from ..radiographs.transform import Transform

        return Transform(size=self.input_size[-1], mean=self.mean[0], std=self.std[0], in_chans=in_chans)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], sha256: str | None = None) -> "Weights":
        """Read the record stored in a weight file, in a folder or in a repository, `hf-hub:owner/name[@revision]`.

        Later loads through the record verify that the bytes are the same. Raises `WeightsCorrupted` if the file's hash
        is not `sha256` or its format or configuration is wrong, and as `path`.
        """
        return read_record(weight_file.read_verified(path, sha256))


CONFIG_KEYS = tuple(f.name for f in fields(Weights) if f.name not in ("sha256", "location", "metrics"))


def stored_tensors(file: weight_file.VerifiedFile) -> "dict[str, Tensor]":
    """The tensors as stored in the file: each of one of the `FLOATS`, counters int64.

    Raises `WeightsCorrupted` for a dtype that no weights have, and for values that are not finite in float32.
    """
    import torch

    _check_header(file)
    tensors = unchecked_tensors(file)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise WeightsCorrupted(
                f"{file.location}: expected finite values, found NaN or infinity in {key}; export the weights "
                "again from a checkpoint before training diverged"
            )
    return tensors


def _check_header(file: weight_file.VerifiedFile) -> None:
    """Raise `WeightsCorrupted` unless all tensors are floats or counters, and their names can be printed."""
    for key, entry in file.header.items():
        if key == "__metadata__":
            continue
        dtype, shape = entry.get("dtype"), entry.get("shape")
        if not key.isprintable():
            raise WeightsCorrupted(f"{file.location}: expected names of tensors that can be printed, found {key!r}")
        if dtype not in FLOATS and not (dtype == "I64" and shape == []):
            raise WeightsCorrupted(
                f"{file.location}: expected {', '.join(FLOATS)}, or I64 without dimensions for a counter, found "
                f"{dtype!r} of shape {shape!r} in {key}; save the weights as floats"
            )


def unchecked_tensors(file: weight_file.VerifiedFile) -> "dict[str, Tensor]":
    """All tensors of a safetensors file, also of checkpoints that are yet to be converted."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.data)
    except SafetensorError as error:
        raise WeightsCorrupted(f"{file.location}: not a valid safetensors file ({error})") from error


def make_record(table: Mapping[str, Any], source: str, **more: Any) -> Weights:
    """Build a record from a registry's table or a file's configuration. Lists become tuples.

    Raises `WeightsCorrupted` for a wrong value, or a missing or unknown key; the message begins with `source`.
    """
    known = ", ".join(CONFIG_KEYS)
    if unknown := [key for key in table if key in more or key not in (*CONFIG_KEYS, "sha256", "metrics")]:
        raise WeightsCorrupted(
            f"{source}: wrong configuration (unknown key {_brief(unknown[0])}); expected the keys {known}"
        )
    table = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return Weights(**table, **more)
    except (TypeError, WeightsNotFound, WeightsCorrupted) as error:
        raise WeightsCorrupted(f"{source}: wrong configuration ({error}); expected the keys {known}") from None


def read_record(file: weight_file.VerifiedFile) -> Weights:
    """Read the record stored in a weight file's metadata. Raises `WeightsCorrupted`."""
    metadata = file.header.get("__metadata__", {})
    if METADATA_KEY not in metadata:
        raise WeightsCorrupted(
            f"{file.location}: expected normalisation and input size in the metadata key {METADATA_KEY!r}, found "
            "none. Write the file with c2l_models.releases.record.save_weights; load a repository of timm's with "
            "timm.create_model('hf-hub:…', pretrained=True)"
        )
    try:
        config = dict(json.loads(metadata[METADATA_KEY]))
    except (TypeError, ValueError, RecursionError):
        raise WeightsCorrupted(f"{file.location}: expected a JSON object as configuration, found other text") from None
    return make_record(config, str(file.location), location=file.location, sha256=file.sha256, metrics={})


def save_weights(path: str | os.PathLike[str], state_dict: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> str:
    """Write a backbone and its configuration as a safetensors file, and return its sha256.

    The bytes depend only on the arguments.

    `state_dict`: tensors of a plain model without a head. Floats are stored as float16, except the first convolution,
    which is stored as float32 with three input channels: a one-channel kernel is divided by three and repeated.
    Counters (int64 without dimensions) are stored unchanged. `config`: the fields of `Weights` without `sha256`,
    `location` and `metrics`; `num_params` is counted here, `mean` and `std` may be one number, and `license` is
    "unknown" by default.

    Raises `WeightsCorrupted`, and writes nothing, for a head, a first convolution that is missing or has neither 1 nor
    3 input channels, other integers, values that are not finite or beyond float16's range, or an incomplete `config`.
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
    sha256 = hashlib.sha256(data).hexdigest()
    _check_header(weight_file.VerifiedFile(location, data, sha256, weight_file.read_header(location, data)))
    write_atomically(location, data)
    return sha256


def _packed(state_dict: "Mapping[str, Tensor]", architecture: Architecture, location: Path) -> "dict[str, Tensor]":
    """Convert tensors for storage: contiguous, on the CPU, in their stored dtypes. Raises `WeightsCorrupted`."""
    import torch

    first_conv = f"{architecture.first_conv}.weight"
    if first_conv not in state_dict:
        raise WeightsCorrupted(f"{location}: expected the keys of a plain model, found no {first_conv}")
    packed = {}
    for key, tensor in state_dict.items():
        if key.startswith(f"{architecture.classifier}."):
            raise WeightsCorrupted(
                f"{location}: expected a backbone without a head, found {key}; remove the head's tensors"
            )
        stored = tensor.detach().cpu()
        if key == first_conv:
            stored = stored.float()
            if stored.ndim != 4 or stored.shape[1] not in (1, 3):
                raise WeightsCorrupted(
                    f"{location}: expected {key} with the shape [outputs, 1 or 3, height, width], found "
                    f"{list(stored.shape)}; build the network with in_chans=1 or in_chans=3"
                )
            if stored.shape[1] == 1:
                stored = (stored / 3).repeat(1, 3, 1, 1)
        elif stored.is_floating_point():
            stored = stored.half()
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise WeightsCorrupted(
                f"{location}: expected finite values in {stored.dtype}, found NaN or infinity in {key}"
            )
        packed[key] = stored.contiguous().clone()
    return packed


def _is_number(value: object, kind: Any = (int, float)) -> bool:
    """Whether `value` is a finite number. A boolean is not a number here, although Python counts it as an integer."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_text(value: object) -> bool:
    """Whether `value` is text without line breaks, terminal escapes and other control characters."""
    return isinstance(value, str) and value.isprintable()


def _brief(value: object) -> str:
    """`repr` for an error, of limited depth and length, because a file's configuration may hold any value."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)


def _is_one_number_thrice(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values)) and len(set(values)) == 1


def _is_size(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) != 3 or not all(_is_number(value, int) for value in values):
        return False
    channels, height, width = values
    return channels == 3 and 1 <= height == width <= MAX_SIZE


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
