"""Checkpoints: all or nothing on disk, and everything that the next step depends on."""

import os
from pathlib import Path
from typing import Any

import torch

from c2l_models.errors import RunError

from .image_store import ImageStore
from .recipe import Recipe

NAME = "checkpoint.pt"
FREE_TO_CHANGE = {"recipe", "augment", "optimizer", "description", "log_every", "checkpoint_every", "probe_every"}
"""Keys that change nothing of what a step computes, and tables, which are compared key by key."""


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
        reason = str(error).partition("\n")[0]  # torch's advice, to load it unsafely, is not for us
        raise RunError(f"{path} cannot be read ({reason}); start the run again in a new folder") from error
    return state


def identity(recipe: Recipe, store: ImageStore, device: torch.device) -> dict[str, Any]:
    """What has to be the same for a run to go on; part of each checkpoint."""
    images = {"store_sha256": store.sha256, "store_size": store.size}
    return {"recipe": recipe.to_dict(), **images, "device": device.type}


def check_same_run(state: dict[str, Any], wanted: dict[str, Any]) -> None:
    """A run goes on only with the recipe, the images and the kind of device that it began with.

    Raises:
        RunError: names each key of the checkpoint's identity that differs from the `wanted` one.
    """
    began, now = _flat(state), _flat(wanted)
    keys = [key for key in now if key not in FREE_TO_CHANGE and began.get(key) != now[key]]
    if keys:
        differing = "; ".join(f"{key}: began with {began.get(key)!r}, now {now[key]!r}" for key in sorted(keys))
        raise RunError(f"this run cannot go on, it would be another run: {differing}")


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity's keys, the recipe's and those of its sections side by side."""
    flat = identity | identity["recipe"]
    return flat | flat["augment"] | flat["optimizer"]


def random_state(host: torch.Generator, local: torch.Generator) -> dict[str, Any]:
    """Every random state that a step may draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"host": host.get_state(), "local": local.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any], host: torch.Generator, local: torch.Generator) -> None:
    """The inverse of `random_state`."""
    host.set_state(state["host"])
    local.set_state(state["local"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
