"""The pretraining of a row: taken over where it is there, gone on with where it was stopped, else begun."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from c2l_models.errors import RunError

from ..batches import training_rows
from ..recipe import SECTIONS, Recipe, from_dict
from ..run_files import checkpoint, log
from ..run_files.identity import FREE_TO_CHANGE
from ..run_files.run_folder import read_run
from ..store.image_store import ImageStore

OF_THE_MACHINE = {"name", "mixup_blocks"}
"""What a run that was begun by hand may have otherwise: its recipe's name, and a block of mixup for each process."""

Pretrain = Callable[[Recipe, ImageStore, Path], object]
"""Runs a recipe in a folder to its end, or goes on with what is in the folder."""


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining.

    Attributes:
        folder: the run's.
        images, patients: that it trained on.
        store_sha256: of the images.
        seconds: its steps took, by its log; None where the log does not say.
    """

    folder: Path
    images: int
    patients: int
    store_sha256: str
    seconds: float | None


def ensure_pretrained(recipe: Recipe, store: ImageStore, folder: Path, pretrain: Pretrain) -> Pretrained:
    """A finished run of this recipe on this store in this folder.

    Raises:
        RunError: the folder holds a run of something else; names each key that differs.
        RunInterrupted: stopped; the next call goes on.
    """
    if (folder / "run.json").is_file():
        began = began_with(folder)
        check_same(folder, began, recipe, store)
        recipe = replace(recipe, **{key: getattr(began, key) for key in OF_THE_MACHINE})
    rows = training_rows(recipe, store)
    if not is_finished(folder, recipe, len(rows)):
        pretrain(recipe, store, folder)
    patients = len(np.unique(store.patients[rows]))
    return Pretrained(folder, len(rows), patients, store.sha256, seconds_of(folder, recipe))


def trained_on(folder: Path) -> str:
    """The sha256 of the store that a run folder names; "" where there is no run."""
    return str(read_run(folder)["store_sha256"]) if (folder / "run.json").is_file() else ""


def began_with(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises RunError where it cannot be read."""
    try:
        return from_dict(json.loads((folder / "recipe.json").read_text()))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'recipe.json'} cannot be read: {error}; move {folder} away") from error


def check_same(folder: Path, began: Recipe, recipe: Recipe, store: ImageStore) -> None:
    """Raise RunError unless the folder's run is of this recipe, where that matters, and of these images."""
    run = read_run(folder)
    had = _flat(began) | {key: run[key] for key in ("store_sha256", "store_size")}
    wanted = _flat(recipe) | {"store_sha256": store.sha256, "store_size": store.size}
    free = FREE_TO_CHANGE - {"recalibrate", "exported"} | OF_THE_MACHINE  # those two decide what is measured
    differing = [key for key in wanted if key.split(".")[-1] not in free and had.get(key) != wanted[key]]
    if differing:
        listed = "; ".join(f"{key}: it has {had.get(key)!r}, wanted {wanted[key]!r}" for key in differing)
        raise RunError(f"{folder} holds another run: {listed}; move it away, or give another --out")


def is_finished(folder: Path, recipe: Recipe, images: int) -> bool:
    """Whether the run has done all steps of its recipe."""
    if not checkpoint.exists(folder):
        return False
    step: int = checkpoint.load(folder).state["step"]
    return step >= recipe.epochs * (images // recipe.batch_size)


def seconds_of(folder: Path, recipe: Recipe) -> float | None:
    """How long a run's steps took, over all its lives, by the speeds in its log."""
    if not (folder / log.NAME).is_file():
        return None
    seconds, before = 0.0, 0
    for line in log.read(folder):
        if line["kind"] == "train" and line.get("images_per_second"):
            seconds += (line["step"] - before) * recipe.batch_size / line["images_per_second"]
            before = line["step"]
    return seconds or None


def _flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe's keys, those of its sections as `section.key`."""
    values = recipe.to_dict()
    sections = {f"{name}.{key}": value for name in SECTIONS for key, value in values.pop(name).items()}
    return values | sections
