"""A run's network as a weight file that anyone loads in one line."""

from pathlib import Path

import numpy as np
import timm
from torch import nn

from c2l_models.errors import RunError
from c2l_models.releases.record import save_weights

from ..batches import training_rows
from ..features import recalibrate
from ..recipe import Recipe, from_dict
from ..store.image_store import ImageStore
from . import checkpoint
from .run_folder import load_run_store


def load_run_backbone(
    run_folder: Path,
    store: ImageStore | None = None,
    teacher: bool | None = None,
    size: int | None = None,
    best: bool = False,
) -> tuple[nn.Module, Recipe]:
    """The backbone of a run's checkpoint, one channel in, [B, 1, S, S] -> [B, F], in eval mode.

    Its batch-norm statistics are recalibrated on clean training images at `size` pixels (the recipe's by default),
    unless the recipe says otherwise.

    Args:
        run_folder: a folder that `pretrain` wrote, finished or not.
        store: the images it trained on; by default the store that the run names.
        teacher: the teacher's weights or the student's; None: the recipe's choice (the paper's is the student).
        size: side of the images that the network will see.
        best: take the checkpoint that was best by probe, not the last one.

    Raises:
        RunError: no readable checkpoint; the teacher is asked for, and the run's method has none.
        DatasetError: the store is not where the run found it.
    """
    state = checkpoint.load(run_folder, best).state
    recipe = from_dict(state["recipe"])
    if teacher is None:
        teacher = recipe.exported == "teacher"
    prefix = ("teacher" if teacher else "student") + ".backbone."
    backbone = timm.create_model(recipe.architecture, pretrained=False, in_chans=1, num_classes=0)
    own = {key.removeprefix(prefix): value for key, value in state["method"].items() if key.startswith(prefix)}
    if not own:
        raise RunError(f"{run_folder} is a run of {recipe.method}, which has no teacher; export the student's weights")
    backbone.load_state_dict(own)
    if recipe.recalibrate:
        store = store or load_run_store(run_folder)
        recalibrate(backbone, store, training_rows(recipe, store), size or recipe.size, recipe.mean, recipe.std)
    return backbone.eval(), recipe


def export_run(
    run_folder: Path,
    path: Path,
    store: ImageStore | None = None,
    teacher: bool | None = None,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
    best: bool = False,
) -> Path:
    """Write a run's backbone as safetensors with its own configuration; arguments as in `load_run_backbone`.

    The file loads with `c2l_models.resnet18(weights=path)` and says how images are to be prepared for it.
    """
    store = store or load_run_store(run_folder)
    return export_backbone(*load_run_backbone(run_folder, store, teacher, size, best), path, store, tag, size, license)


def export_backbone(
    backbone: nn.Module,
    recipe: Recipe,
    path: Path,
    store: ImageStore,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
) -> Path:
    """Write what `load_run_backbone` gave; arguments as there."""
    side = size or recipe.size
    config = {
        "architecture": recipe.architecture,
        "tag": tag,
        "mean": [recipe.mean] * 3,
        "std": [recipe.std] * 3,
        "input_size": [3, side, side],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "trained_on": describe_rows(store, training_rows(recipe, store)),
        "recipe": recipe.name,
        "license": license,
    }
    save_weights(path, backbone.state_dict(), config)
    return path


def describe_rows(store: ImageStore, rows: np.ndarray) -> list[str]:
    """What a run saw, a line a data set and split: name, images, patients."""
    datasets, splits = (store.index[column].to_numpy(zero_copy_only=False)[rows] for column in ("dataset", "split"))
    lines = []
    for dataset, split in sorted(set(zip(datasets, splits, strict=True))):
        chosen = rows[(datasets == dataset) & (splits == split)]
        patients = len(set(store.patients[chosen]))
        lines.append(f"{dataset} {split}: {len(chosen)} images, {patients} patients")
    return lines
