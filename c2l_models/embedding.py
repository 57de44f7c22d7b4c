"""Radiograph files -> a feature matrix: threads read, while a GPU computes or in turn with a CPU."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import C2LError, RadiographError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

METADATA_KEY = "c2l"
"""Of the Parquet files' metadata."""

READERS = min(16, os.cpu_count() or 1)


@dataclass(frozen=True)
class Embeddings:
    """`features` float32 [N, D], a row for each of the N `paths`; `errors`: why others were not read.

    `model`: the release's name or the weight file that computed them, and `sha256` that of its bytes; both empty where
    a model was given as it is.
    """

    features: np.ndarray
    paths: list[Path]
    errors: dict[Path, str] = field(default_factory=dict)
    model: str = ""
    sha256: str = ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file of two columns: path (string) and feature (list of D float32).

        Its schema's metadata has `model` and `sha256`, as JSON under "c2l".
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = pa.FixedSizeListArray.from_arrays(pa.array(self.features.ravel()), self.features.shape[1])
        table = pa.table({"path": [str(p) for p in self.paths], "feature": features})
        about = {METADATA_KEY: json.dumps({"model": self.model, "sha256": self.sha256})}
        pq.write_table(table.replace_schema_metadata(about), Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Read what `save` wrote. Raises `C2LError` for a file that is not that."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(Path(path), columns=["path", "feature"]).combine_chunks()
            rows = table["feature"].chunk(0) if len(table) else table["feature"].combine_chunks()
            features = rows.flatten().to_numpy(zero_copy_only=False)
            width = table.schema.field("feature").type.list_size
            about = json.loads((table.schema.metadata or {}).get(METADATA_KEY.encode(), "{}"))
            model, sha256 = (str(about.get(key, "")) for key in ("model", "sha256"))
        except (OSError, pa.ArrowException, AttributeError, KeyError, ValueError) as error:
            reason = f"not embeddings as Embeddings.save writes them ({type(error).__name__})"
            raise C2LError(f"{os.fspath(path)}: {reason}; make them with c2l embed") from None
        paths = [Path(p) for p in table["path"].to_pylist()]
        rows = features.astype(np.float32, copy=False).reshape(len(paths), width)
        return cls(rows, paths, model=model, sha256=sha256)


def embed(
    paths: Iterable[str | os.PathLike[str]],
    model: "str | os.PathLike[str] | nn.Module" = "resnet18",
    batch_size: int = 64,
    device: "str | torch.device | None" = None,
    *,
    progress: bool = False,
) -> Embeddings:
    """Features of radiograph files, in the order given; a file that cannot be read goes to `errors`.

    - `model`: an architecture (its default release), a release, a `.safetensors` file, or a timm
      model; a model is used as it is, in evaluation mode, and given back in the mode it had.
    - `device`: where to compute; by default a GPU where there is one, and a given model stays where
      it is. A given model is moved where another device is named.
    - `progress`: show a bar.

    Raises `C2LError` for a single path in place of a list, a wrong batch size, a model whose input
    is not described, or not prepared as `Transform` does (as ImageNet's), or that does not give one
    vector an image; `WeightsNotFound` or `WeightsCorrupted` for weights.
    """
    if isinstance(paths, str | os.PathLike):
        raise C2LError(f"one path ({os.fspath(paths)}) where a list of them was wanted: embed([path])")
    if batch_size < 1:
        raise C2LError(f"batch_size is {batch_size}, wanted 1 or more")
    import torch

    files = [Path(path) for path in paths]
    network, transform, about = _network(model)
    where = _device(network, device, given=isinstance(model, torch.nn.Module))
    network.to(where)
    features: list[np.ndarray] = []
    kept: list[Path] = []
    errors: dict[Path, str] = {}
    with evaluating(network), torch.inference_mode(), _bar(len(files), progress) as advance:
        for batch in _read(files, transform, batch_size, ahead=where.type != "cpu"):
            errors |= {path: tensor for path, tensor in batch if isinstance(tensor, str)}
            good = [(path, tensor) for path, tensor in batch if not isinstance(tensor, str)]
            if good:
                inputs = torch.stack([tensor for _, tensor in good]).to(where)
                features.append(_features(network, inputs))
                kept += [path for path, _ in good]
            advance(len(batch))
    if not features:
        features.append(np.empty((0, getattr(network, "num_features", 0)), np.float32))
    return Embeddings(np.concatenate(features), kept, errors, **about)


def _network(
    model: "str | os.PathLike[str] | nn.Module",
) -> "tuple[nn.Module, Callable[[Any], Tensor], dict[str, str]]":
    """The network that `model` means, what makes its input of a file, and what `Embeddings` says of it."""
    from torch import nn

    if isinstance(model, nn.Module):
        return model, _transform(model), {}
    from .architectures import list_models
    from .models import model_from_file
    from .releases.registry import default_weights, open_weights

    source = default_weights(str(model)).name if model in list_models() else model
    weights, file = open_weights(source)
    # One channel costs a third of three, and gives the same features.
    network = model_from_file(weights, file, in_chans=1)
    name = str(source) if isinstance(source, str | os.PathLike) else weights.name
    return network, weights.transform(in_chans=1), {"model": name, "sha256": weights.sha256}


def _transform(model: "nn.Module") -> "Callable[[Any], Tensor]":
    """A timm model's preprocessing, by its `pretrained_cfg`, where it is one that `Transform` does."""
    from .radiographs.transform import Transform

    config = getattr(model, "pretrained_cfg", None) or {}
    kernels = [p for p in model.parameters() if p.ndim == 4]
    if not kernels or not {"input_size", "mean", "std"} <= config.keys():
        raise C2LError(
            f"a {type(model).__name__} without a pretrained_cfg (input_size, mean, std), so what its input "
            "looks like is unknown. Pass a model of c2l_models.create_model or timm.create_model"
        )
    others = [f"{key} {config[key]}" for key in ("mean", "std") if len(set(config[key])) != 1]
    usual = {"crop_pct": 1.0, "interpolation": "bilinear"}
    others += [f"{key} {config[key]}" for key, value in usual.items() if config.get(key, value) != value]
    if others:
        raise C2LError(
            f"a {type(model).__name__} whose pretrained_cfg has {', '.join(others)}; wanted one mean and one std "
            "for all channels, crop_pct 1.0 and bilinear, for a film has one channel and is not cropped. Compute "
            "its features with timm's own transform: "
            "timm.data.create_transform(**timm.data.resolve_data_config(model=model))"
        )
    return Transform(config["input_size"][-1], config["mean"][0], config["std"][0], in_chans=kernels[0].shape[1])


def _device(network: "nn.Module", device: "str | torch.device | None", given: bool) -> "torch.device":
    import torch

    if device is None and given:
        return next(network.parameters()).device
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise C2LError(f"no device {device!r}: wanted cpu, cuda, cuda:0, ...") from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise C2LError(f"device {device!r}, but torch finds no GPU here; wanted 'cpu', or None to choose")
    return where


def _read(
    files: list[Path], transform: "Callable[[Any], Tensor]", batch_size: int, ahead: bool
) -> "Iterator[list[tuple[Path, Tensor | str]]]":
    """Batches of (file, its tensor or why there is none); `ahead`: the next is being read while one is used.

    On a CPU that would not pay: readers and network would take each other's cores.
    """

    def read(path: Path) -> "tuple[Path, Tensor | str]":
        try:
            return path, transform(path)
        except RadiographError as error:
            return path, str(error).removeprefix(f"{path}: ")

    with ThreadPoolExecutor(READERS, thread_name_prefix="c2l-read") as pool:
        waiting: deque[list[Future[tuple[Path, Tensor | str]]]] = deque()
        for start in range(0, len(files), batch_size):
            waiting.append([pool.submit(read, path) for path in files[start : start + batch_size]])
            if len(waiting) > ahead:
                yield [future.result() for future in waiting.popleft()]
        for batch in waiting:
            yield [future.result() for future in batch]


def _features(network: Any, inputs: "Tensor") -> np.ndarray:
    """Pooled features before any head, float32 [B, D]."""
    if hasattr(network, "forward_head"):
        outputs = network.forward_head(network.forward_features(inputs), pre_logits=True)
    else:
        outputs = network(inputs)
    if getattr(outputs, "ndim", 0) != 2:
        raise C2LError("a model without one vector an image; leave out features_only and global_pool=''")
    return outputs.float().cpu().numpy()


@contextmanager
def evaluating(network: "nn.Module") -> Iterator[None]:
    """Evaluation mode inside; afterwards each module in the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar's advance function, or one that does nothing."""
    if not shown:
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading and embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
