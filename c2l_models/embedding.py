"""Compute features of radiograph files: `embed`, and the table that it returns.

Threads read the next batch while a GPU computes. On a CPU, reading and computing alternate.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from .devices import find_device, input_dtype
from .errors import C2LError, MachineError, RadiographError
from .feature_files import FeatureTable, read_features, write_features
from .progress import stage
from .readouts import Readout, compute_features, feature_width

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .radiographs.transform import Transform
    from .releases.registry import Source

BATCH_SIZE = 64  # images
READERS = min(16, os.cpu_count() or 1)  # threads


@dataclass(frozen=True)
class Embeddings:
    """Features of radiograph files.

    Attributes:
        features: float32 [N, D], one row per path.
        paths: the N files.
        errors: files that could not be read, each with the reason.
        model: release or weight file that computed the features; empty for a model object.
        sha256: hash of the weight file; empty for a model object.
        readout: how the features were read, as `features` of `embed`.
    """

    features: np.ndarray
    paths: list[Path]
    errors: dict[Path, str] = field(default_factory=dict)
    model: str = ""
    sha256: str = ""
    readout: Readout = "pooled"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file in the format of its suffix.

        - .parquet: columns path and feature (a list of D float32).
        - .npz: arrays paths and features.
        - .npy: the features only, in the order of the paths.
        - .csv: columns path and 0 to D-1.

        `model`, `sha256` and `readout` are written to .parquet and .npz. `errors` are not written. Raises `C2LError`
        for another suffix.
        """
        write_features(Path(path), self.table())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Read a .parquet or .npz file that `save` wrote. Raises `C2LError` for any other file, or none."""
        return cls.from_table(read_features(Path(path)))

    def table(self) -> FeatureTable:
        """The content of a file, without stamps."""
        return FeatureTable(
            self.features, self.paths, {key: getattr(self, key) for key in ("model", "sha256", "readout")}
        )

    @classmethod
    def from_table(cls, table: FeatureTable) -> "Embeddings":
        """The features in the content of a file."""
        model, sha256 = (str(table.source.get(key, "")) for key in ("model", "sha256"))
        readout = cast(Readout, str(table.source.get("readout", "pooled")))  # older files lack it
        return cls(table.features, table.paths, model=model, sha256=sha256, readout=readout)


class EmbedInterrupted(KeyboardInterrupt):
    """`embed` was interrupted by Ctrl-C. `embeddings` holds the features so far."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings


class EmbedStopped(MachineError):
    """`embed` stopped because this machine cannot read a file, or because torch failed after the first batch.

    `embeddings` holds the features so far.
    """

    def __init__(self, message: str, embeddings: Embeddings) -> None:
        super().__init__(message)
        self.embeddings = embeddings


def embed(
    paths: Iterable[str | os.PathLike[str]],
    model: "Source | nn.Module" = "resnet18",
    batch_size: int = BATCH_SIZE,
    device: "str | torch.device | None" = None,
    *,
    features: Readout = "pooled",
    progress: bool = False,
    readers: int = READERS,
    after_batch: "Callable[[Callable[[], Embeddings]], None] | None" = None,
) -> Embeddings:
    """Compute the features of radiograph files, in their order. Files that cannot be read are listed in `errors`.

    Args:
        paths: PNG, JPEG, TIFF, BMP or DICOM files.
        model: an architecture's name (its default release), a release, a `Weights`, a `.safetensors` file, a folder
            with `model.safetensors`, `hf-hub:owner/name[@revision]`, or a timm model. A timm model is used in
            evaluation mode, and its own mode is restored afterwards.
        batch_size: images per forward pass.
        device: device to compute on; a timm model is moved there. Default: the device of a timm model; otherwise a GPU
            if there is one, or else the CPU.
        features: "pooled" for the network's own features, the average of its last feature map; "multiscale" for the
            averages of its last three feature maps together (896 numbers of a ResNet-18 instead of 512). A linear
            probe of chests and of knees had a higher AUROC with them.
        progress: show a progress bar.
        readers: number of threads that read files.
        after_batch: called after each batch with a function that returns the features so far, to keep them.

    Raises:
        C2LError: one path instead of a list, a batch size below 1, an unknown `features`, a device that this machine
            cannot use, or a model that is not suitable: without a description of its input, with other preprocessing
            than `Transform` (such as that of ImageNet), without one vector per image, or without feature maps for
            "multiscale".
        WeightsNotFound, WeightsCorrupted, HubRefused, HubUnavailable, HubCacheError: as in `create_model`.
        EmbedStopped: a MachineError that holds the features so far. A disk that fails, too little memory or a missing
            decoder (pydicom for DICOM files) would leave out all such films, so `embed` stops at the first one. Also
            if torch raises RuntimeError after the first batch, such as for too little memory of the GPU.
        EmbedInterrupted: Ctrl-C, a KeyboardInterrupt that holds the features so far.
    """
    if isinstance(paths, str | os.PathLike):
        raise C2LError(f"expected a list of paths, found one path ({os.fspath(paths)}); write embed([path])")
    if batch_size < 1:
        raise C2LError(f"expected a batch_size of 1 or more, found {batch_size}")
    if features not in get_args(Readout):
        raise C2LError(f"expected features to be one of {', '.join(get_args(Readout))}, found {features!r}")
    import torch

    files = [Path(path) for path in paths]
    network, transform, source = resolve_model(model)
    target = _resolve_device(network, device, own=isinstance(model, torch.nn.Module))
    network.to(target)
    computed: list[np.ndarray] = []
    kept: list[Path] = []
    errors: dict[Path, str] = {}

    def so_far() -> Embeddings:
        rows = np.concatenate(computed or [np.empty((0, feature_width(network, features)), np.float32)])
        return Embeddings(rows[: len(kept)], kept, errors, readout=features, **source)

    try:
        with (
            evaluating(network),
            torch.inference_mode(),
            stage("embedding", len(files), "films", progress or None) as line,
        ):
            for batch in _read_batches(files, transform, batch_size, target.type != "cpu", readers):
                errors |= {path: tensor for path, tensor in batch if isinstance(tensor, str)}
                readable = [(path, tensor) for path, tensor in batch if not isinstance(tensor, str)]
                if readable:
                    inputs = torch.stack([tensor for _, tensor in readable]).to(target, input_dtype(network))
                    computed.append(compute_features(network, inputs, features))
                    kept += [path for path, _ in readable]
                line.advance(len(batch))
                if after_batch:
                    after_batch(so_far)
    except KeyboardInterrupt:
        raise EmbedInterrupted(so_far()) from None
    except MachineError as error:
        raise EmbedStopped(str(error), so_far()) from None
    except RuntimeError as error:  # of torch, such as too little memory of a GPU that another process uses too
        if not kept:  # the model or the device may be unsuitable, so the whole traceback is of use
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EmbedStopped(f"torch failed to compute features on {target}: {reason}", so_far()) from error
    return so_far()


def feature_count(model: "Source | nn.Module" = "resnet18", features: Readout = "pooled") -> int:
    """Number of features that `embed` computes per image with this model. Raises as `embed`.

    The tensors of a release are not read, because its architecture determines the number.
    """
    import timm
    import torch

    from .releases.registry import resolve

    if isinstance(model, torch.nn.Module):
        network, _, _ = resolve_model(model)
    else:
        with torch.device("meta"):  # shapes alone
            network = timm.create_model(resolve(_source(model)).architecture, num_classes=0)
    return feature_width(network, features)


def resolve_model(
    model: "Source | nn.Module",
) -> "tuple[nn.Module, Transform, dict[str, str]]":
    """The network, its preprocessing, and the `model` and `sha256` of `Embeddings`."""
    from torch import nn

    if isinstance(model, nn.Module):
        return model, _transform(model), {}
    from .models import model_from_file
    from .releases.registry import open_weights

    source = _source(model)
    weights, file = open_weights(source)
    # One input channel gives the same features as three, for a third of the input.
    network = model_from_file(weights, file, in_chans=1).float()  # whatever torch's default dtype
    name = str(source) if isinstance(source, str | os.PathLike) else weights.name
    return network, weights.transform(in_chans=1), {"model": name, "sha256": weights.sha256}


def _source(model: "Source") -> "Source":
    """The name of an architecture's default release, or the release or weight file itself."""
    from .architectures import list_models
    from .releases.registry import default_weights

    return default_weights(str(model)).name if model in list_models() else model


def _transform(model: "nn.Module") -> "Transform":
    """The preprocessing that a timm model's `pretrained_cfg` describes, if `Transform` can do it."""
    from .radiographs.transform import Transform

    config = getattr(model, "pretrained_cfg", None) or {}
    kernels = [p for p in model.parameters() if p.ndim == 4]
    if not kernels or not {"input_size", "mean", "std"} <= config.keys():
        raise C2LError(
            f"expected a model with a pretrained_cfg (input_size, mean, std), found a {type(model).__name__} without; "
            "pass a model from c2l_models.create_model or timm.create_model"
        )
    unsupported = [f"{key} {config[key]}" for key in ("mean", "std") if len(set(config[key])) != 1]
    supported = {"crop_pct": 1.0, "interpolation": "bilinear"}
    unsupported += [f"{key} {config[key]}" for key, value in supported.items() if config.get(key, value) != value]
    if unsupported:
        raise C2LError(
            "expected a pretrained_cfg with one mean and one std for all channels, crop_pct 1.0 and bilinear, found "
            f"{', '.join(unsupported)} in a {type(model).__name__}; compute its features with timm's own transform: "
            "timm.data.create_transform(**timm.data.resolve_data_config(model=model))"
        )
    return Transform(config["input_size"][-1], config["mean"][0], config["std"][0], in_chans=kernels[0].shape[1])


def _resolve_device(network: "nn.Module", device: "str | torch.device | None", own: bool) -> "torch.device":
    """The device to compute on. `own`: the network is the caller's, so it stays on its device by default."""
    import torch

    if device is None and own:
        return find_device(next(network.parameters()).device)
    return find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _read_batches(
    files: list[Path], transform: "Callable[[Any], Tensor]", batch_size: int, ahead: bool, readers: int = READERS
) -> "Iterator[list[tuple[Path, Tensor | str]]]":
    """Yield batches of (file, its tensor or the reason why it cannot be read). Raises MachineError.

    With `ahead`, the next batch is read while one is processed. On a CPU this would not be faster, because reading and
    computing would share the cores.
    """

    def read(path: Path) -> "tuple[Path, Tensor | str]":
        try:
            return path, transform(path)
        except MachineError:
            raise
        except RadiographError as error:
            return path, str(error).removeprefix(f"{path}: ")

    with ThreadPoolExecutor(readers, thread_name_prefix="c2l-read") as pool:
        waiting: deque[list[Future[tuple[Path, Tensor | str]]]] = deque()
        for start in range(0, len(files), batch_size):
            waiting.append([pool.submit(read, path) for path in files[start : start + batch_size]])
            if len(waiting) > ahead:
                yield [future.result() for future in waiting.popleft()]
        for batch in waiting:
            yield [future.result() for future in batch]


@contextmanager
def evaluating(network: "nn.Module") -> Iterator[None]:
    """Put a network in evaluation mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
