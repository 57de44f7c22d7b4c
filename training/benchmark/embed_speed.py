"""`c2l benchmark embed`: `embed` compared with its two parts, decoding and the network's forward pass."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.table import Table
from torch import Tensor, nn

from c2l_models.embedding import embed, evaluating
from c2l_models.errors import DatasetError
from c2l_models.models import create_model
from c2l_models.releases.record import Weights
from c2l_models.releases.registry import default_weights

from ..distributed import pick_device
from .decode_only import decode_all
from .input_images import find_images, link_files, source_name, synthetic_images
from .timing import Machine, Workload, load_average, median_and_range, ratios_by_round, save_json, time_alternately


@dataclass(frozen=True)
class EmbedBenchmark:
    """Seconds of `embed`, of decoding alone and of the forward pass alone, timed alternately.

    Attributes:
        source: the folder of the images, or "synthetic images".
        model: name of the release.
        files: number of files per call.
        distinct_images: number of different images that the files link to.
        workers: decoding processes; `embed` itself uses threads.
        embed, decode, forward: seconds per call, one value per round.
    """

    source: str
    model: str
    files: int
    distinct_images: int
    batch_size: int
    workers: int
    machine: Machine
    embed: tuple[float, ...]
    decode: tuple[float, ...]
    forward: tuple[float, ...]

    @property
    def sequential(self) -> tuple[float, ...]:
        """Seconds of decoding plus forward pass, per round: the lower bound on a CPU, where both use the same cores."""
        return tuple(sum(pair) for pair in zip(self.decode, self.forward, strict=True))

    @property
    def overlapped(self) -> tuple[float, ...]:
        """Seconds of the longer part, per round: the lower bound if the parts run at the same time, as with a GPU."""
        return tuple(map(max, self.decode, self.forward))

    @property
    def ratios(self) -> dict[str, float]:
        """Seconds of each lower bound divided by the seconds of `embed`; medians over rounds."""
        return {name: median(ratios_by_round(times, self.embed)) for name, times in self._bounds().items()}

    def _bounds(self) -> dict[str, tuple[float, ...]]:
        return {"sequential": self.sequential, "overlapped": self.overlapped}

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        save_json(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.files:,} files of {self.source} ({self.distinct_images} different images), {self.model}, "
            f"batches of {self.batch_size}, {self.workers} decoding processes",
            caption=f"{self.machine}; medians of {len(self.embed)} rounds",
        )
        table.add_column("")
        for column in ("images/s", "rate of embed / this rate"):
            table.add_column(column, justify="right")
        parts = {"decoding alone": self.decode, "forward pass alone": self.forward}
        bounds = {f"both, {name}": times for name, times in self._bounds().items()}
        for name, seconds in ({"c2l embed": self.embed} | parts | bounds).items():
            ratio = median_and_range(ratios_by_round(seconds, self.embed)) if name in bounds else ""
            table.add_row(name, f"{self.files / median(seconds):,.1f}", ratio)
        return table


def time_embed(
    images: Path | None = None,
    architecture: str = "resnet18",
    files: int = 1000,
    batch_size: int = 64,
    workers: int | None = None,
    repeats: int = 5,
    device: str = "auto",
    progress: bool = True,
) -> EmbedBenchmark:
    """Time `embed`, decoding alone and the forward pass alone alternately, on the same files.

    Args:
        images: a folder of PNG or JPEG images; None uses synthetic images of 1024 pixels.
        architecture: its default release is used.
        files: number of files per call; each is a link to an image, and several may link to the same image.
        batch_size: batch size of `embed` and of the forward pass.
        workers: number of processes that decode in "decoding alone", by default one per core.
        repeats: number of rounds.
        device: "cpu", "cuda", or "auto": CUDA if available.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder contains no PNG or JPEG file, or an image that cannot be read.
    """
    workers = workers or os.cpu_count() or 1
    load_before, torch_device = load_average(), pick_device(device)
    weights = default_weights(architecture)
    network = create_model(architecture, weights=weights, in_chans=1).eval().to(torch_device)
    with tempfile.TemporaryDirectory() as folder:
        distinct = find_images(images or synthetic_images(Path(folder) / "synthetic"))
        paths = sorted(link_files(distinct, files, Path(folder) / "files").iterdir())
        batches = prepared_batches(paths[: len(distinct)], weights, files, batch_size)
        workloads: dict[str, Workload] = {
            "embed": partial(_embed, paths, network, batch_size),
            "decode": partial(decode_all, paths, workers),
            "forward": partial(_forward, network, batches),
        }
        seconds = time_alternately(workloads, repeats, torch_device, progress)
    return EmbedBenchmark(
        source=source_name(images),
        model=weights.name,
        files=files,
        distinct_images=len(distinct),
        batch_size=batch_size,
        workers=workers,
        machine=Machine.after_benchmark(torch_device, load_before),
        **seconds,
    )


def prepared_batches(paths: Sequence[Path], weights: Weights, count: int, batch_size: int) -> list[Tensor]:
    """`count` images in batches [B, 1, S, S], ready for the network; the first `batch_size` images are repeated."""
    transform = weights.transform(in_chans=1)
    images = torch.stack([transform(path) for path in paths[:batch_size]])
    return [
        images[torch.arange(start, min(start + batch_size, count)) % len(images)]
        for start in range(0, count, batch_size)
    ]


def _embed(paths: Sequence[Path], network: nn.Module, batch_size: int) -> None:
    found = embed(paths, network, batch_size)
    if found.errors:
        raise DatasetError(f"{len(found.errors)} images cannot be read; run `c2l embed` to see which and why")


def _forward(network: nn.Module, batches: Sequence[Tensor]) -> None:
    device = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            network(batch.to(device)).cpu()
