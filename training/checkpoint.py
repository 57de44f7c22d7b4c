"""Checkpoints: all or nothing on disk, and everything that the next step depends on."""

import os
from pathlib import Path
from typing import Any

import torch

from c2l_models.errors import RunError

from .recipe import Recipe

NAME = "checkpoint.pt"
FREE_TO_CHANGE = {"description", "log_every", "checkpoint_every", "probe_every"}
"""Recipe keys that change nothing of what a step computes."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside, sync, rename: a killed process leaves either the old file or the new one."""
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(run_folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint on the CPU; tensors and plain values only, never code.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = run_folder / NAME
    if not path.is_file():
        raise RunError(f"{run_folder} holds no {NAME}: is it a run folder of `c2l pretrain`?")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"{path} cannot be read ({error}); start the run again in a new folder") from error
    return state


def check_same_run(state: dict[str, Any], recipe: Recipe, store_sha256: str) -> None:
    """A run goes on only with the recipe and the images that it began with.

    Raises:
        RunError: names each key that differs.
    """
    began, wanted = state["recipe"], recipe.to_dict()
    keys = sorted(key for key in began.keys() | wanted.keys() if began.get(key) != wanted.get(key))
    keys = [key for key in keys if key not in FREE_TO_CHANGE]
    differing = [f"{key}: began with {began.get(key)!r}, now {wanted.get(key)!r}" for key in keys]
    if state["store_sha256"] != store_sha256:
        differing.append(f"image index: began with {state['store_sha256'][:12]}, now {store_sha256[:12]}")
    if differing:
        raise RunError("this run cannot go on, it would be another run: " + "; ".join(differing))
