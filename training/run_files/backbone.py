"""The backbone of a run's checkpoint: load it, or export it as a weight file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from c2l_models.errors import RunError
from c2l_models.releases.record import save_weights
from c2l_models.releases.training_data import UNKNOWN_IMAGES, Use, line_of_earlier

from ..batches import training_rows
from ..features import recalibrate
from ..recipe import Recipe
from ..recipe_files import from_dict
from ..store.image_store import ImageStore
from . import checkpoint
from .run_folder import RANDOM_INITIALIZATION, load_run_store, read_initialization


def load_run_backbone(
    run_folder: Path,
    store: ImageStore | None = None,
    teacher: bool | None = None,
    size: int | None = None,
    best: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, Recipe]:
    """Load the one-channel backbone of a run's checkpoint, [B, 1, S, S] -> [B, F], in evaluation mode.

    Its batch-norm statistics are recalibrated on clean training images, unless the recipe has `recalibrate = false`.

    Args:
        run_folder: the folder of a `c2l pretrain` run, finished or not.
        store: the run's images; by default the store that the run names.
        teacher: load the teacher's weights (True) or the student's (False). None: as the recipe's `exported` says; the
            paper exports the student.
        size: side of the images for the recalibration, pixels; by default the recipe's.
        best: take the checkpoint with the best probe, not the newest.
        device: the device of the backbone and of the recalibration.

    Raises:
        RunError: no checkpoint is sound, or it lacks the network that `teacher` chooses: the run's method has no
            teacher, or the run is slim.
        DatasetError: the run's store was moved or changed.
    """
    state = checkpoint.load(run_folder, best).state
    recipe = from_dict(state["recipe"])
    if teacher is None:
        teacher = recipe.exported == "teacher"
    chosen = "teacher" if teacher else "student"
    prefix = f"{chosen}.backbone."
    backbone = timm.create_model(recipe.architecture, pretrained=False, in_chans=1, num_classes=0)
    own = {key.removeprefix(prefix): value for key, value in state["method"].items() if key.startswith(prefix)}
    if not own and "optimizer" not in state:
        raise RunError(
            f"expected the {chosen}'s weights in {run_folder}, found a slim run with the {recipe.exported}'s alone; "
            f"export the {recipe.exported}'s, or take the run that it was made from"
        )
    if not own:
        raise RunError(f"{run_folder} is a run of {recipe.method}, which has no teacher; export the student's weights")
    backbone.load_state_dict(own)
    backbone = backbone.to(device)
    if recipe.recalibrate:
        store, side = store or load_run_store(run_folder), size or recipe.size
        recalibrate(backbone, store, training_rows(recipe, store), side, recipe.mean, recipe.std, device)
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
    device: str | torch.device = "cpu",
) -> Path:
    """Write a run's backbone as safetensors, and return its path; arguments as in `load_run_backbone`.

    The file contains its configuration, such as normalisation, and loads with `c2l_models.resnet18(weights=path)`.
    """
    store = store or load_run_store(run_folder)
    network, recipe = load_run_backbone(run_folder, store, teacher, size, best, device)
    return export_backbone(network, recipe, read_initialization(run_folder), path, store, tag, size, license)


def export_backbone(
    backbone: nn.Module,
    recipe: Recipe,
    initialization: Mapping[str, Any],
    path: Path,
    store: ImageStore,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
) -> Path:
    """Write a backbone of `load_run_backbone` as safetensors; arguments as there.

    `initialization`: the run's, as `read_initialization` returns it.
    """
    side = size or recipe.size
    config = {
        "architecture": recipe.architecture,
        "tag": tag,
        "mean": [recipe.mean] * 3,
        "std": [recipe.std] * 3,
        "input_size": [3, side, side],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "trained_on": [*describe_rows(store, training_rows(recipe, store)), *describe_initialization(initialization)],
        "recipe": recipe.name,
        "license": license,
    }
    save_weights(path, {name: value.cpu() for name, value in backbone.state_dict().items()}, config)
    return path


def describe_initialization(initialization: Mapping[str, Any]) -> list[str]:
    """The data of the weights with which a run began, learned from (a distillation) or was averaged, one line each."""
    learned: list[tuple[Use, Mapping[str, Any]]] = []
    if initialization["name"] != RANDOM_INITIALIZATION["name"]:
        learned.append(("initialized from", initialization))
    if "source" in initialization:  # of a distillation
        learned.append(("learned the features of", initialization["source"]))
    _, *others = initialization.get("averaged", {"the run itself": {}}).values()
    learned += [("averaged", part) for part in others]
    return [
        line_of_earlier(use, before["name"], before.get("license", "unknown"), line, before.get("share"))
        for use, before in learned
        for line in before.get("trained_on", [UNKNOWN_IMAGES])
    ]


def describe_rows(store: ImageStore, rows: np.ndarray) -> list[str]:
    """The rows' data sets and splits, one line each: name, images, patients."""
    datasets, splits = (store.index[column].to_numpy(zero_copy_only=False)[rows] for column in ("dataset", "split"))
    lines = []
    for dataset, split in sorted(set(zip(datasets, splits, strict=True))):
        chosen = rows[(datasets == dataset) & (splits == split)]
        patients = len(set(store.patients[chosen]))
        lines.append(f"{dataset} {split}: {len(chosen)} images, {patients} patients")
    return lines
