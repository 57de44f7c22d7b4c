"""Options that several commands share."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

TRAINABLE = "a release, a .safetensors file, a run folder, imagenet, random, or untrained"
NETWORK = "a release, a .safetensors file, a run folder, imagenet, random, untrained, or pixels"
Target = Annotated[
    Positional[str],
    arg(metavar="WEIGHTS", help=NETWORK),
]
Initialization = Annotated[
    str,
    # tyro's help shows aliases before the name: `--init`, then the former name `--start`.
    arg(
        name="start",
        aliases=("--init",),
        help=TRAINABLE,
    ),
]
COMPARED = (
    "releases, .safetensors files, run folders, imagenet, random or pixels; by default all releases and baselines"
)
Device = Annotated[Literal["auto", "cpu", "cuda"], arg(help="auto uses CUDA if available")]
Workers = Annotated[int | None, arg(help="number of decoding processes; by default one per core")]
Html = Annotated[bool, arg(help="also write the report as one HTML page, which opens without a network")]
