"""Export a network to ONNX or torch.export (.pt2), after checking that both compute the same features."""

import io
import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..architectures import find_architecture
from ..errors import C2LError, WeightsNotFound
from ..files import write_atomically
from ..hub.weight_file import FILE_NAME
from ..releases.record import Weights
from ..releases.registry import Source, open_weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.export import ExportedProgram

TOLERANCE = 1e-4
"""Largest allowed difference from the network in eager mode, as a share of the largest feature.

Float32 sums in another order differ by about 1e-6.
"""

ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")

INPUT, OUTPUT = "image", "features"

PT2_METADATA = "c2l.json"
"""Name of the extra file in a .pt2 that holds the metadata. In ONNX, the metadata are properties of the model."""

FORMATS = ("safetensors", "onnx", "pt2")

Run = Callable[["Tensor"], "np.ndarray"]


class Exported(NamedTuple):
    """The exported file, and the largest difference of its features, as a share of the network's largest feature."""

    path: Path
    difference: float


def export_weights(source: Source, out: str | os.PathLike[str], format: str) -> Exported:
    """Export the network of a release or weight file as "onnx", "pt2" or "safetensors" (a copy of the weight file).

    The ONNX or .pt2 network takes `image`, float32 [B, 1, S, S], (pixels / 255 - mean) / std, and returns `features`,
    float32 [B, D], for any batch size B. S, mean, std, the release and its sha256 are stored as metadata. Before the
    file is written, its bytes are loaded and run on two batches, ONNX by onnxruntime.

    Raises `C2LError` if the features differ or a library is missing (extra `[export]`), and for weights as
    `create_model`.
    """
    from ..embedding import evaluating
    from ..models import model_from_file

    path = Path(out)
    if format not in FORMATS:
        raise C2LError(f"expected one of the formats {', '.join(FORMATS)}, found {format!r}")
    if format == "onnx":
        _check_libraries()
    try:
        weights, file = open_weights(source)
    except WeightsNotFound as error:
        raise WeightsNotFound(f"expected a run folder, a release or a weight file, found {source}: {error}") from None
    if format == "safetensors":
        write_atomically(path, file.data)
        return Exported(path, 0.0)
    network = model_from_file(weights, file, in_chans=1).float()  # whatever torch's default dtype
    with evaluating(network):
        data, run = (_onnx if format == "onnx" else _pt2)(network, metadata(weights), weights.input_size[-1])
        differences = [_difference(network, run, weights, batch) for batch in (1, 3)]
    difference = max(differences)
    if not all(one <= TOLERANCE for one in differences):  # NaN fails this comparison
        raise C2LError(
            f"{path}: not written, because the exported features differ by {difference:.1e} of the largest feature; "
            f"expected at most {TOLERANCE:.0e}. Try another version of torch or onnxruntime"
        )
    write_atomically(path, data)
    return Exported(path, difference)


def is_run_folder(target: str | os.PathLike[str]) -> bool:
    """Whether `target` is a folder without `model.safetensors`, so that it can only be a run folder."""
    return Path(target).is_dir() and not (Path(target) / FILE_NAME).is_file()


def metadata(weights: Weights) -> dict[str, str]:
    """The metadata of an exported file, as strings."""
    return {
        "release": weights.name,
        "architecture": weights.architecture,
        "sha256": weights.sha256,
        "size": str(weights.input_size[-1]),
        "mean": str(weights.mean[0]),
        "std": str(weights.std[0]),
        "input": "float32 [batch, 1, size, size]: gray pixels, (pixel / 255 - mean) / std",
        "output": f"float32 [batch, {find_architecture(weights.architecture).num_features}]",
        "license": weights.license,
    }


def _onnx(network: "nn.Module", metadata: Mapping[str, str], size: int) -> tuple[bytes, Run]:
    import onnx
    import onnxruntime
    import torch

    translated: Any = torch.onnx.export(
        _program(network, size),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),  # the axis's name
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    model = translated.model_proto
    onnx.helper.set_model_props(model, dict(metadata))
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0]


def _pt2(network: "nn.Module", metadata: Mapping[str, str], size: int) -> tuple[bytes, Run]:
    import torch

    buffer = io.BytesIO()
    torch.export.save(_program(network, size), buffer, extra_files={PT2_METADATA: json.dumps(metadata)})
    data = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(data)).module()
    return data, lambda images: loaded(images).numpy()


def _program(network: "nn.Module", size: int) -> "ExportedProgram":
    """Trace the network for any batch size. Stack traces are removed, because they hold paths of this machine."""
    import torch

    example = torch.zeros(2, 1, size, size, dtype=torch.float32)  # with a batch of one, torch would fix the batch size
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _difference(network: "nn.Module", run: Run, weights: Weights, batch: int) -> float:
    """Return the largest difference of features on noisy test images, as a share of the largest feature."""
    import torch

    from ..verification import golden_image

    image = weights.transform(in_chans=1)(golden_image(weights.input_size[-1]))
    noise = torch.randn(batch, *image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    with torch.inference_mode():
        expected = network(image + noise)
        found = torch.from_numpy(run(image + noise))
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


def _check_libraries() -> None:
    for name in ONNX_MODULES:
        try:
            import_module(name)
        except ModuleNotFoundError:
            raise C2LError(f"ONNX needs {name}, which is not installed: pip install 'c2l-models[export]'") from None
