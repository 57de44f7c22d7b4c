"""`c2l prepare` beside decoding alone with the same library, on the same files, processes and cores."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from rich.table import Table

from c2l_models.errors import DatasetError
from c2l_models.radiographs.phantom import films

from ..store.prepare import prepare
from .decode_only import decode_all
from .timing import Machine, Work, load_average, pairwise, save, source_name, spread, take_turns

KINDS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg")}
QUALITY = 90  # of films that are saved as JPEG here
FILMS, SIDE = 16, 1024  # synthetic ones, where no folder is given


@dataclass(frozen=True)
class PrepareBenchmark:
    """Whole calls of `prepare` and of decoding alone, by turns in one run; both include starting the processes.

    Attributes:
        source: the folder of the films, or what stands in for it.
        files, films: how many files a call reads, and of how many different films they are.
        size: the stored images' side in pixels.
        prepare, decode: seconds of a call, one a round, by kind of file.
    """

    source: str
    files: int
    films: dict[str, int]
    size: int
    workers: int
    machine: Machine
    prepare: dict[str, tuple[float, ...]]
    decode: dict[str, tuple[float, ...]]

    @property
    def ratios(self) -> dict[str, float]:
        """The rate of `prepare` over that of decoding alone, medians over rounds."""
        return {kind: median(pairwise(self.decode[kind], self.prepare[kind])) for kind in self.prepare}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        save(self, path, ratios=self.ratios)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.files:,} files of {self.source} to {self.size} pixels, {self.workers} processes",
            caption=f"{self.machine}; medians of {len(next(iter(self.prepare.values())))} rounds",
        )
        table.add_column("")
        for column in ("different films", "c2l prepare, images/s", "decoding alone, images/s", "ratio of rates"):
            table.add_column(column, justify="right")
        for kind, count in self.films.items():
            rates = [f"{self.files / median(seconds[kind]):,.1f}" for seconds in (self.prepare, self.decode)]
            table.add_row(kind, str(count), *rates, spread(pairwise(self.decode[kind], self.prepare[kind])))
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
    """Time `prepare` and decoding alone by turns, on PNG and on JPEG.

    Args:
        images: a folder of PNG or JPEG films; a kind that it has none of is made of the other. None: synthetic films
            of 1024 pixels.
        size: the stored images' side, pixels.
        files: how many a call reads: links to the films, which are fewer.
        workers: processes, by default one a core.
        repeats: rounds.
        kind: "PNG" or "JPEG" alone; None: both.
        progress: show a progress line.

    Raises:
        DatasetError: the folder holds no PNG and no JPEG.
    """
    workers = workers or os.cpu_count() or 1
    before, cpu = load_average(), torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = films_by_kind(images or synthetic_films(Path(folder) / "synthetic"), Path(folder))
        works: dict[str, Work] = {}
        found = {name: paths for name, paths in found.items() if kind in (None, name)}
        for name, paths in found.items():
            root = link(paths, files, Path(folder) / f"{name} files")
            works[f"prepare {name}"] = partial(_prepare, root, size, workers)
            works[f"decode {name}"] = partial(decode_all, sorted(root.iterdir()), workers)
        seconds = take_turns(works, repeats, cpu, progress)
    return PrepareBenchmark(
        source=source_name(images),
        files=files,
        films={kind: len(paths) for kind, paths in found.items()},
        size=size,
        workers=workers,
        machine=Machine.now(cpu, before),
        prepare={kind: seconds[f"prepare {kind}"] for kind in found},
        decode={kind: seconds[f"decode {kind}"] for kind in found},
    )


def _prepare(root: Path, size: int, workers: int) -> None:
    out = root.with_name("store")
    report = prepare([("folder", root)], out, size, workers, progress=False)
    shutil.rmtree(out)
    if report.refused:
        raise DatasetError(f"{report.refused} of the films cannot be read: `c2l prepare` says which, and why")


def synthetic_films(folder: Path) -> Path:
    """A folder of synthetic films as PNG, for where no others are given."""
    folder.mkdir()
    for number, film in enumerate(films(FILMS, seed=0, size=SIDE)):
        Image.fromarray(film.pixels).save(folder / f"{number}.png")
    return folder


def films_by_kind(images: Path, folder: Path) -> dict[str, list[Path]]:
    """Films of each of `KINDS`: those that there are, else the same films saved anew under `folder`."""
    there = film_files(images)
    found = {kind: [path for path in there if path.suffix.lower() in KINDS[kind]] for kind in KINDS}
    png, jpeg = found["PNG"], found["JPEG"]
    return {
        "PNG": png or saved_as("PNG", jpeg, folder / "PNG"),
        "JPEG": jpeg or saved_as("JPEG", png, folder / "JPEG"),
    }


def film_files(images: Path) -> list[Path]:
    """The PNG and JPEG files under a folder. Raises DatasetError where there is none."""
    suffixes = {suffix for kind in KINDS.values() for suffix in kind}
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not found:
        raise DatasetError(f"{images} holds no PNG and no JPEG; give a folder of films")
    return found


def saved_as(kind: str, paths: Sequence[Path], folder: Path) -> list[Path]:
    """The films as 8-bit gray files of another kind."""
    folder.mkdir()
    saved = [folder / f"{number}{KINDS[kind][0]}" for number in range(len(paths))]
    for source, target in zip(paths, saved, strict=True):
        with Image.open(source) as image:
            image.convert("L").save(target, kind, quality=QUALITY)  # which PNG has no use for
    return saved


def link(paths: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder of `count` links to these files, in turn."""
    folder.mkdir()
    for number, path in enumerate(islice(cycle(paths), count)):
        (folder / f"{number:06}{path.suffix}").symlink_to(path.resolve())
    return folder
