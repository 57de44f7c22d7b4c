"""`c2l benchmark step|input|prepare|embed|peer|scaling`: functions whose flags are their arguments."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

if TYPE_CHECKING:
    from ..recipe import Recipe

RecipeName = Annotated[str, arg(help="a recipe's name or .toml file")]
BatchSize = Annotated[int, arg(help="in place of the recipe's")]
Size = Annotated[int, arg(help="in place of the recipe's, pixels")]
Precision = Annotated[Literal["float32", "bfloat16"] | None, arg(help="in place of the recipe's")]
Repeats = Annotated[int, arg(help="rounds; the metrics are medians")]
Device = Annotated[Literal["auto", "cpu", "cuda"], arg(help="auto takes CUDA where there is one")]
Out = Annotated[Path | None, arg(help="a .json file for every round's figures")]


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
    """A whole pretraining step beside its bare networks and the roofline.

    Args:
        compile: also time a step with compiled networks; minutes before the first round.
    """
    from ..benchmark.step_speed import time_step

    _show(time_step(_recipe(recipe, precision), batch_size, size, repeats, device, compile), out)


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
    """The images that a store delivers, augmented, beside those that a step consumes.

    Args:
        store: folder that `c2l prepare` wrote; noise by default.
    """
    from ..benchmark.input_speed import time_input

    _show(time_input(_recipe(recipe, precision), store, batch_size, size, repeats, device), out)


def prepare(
    images: Path | None = None,
    size: int = 128,
    files: int = 1000,
    workers: int | None = None,
    repeats: Repeats = 5,
    kind: Literal["PNG", "JPEG"] | None = None,
    out: Out = None,
) -> None:
    """`c2l prepare` beside decoding alone with the same library on the same cores.

    Args:
        images: a folder of PNG or JPEG films; synthetic ones by default.
        size: of the stored images, pixels.
        files: how many are read; films are read again where they are fewer.
        workers: decoding processes, ours and those of decoding alone; one a core by default.
        kind: of the files; both by default.
    """
    from ..benchmark.prepare_speed import time_prepare

    _show(time_prepare(images, size, files, workers, repeats, kind), out)


def embed(
    images: Path | None = None,
    architecture: str = "resnet18",
    files: int = 1000,
    batch_size: int = 64,
    workers: int | None = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """`c2l embed` beside decoding alone and the bare network on batches that are ready.

    Args:
        images: a folder of PNG or JPEG films; synthetic ones by default.
        architecture: whose default release computes.
        files: how many are read; films are read again where they are fewer.
        batch_size: of both.
        workers: processes of decoding alone; one a core by default.
    """
    from ..benchmark.embed_speed import time_embed

    _show(time_embed(images, architecture, files, batch_size, workers, repeats, device), out)


def peer(
    peer_python: Path | None = None,
    images: Path | None = None,
    recipe: RecipeName = "open15k-resnet18",
    batch_size: BatchSize = 64,
    size: Size = 128,
    precision: Precision = None,
    files: int = 1000,
    steps: int = 20,
    workers: int | None = None,
    repeats: Repeats = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """End to end beside Lightly's MoCo with its own loader, on the same images.

    Args:
        peer_python: an interpreter that has lightly, torch and torchvision.
        images: a folder of PNG or JPEG films; synthetic ones by default.
        files: how many are read; films are read again where they are fewer.
        steps: that are timed in a round.
        workers: the peer's loader's processes; one a core by default.
    """
    from ..benchmark.peer_speed import time_peer

    chosen = _recipe(recipe, precision)
    _show(time_peer(chosen, images, peer_python, batch_size, size, files, steps, workers, repeats, device), out)


def scaling(
    images_per_second: float,
    gigabytes_per_second: float,
    recipe: RecipeName = "paper-resnet18",
    gpus: tuple[int, ...] = (1, 8, 64),
    images: int = 727_053,
    images_per_gpu: int = 32,
) -> None:
    """What a recipe takes on many GPUs: computing time from one GPU's rate, and the bytes that travel.

    Args:
        images_per_second: one GPU's rate, as `c2l benchmark step` measures it there.
        gigabytes_per_second: what one GPU receives from the others, 1e9 bytes.
        gpus: numbers of GPUs.
        images: of the corpus; by default the paper's.
        images_per_gpu: the least of a batch that a GPU gets; with more GPUs than the recipe's batch feeds, it grows.
    """
    from rich.console import Console

    from ..benchmark import scaling

    chosen = _recipe(recipe, None)
    rows = []
    for count in gpus:
        batch_size = max(chosen.batch_size, count * images_per_gpu)
        grown = dataclasses.replace(chosen, batch_size=batch_size, mixup_blocks=count)
        rows.append(scaling.scaling(grown, count, images, images_per_second, gigabytes_per_second))
    title = f"{recipe}: {images:,} images, {chosen.epochs} epochs, {images_per_second:,.0f} images/s a GPU"
    Console().print(scaling.table(rows, title))


def _recipe(name: str, precision: str | None) -> "Recipe":
    from ..recipe import load_recipe

    changes: dict[str, Any] = {"precision": precision} if precision else {}
    return dataclasses.replace(load_recipe(name), **changes)


def _show(result: Any, out: Path | None) -> None:
    from rich.console import Console

    Console().print(result)
    if out:
        result.save(out)


COMMANDS: dict[str, Callable[..., None]] = {
    "step": step,
    "input": input,
    "prepare": prepare,
    "embed": embed,
    "peer": peer,
    "scaling": scaling,
}
