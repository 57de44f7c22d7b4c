"""`embed` beside what it cannot do without: decoding alone, and the bare network on batches that are ready."""

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
from c2l_models.releases.registry import Weights, default_weights

from ..distributed import pick_device
from .decode_only import decode_all
from .prepare_speed import film_files, link, synthetic_films
from .timing import Machine, Work, load_average, pairwise, save, source_name, spread, take_turns


@dataclass(frozen=True)
class EmbedBenchmark:
    """Whole calls of `embed`, of decoding alone and of the bare forward pass, by turns in one run.

    Attributes:
        source: the folder of the films, or what stands in for it.
        files, films: how many files a call reads, and of how many different films they are.
        workers: decoding processes; `embed` itself reads with threads.
        embed, decode, forward: seconds of a call, one a round.
    """

    source: str
    model: str
    files: int
    films: int
    batch_size: int
    workers: int
    machine: Machine
    embed: tuple[float, ...]
    decode: tuple[float, ...]
    forward: tuple[float, ...]

    @property
    def parts(self) -> tuple[float, ...]:
        """Seconds of decoding and then the forward pass, one a round: on a CPU they share the cores."""
        return tuple(sum(pair) for pair in zip(self.decode, self.forward, strict=True))

    @property
    def longest(self) -> tuple[float, ...]:
        """Seconds of the longer of the two, one a round: where they do not share, as with a GPU, the least there is."""
        return tuple(map(max, self.decode, self.forward))

    @property
    def ratios(self) -> dict[str, float]:
        """The rate of `embed` over that of its parts in turn, and over that of the longer, medians over rounds."""
        return {name: median(pairwise(times, self.embed)) for name, times in self._bounds().items()}

    def _bounds(self) -> dict[str, tuple[float, ...]]:
        return {"in turn": self.parts, "overlapped": self.longest}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        save(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.files:,} files of {self.source} ({self.films} different films), {self.model}, batches of "
            f"{self.batch_size}, {self.workers} processes to decode",
            caption=f"{self.machine}; medians of {len(self.embed)} rounds",
        )
        table.add_column("")
        for column in ("images/s", "rate of embed over it"):
            table.add_column(column, justify="right")
        own = {"decoding alone": self.decode, "bare forward pass": self.forward}
        bounds = {f"both, {name}": times for name, times in self._bounds().items()}
        for name, seconds in ({"c2l embed": self.embed} | own | bounds).items():
            ratio = spread(pairwise(seconds, self.embed)) if name in bounds else ""
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
    """Time `embed`, decoding alone and the bare forward pass by turns, on the same files.

    Args:
        images: a folder of PNG or JPEG films; None: synthetic films of 1024 pixels.
        architecture: whose default release computes.
        files: how many a call reads: links to the films, which are fewer.
        batch_size: of `embed` and of the forward pass.
        workers: processes of decoding alone, by default one a core.
        repeats: rounds.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        progress: show a progress line.

    Raises:
        DatasetError: the folder holds no PNG and no JPEG, or one that cannot be read.
    """
    workers = workers or os.cpu_count() or 1
    before, place = load_average(), pick_device(device)
    weights = default_weights(architecture)
    network = create_model(architecture, weights=weights, in_chans=1).eval().to(place)
    with tempfile.TemporaryDirectory() as folder:
        films = film_files(images or synthetic_films(Path(folder) / "synthetic"))
        paths = sorted(link(films, files, Path(folder) / "files").iterdir())
        works: dict[str, Work] = {
            "embed": partial(_embed, paths, network, batch_size),
            "decode": partial(decode_all, paths, workers),
            "forward": partial(_forward, network, ready_batches(paths[: len(films)], weights, files, batch_size)),
        }
        seconds = take_turns(works, repeats, place, progress)
    return EmbedBenchmark(
        source=source_name(images),
        model=weights.name,
        files=files,
        films=len(films),
        batch_size=batch_size,
        workers=workers,
        machine=Machine.now(place, before),
        **seconds,
    )


def ready_batches(paths: Sequence[Path], weights: Weights, count: int, batch_size: int) -> list[Tensor]:
    """`count` images in batches [B, 1, S, S], as the network takes them; of few films, again and again."""
    transform = weights.transform(in_chans=1)
    films = torch.stack([transform(path) for path in paths[:batch_size]])
    return [
        films[torch.arange(start, min(start + batch_size, count)) % len(films)] for start in range(0, count, batch_size)
    ]


def _embed(paths: Sequence[Path], network: nn.Module, batch_size: int) -> None:
    found = embed(paths, network, batch_size)
    if found.errors:
        raise DatasetError(f"{len(found.errors)} of the films cannot be read: `c2l embed` says which, and why")


def _forward(network: nn.Module, batches: Sequence[Tensor]) -> None:
    place = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            network(batch.to(place)).cpu()
