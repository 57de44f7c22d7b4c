"""`c2l benchmark step|input|prepare|embed|probe|peer|scaling|coverage`. Its flags are a function's arguments."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import arg

from c2l_models.files import check_file
from c2l_models.progress import stage

from .options import NETWORK

if TYPE_CHECKING:
    from ..recipe import Recipe

RecipeName = Annotated[str, arg(help="a recipe's name or .toml file")]
BatchSize = Annotated[int, arg(help="images per batch, instead of the recipe's batch size")]
Size = Annotated[int, arg(help="side of the images in pixels, instead of the recipe's size")]
Precision = Annotated[Literal["float32", "bfloat16"] | None, arg(help="by default the recipe's precision")]
Repeats = Annotated[int, arg(help="number of rounds; results are medians over the rounds")]
Device = Annotated[Literal["auto", "cpu", "cuda"], arg(help="auto uses CUDA if available")]
Images = Annotated[Path | None, arg(help="a folder of PNG or JPEG films; by default synthetic films are drawn")]
Files = Annotated[int, arg(help="number of files to read; if the folder has fewer, files are read repeatedly")]
Out = Annotated[Path | None, arg(help="a .json file for the timings of every round; by default none")]


def step(
    recipe: RecipeName = "open15k-resnet18",
    batch_size: BatchSize = 64,
    size: Size = 128,
    precision: Precision = None,
    repeats: Repeats = 7,
    device: Device = "auto",
    compile: bool = False,
    out: Out = None,
) -> None:
    """Time a pretraining step, its networks alone, and the roofline.

    Args:
        compile: also time a step with compiled networks; compiling takes minutes.
    """
    from ..benchmark.step_speed import time_step

    _show(lambda: time_step(_recipe(recipe, precision), batch_size, size, repeats, device, compile), out)


def input(
    store: Path | None = None,
    recipe: RecipeName = "open15k-resnet18",
    batch_size: BatchSize = 64,
    size: Size = 128,
    precision: Precision = None,
    repeats: Repeats = 7,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare the rate of augmented images from a store with the rate that a pretraining step consumes.

    Args:
        store: folder that `c2l prepare` wrote; by default a store of noise.
    """
    from ..benchmark.input_speed import time_input

    _show(lambda: time_input(_recipe(recipe, precision), store, batch_size, size, repeats, device), out)


def prepare(
    images: Images = None,
    size: int = 128,
    files: Files = 1000,
    workers: int | None = None,
    repeats: Repeats = 5,
    kind: Literal["PNG", "JPEG"] | None = None,
    out: Out = None,
) -> None:
    """Compare `c2l prepare` with decoding alone, by the same library on the same cores.

    Args:
        size: side of the stored images, pixels.
        workers: processes, for `c2l prepare` and for decoding alone; by default one per core.
        kind: file format; by default both are timed.
    """
    from ..benchmark.prepare_speed import time_prepare

    _show(lambda: time_prepare(images, size, files, workers, repeats, kind), out)


def embed(
    images: Images = None,
    architecture: str = "resnet18",
    files: Files = 1000,
    batch_size: int = 64,
    workers: int | None = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare `c2l embed` with decoding alone, and with the network alone on batches in memory.

    Args:
        architecture: its default release computes the features.
        batch_size: for `c2l embed` and for the network alone.
        workers: processes for decoding alone; by default one per core.
    """
    from ..benchmark.embed_speed import time_embed

    _show(lambda: time_embed(images, architecture, files, batch_size, workers, repeats, device), out)


def probe(
    store: Path,
    target: Annotated[str, arg(help=NETWORK)] = "resnet18.c2l_open26k",
    task: str = "chestxray14",
    size: int = 128,
    repeats: Repeats = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare `c2l probe` with reading its images from the store plus the network's forward pass.

    Args:
        store: folder that `c2l prepare` wrote, with images of the task.
        task: a task of `c2l probe`.
        size: input side, pixels.
    """
    from ..benchmark.probe_speed import time_probe
    from ..store.image_store import ImageStore

    _show(lambda: time_probe(ImageStore.open(store), target, task, size, repeats, device), out)


def peer(
    peer_python: Path | None = None,
    images: Images = None,
    recipe: RecipeName = "open15k-resnet18",
    batch_size: BatchSize = 64,
    size: Size = 128,
    precision: Precision = None,
    files: Files = 1000,
    steps: int = 20,
    workers: int | None = None,
    repeats: Repeats = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare pretraining end to end with Lightly's MoCo and its own data loader, on the same images.

    Args:
        peer_python: a Python interpreter with lightly, torch and torchvision; needed, although by default none.
        steps: number of steps timed in each round.
        workers: processes of Lightly's data loader; by default one per core.
    """
    from ..benchmark.peer_speed import time_peer

    chosen = _recipe(recipe, precision)
    _show(lambda: time_peer(chosen, images, peer_python, batch_size, size, files, steps, workers, repeats, device), out)


def scaling(
    images_per_second: float,
    gigabytes_per_second: float,
    recipe: RecipeName = "paper-resnet18",
    gpus: tuple[int, ...] = (1, 8, 64),
    images: int = 727_053,
    images_per_gpu: int = 32,
    count: bool = False,
) -> None:
    """Estimate a recipe's time on many GPUs, from one GPU's rate and the bytes exchanged between GPUs.

    Args:
        images_per_second: rate of one GPU, as `c2l benchmark step` measures it.
        gigabytes_per_second: rate at which one GPU receives data from the others, in 1e9 bytes.
        gpus: one or more numbers of GPUs; the time is estimated for each.
        images: number of images of the corpus; by default the paper's.
        images_per_gpu: smallest number of images in one GPU's share of a batch; with many GPUs, the batch
            becomes larger than the recipe's batch to keep this number.
        count: also count FLOPs, bytes and memory of a step, which takes a minute.
    """
    from rich.console import Console

    from ..benchmark import scaling

    chosen = _recipe(recipe, None)
    rows = []
    for number in gpus:
        batch_size = max(chosen.batch_size, number * images_per_gpu)
        grown = dataclasses.replace(chosen, batch_size=batch_size, mixup_blocks=number)
        if count:
            cost, memory = scaling.counted_step(grown, number)
            moved = f"{cost.flops / 1e12:.2f} TFLOP, {cost.bytes / 1e9:.0f} GB read and written"
            print(f"{number} GPUs, counted per GPU and step: {moved}; memory {memory or 'unknown'}")
        rows.append(scaling.estimate_scaling(grown, number, images, images_per_second, gigabytes_per_second))
    title = f"{recipe}: {images:,} images, {chosen.epochs} epochs, {images_per_second:,.0f} images/s per GPU"
    Console().print(scaling.table(rows, title))


def coverage(simulations: int = 400, resamples: int = 1000, seed: int = 0, out: Out = None) -> None:
    """Simulate how often 95 % intervals contain the truth, with few patients who have most of the images.

    Args:
        simulations: number of simulations of each case; a third of them for means over labels.
        resamples: bootstrap resamples of each interval.
        seed: seed of the simulated labels and scores.
    """
    from ..benchmark.interval_coverage import simulate_coverage

    _show(lambda: simulate_coverage(simulations, resamples, seed), out)


def _recipe(name: str, precision: str | None) -> "Recipe":
    from ..recipe_files import load_recipe

    changes: dict[str, Any] = {"precision": precision} if precision else {}
    return dataclasses.replace(load_recipe(name), **changes)


def _show(measure: Callable[[], Any], out: Path | None) -> None:
    """Print a measurement, and write it to a JSON file, which is checked first."""
    from rich.console import Console

    if out:
        check_file(out)
    with stage("benchmark", show=True):
        result = measure()
    Console().print(result)
    if out:
        result.save(out)


BENCHMARKS: dict[str, Callable[..., None]] = {
    "step": step,
    "input": input,
    "prepare": prepare,
    "embed": embed,
    "probe": probe,
    "peer": peer,
    "scaling": scaling,
    "coverage": coverage,
}


def benchmark(arguments: list[str]) -> None:
    """Measure speed or coverage: `c2l benchmark step|input|prepare|embed|probe|peer|scaling|coverage`."""
    description = (
        "Measure speed, or coverage of intervals. Things whose speed is compared are timed alternately in one process."
    )
    tyro.extras.subcommand_cli_from_dict(BENCHMARKS, prog="c2l benchmark", args=arguments, description=description)
