"""Slim runs: a run folder whose checkpoint holds only the exported backbone, to be carried to another machine."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from c2l_models.errors import RunError
from c2l_models.files import remove_stale, temporary_beside, write_atomically

from ..recipe_files import from_dict
from . import checkpoint
from .run_folder import INITIALIZATION, LOG, RECIPE

IDENTITY = ("recipe", "store_sha256", "store_size", "device", "step")
FILES = (RECIPE, "run.json", INITIALIZATION, LOG)


def slim_run(run_folder: Path, out: Path, best: bool = False, half: bool = False) -> Path:
    """Write a copy of a run without teacher, queue and optimizer. It can be probed, exported and released.

    A slim run cannot be resumed; another run can begin with it (`initialization`).

    Args:
        run_folder: the folder of a `c2l pretrain` run, finished or not.
        out: the new folder; must not exist.
        best: take the checkpoint with the best probe, not the newest.
        half: store the weights as float16, which a release does too: half the size.

    Returns:
        The file of the slim checkpoint: 45 MB for ResNet-18, 22 MB as float16.

    Raises:
        RunError: `out` exists, or no checkpoint is sound.
    """
    state = checkpoint.load(run_folder, best).state
    prefix = f"{from_dict(state['recipe']).exported}.backbone."
    backbone = {key: value for key, value in state["method"].items() if key.startswith(prefix)}
    if half:
        backbone = {key: value.half() if value.is_floating_point() else value for key, value in backbone.items()}
    return copy_run(run_folder, out, state, backbone)


def copy_run(
    run_folder: Path,
    out: Path,
    state: Mapping[str, Any],
    backbone: Mapping[str, Tensor],
    initialization: Mapping[str, Any] | None = None,
) -> Path:
    """Write a slim run, and return the file of its checkpoint.

    Args:
        run_folder: the run whose recipe, store, initialization and log are copied.
        out: the new folder.
        state: the run's checkpoint.
        backbone: the exported weights, by their keys in the checkpoint.
        initialization: the content of the copy's initialization.json; None: the run's.

    Raises:
        RunError: `out` exists.
    """
    if out.exists():
        raise RunError(f"{out} exists; choose another folder for the slim run")
    slim = {key: state[key] for key in IDENTITY} | {"method": dict(backbone)}
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    new = temporary_beside(out)
    new.mkdir()
    try:
        for name in FILES:
            if (run_folder / name).is_file():
                write_atomically(new / name, (run_folder / name).read_bytes())
        if initialization is not None:
            write_atomically(new / INITIALIZATION, (json.dumps(initialization, indent=2) + "\n").encode())
        file = checkpoint.save(new, slim, state["step"], keep=1)
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return out / file.relative_to(new)
