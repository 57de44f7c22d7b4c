"""`c2l benchmark prepare`: `c2l prepare` compared with decoding alone: same library, files, processes and cores."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.table import Table

from c2l_models.errors import DatasetError

from ..store.prepare import prepare
from .decode_only import decode_all
from .input_images import images_by_kind, link_files, source_name, synthetic_images
from .timing import Machine, Workload, load_average, median_and_range, ratios_by_round, save_json, time_alternately


@dataclass(frozen=True)
class PrepareBenchmark:
    """Seconds of `prepare` and of decoding alone, timed alternately; both include the start of the processes.

    Attributes:
        source: the folder of the images, or "synthetic images".
        files: number of files per call.
        distinct_images: number of different images that the files link to, by kind of file.
        size: side of the stored images in pixels.
        workers: decoding processes.
        prepare, decode: seconds per call, one value per round, by kind of file.
    """

    source: str
    files: int
    distinct_images: dict[str, int]
    size: int
    workers: int
    machine: Machine
    prepare: dict[str, tuple[float, ...]]
    decode: dict[str, tuple[float, ...]]

    @property
    def ratios(self) -> dict[str, float]:
        """The rate of `prepare` divided by the rate of decoding alone; medians over rounds."""
        return {kind: median(ratios_by_round(self.decode[kind], self.prepare[kind])) for kind in self.prepare}

    def save(self, path: Path) -> None:
        """Write all values as JSON."""
        save_json(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.files:,} files of {self.source} to {self.size} pixels, {self.workers} processes",
            caption=f"{self.machine}; medians of {len(next(iter(self.prepare.values())))} rounds",
        )
        table.add_column("")
        for column in ("different images", "c2l prepare, images/s", "decoding alone, images/s", "ratio of rates"):
            table.add_column(column, justify="right")
        for kind, count in self.distinct_images.items():
            rates = [f"{self.files / median(seconds[kind]):,.1f}" for seconds in (self.prepare, self.decode)]
            ratio = median_and_range(ratios_by_round(self.decode[kind], self.prepare[kind]))
            table.add_row(kind, str(count), *rates, ratio)
        return table


def time_prepare(
    images: Path | None = None,
    size: int = 128,
    files: int = 1000,
    workers: int | None = None,
    repeats: int = 5,
    kind: str | None = None,
    progress: bool = True,
) -> PrepareBenchmark:
    """Time `prepare` and decoding alone alternately, on PNG and on JPEG files.

    Args:
        images: a folder of PNG or JPEG images. If one kind is missing, images of the other kind are converted. None
            uses synthetic images of 1024 pixels.
        size: side of the stored images in pixels.
        files: number of files per call; each is a link to an image, and several may link to the same image.
        workers: number of decoding processes, by default one per core.
        repeats: number of rounds.
        kind: "PNG" or "JPEG"; None times both.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder contains no PNG or JPEG file, or an image that cannot be read.
    """
    workers = workers or os.cpu_count() or 1
    load_before, cpu = load_average(), torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = images_by_kind(images or synthetic_images(Path(folder) / "synthetic"), Path(folder))
        found = {name: paths for name, paths in found.items() if kind in (None, name)}
        workloads: dict[str, Workload] = {}
        for name, paths in found.items():
            root = link_files(paths, files, Path(folder) / f"{name} files")
            workloads[f"prepare {name}"] = partial(_prepare, root, size, workers)
            workloads[f"decode {name}"] = partial(decode_all, sorted(root.iterdir()), workers)
        seconds = time_alternately(workloads, repeats, cpu, progress)
    return PrepareBenchmark(
        source=source_name(images),
        files=files,
        distinct_images={kind: len(paths) for kind, paths in found.items()},
        size=size,
        workers=workers,
        machine=Machine.after_benchmark(cpu, load_before),
        prepare={kind: seconds[f"prepare {kind}"] for kind in found},
        decode={kind: seconds[f"decode {kind}"] for kind in found},
    )


def _prepare(root: Path, size: int, workers: int) -> None:
    out = root.with_name("store")
    report = prepare([("folder", root)], out, size, workers, progress=False)
    shutil.rmtree(out)
    if report.refused:
        raise DatasetError(f"{report.refused} images cannot be read; run `c2l prepare` to see which and why")
