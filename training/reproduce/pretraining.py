"""Pretraining of a row: reused if finished, resumed if interrupted, otherwise started."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..batches import training_rows
from ..recipe import Recipe
from ..recipe_files import from_dict
from ..run_files import checkpoint, log
from ..run_files.identity import FREE_TO_CHANGE, FREE_TO_ROUNDING, check_same_settings
from ..run_files.run_folder import LOG, read_recipe, read_run
from ..schedule import Schedule
from ..store.image_store import ImageStore

FREE_BY_HAND = {"name", "mixup_blocks", *FREE_TO_ROUNDING}
"""Recipe keys that may differ if the user started the run: its recipe has another name, torchrun gives each process a
block of mixup, and a GPU may need less memory or a compiled step."""
MEASURED = {"recalibrate", "exported"}
"""Recipe keys that a resumed run may change but a table may not: they decide which weights are measured. A finished run
has them in its checkpoint."""

Pretrain = Callable[[Recipe, ImageStore, Path], object]
"""Runs a recipe in a folder to its end, or resumes the run that is already there."""


@dataclass(frozen=True)
class Pretraining:
    """A finished pretraining.

    Attributes:
        folder: of the run.
        images, patients: numbers of images and patients trained on.
        store_sha256: of the image store.
        seconds: duration of all steps by the log; None if the log does not say.
    """

    folder: Path
    images: int
    patients: int
    store_sha256: str
    seconds: float | None


def ensure_pretrained(recipe: Recipe, store: ImageStore, folder: Path, pretrain: Pretrain) -> Pretraining:
    """Return the finished run of this recipe on this store in this folder. Calls `pretrain` unless it is finished.

    Raises:
        RunError: the folder holds a run with other settings; the message names each key that differs.
        RunInterrupted: the run was interrupted; the next call resumes it.
    """
    if (folder / "run.json").is_file():
        began = began_with(folder)
        check_same(folder, began, recipe, store)
        recipe = replace(recipe, **{key: getattr(began, key) for key in FREE_BY_HAND})
    rows = training_rows(recipe, store)
    if not is_finished(folder, recipe, len(rows)):
        pretrain(recipe, store, folder)
    patients = len(np.unique(store.patients[rows]))
    return Pretraining(folder, len(rows), patients, store.sha256, training_seconds(folder, recipe))


def store_of_run(folder: Path) -> str:
    """The sha256 of the store that a run trained on; "" if there is no run in the folder."""
    return str(read_run(folder)["store_sha256"]) if (folder / "run.json").is_file() else ""


def began_with(folder: Path) -> Recipe:
    """The recipe that a run began with. Raises RunError if it cannot be read."""
    return from_dict(read_recipe(folder))


def check_same(folder: Path, began: Recipe, recipe: Recipe, store: ImageStore) -> None:
    """Raise RunError unless the run has this recipe and these images. Keys that change no weight may differ."""
    run = read_run(folder)
    check_same_settings(
        folder,
        began.to_dict() | {key: run[key] for key in ("store_sha256", "store_size")},
        recipe.to_dict() | {"store_sha256": store.sha256, "store_size": store.size},
        free=FREE_TO_CHANGE - MEASURED | FREE_BY_HAND,
        advice="Move it away, or choose another --out",
    )


def is_finished(folder: Path, recipe: Recipe, images: int) -> bool:
    """Whether the run has done all steps of its recipe.

    Raises RunError if it ended with other keys of `MEASURED`: recipe.json has those that the run began with; resumed by
    hand, it may have others.
    """
    if not checkpoint.exists(folder):
        return False
    state = checkpoint.load(folder).state
    if state["step"] < Schedule(recipe, images).total_steps:
        return False
    ended = from_dict(state["recipe"]).to_dict()
    earlier, now = ({key: values[key] for key in MEASURED} for values in (ended, recipe.to_dict()))
    check_same_settings(folder, earlier, now, advice="Move it away, or choose another --out")
    return True


def training_seconds(folder: Path, recipe: Recipe) -> float | None:
    """Duration of a run's steps over all its sessions, computed from the speeds in its log; None without speeds."""
    if not (folder / LOG).is_file():
        return None
    return max(log.training_seconds(log.read(folder), recipe.batch_size).values()) or None
