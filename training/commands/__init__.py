"""The `c2l` commands that need the training pipeline; `c2l_models.commands` holds the other commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from c2l_models.files import check_folder
from c2l_models.progress import stage

from .benchmarks import benchmark
from .finetuning import detect, finetune
from .frozen_features import atlas, compare, few_shot, look, probe
from .pretraining import average, curves, pretrain, release, slim
from .reproducing import reproduce
from .stores import join, prepare


def demo_(out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0) -> None:
    """Run every stage in a few minutes, on synthetic films or on a folder of your own.

    Args:
        out: folder to write to; if it is not empty, the first empty folder of OUT-2, OUT-3, … is used.
        images: a folder of radiographs, with or without a labels.csv; by default synthetic films are drawn.
        seconds: time limit of the pretraining.
        seed: seed of the synthetic films, the pretraining and the random baseline network.
    """
    check_folder(out)
    with stage("loading", show=True):
        from .demo import run_demo
    run_demo(out, images, seconds, seed)


COMMANDS: dict[str, Callable[..., Any]] = {
    "prepare": prepare,
    "join": join,
    "pretrain": pretrain,
    "curves": curves,
    "slim": slim,
    "average": average,
    "release": release,
    "probe": probe,
    "compare": compare,
    "few-shot": few_shot,
    "finetune": finetune,
    "detect": detect,
    "look": look,
    "atlas": atlas,
    "reproduce": reproduce,
    "benchmark": benchmark,
    "demo": demo_,
}

PARSE_OWN_ARGUMENTS = ("pretrain", "finetune", "detect", "benchmark")
"""Commands that take the list of arguments and parse it, because their flags depend on a recipe or have subcommands."""
