"""A run's folder: recipe.json and run.json, which record the settings, the store, the machine and the code."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from c2l_models.errors import DatasetError, RunError
from c2l_models.files import write_atomically

from ..distributed import ALONE, World
from ..processor import cpuinfo
from ..recipe import Recipe
from ..store.image_store import ImageStore
from .run_lock import names_in

RECIPE, INITIALIZATION = "recipe.json", "initialization.json"
LOG = "log.jsonl"
RANDOM_INITIALIZATION = {"name": "random", "patients": []}
LIBRARIES = ("c2l-models", "torch", "torchvision", "timm", "numpy", "pillow")


def create_run_folder(
    folder: Path,
    recipe: Recipe,
    initialization: Mapping[str, Any],
    store: ImageStore,
    device: torch.device,
    world: World = ALONE,
    again: bool = False,
) -> None:
    """Make the folder, with recipe.json (resolved), initialization.json and run.json.

    run.json names the store, the machine, the processes, the versions of the libraries and the code.

    Args:
        folder: the run's folder.
        recipe: the run's recipe.
        initialization: facts about the weights with which the run begins, JSON-serialisable.
        store: the images.
        device: this process's device.
        world: the processes.
        again: accept the folder of a run that was stopped before its first checkpoint.

    Raises:
        RunError: the folder holds a run or other files, and is not accepted. A run is never overwritten, also if its
            checkpoints were removed: the log is begun after the first of them.
    """
    begun = names_in(folder) if folder.exists() else set()
    if not begun <= {RECIPE, INITIALIZATION} and not (again and "run.json" in begun):
        raise RunError(f"{folder} exists; choose another folder, or resume that run with --resume")
    if LOG in begun:
        raise RunError(
            f"{folder}: expected checkpoints to resume from, found none beside {LOG}; restore them, or choose another "
            "folder for a new run"
        )
    run = {
        "store": str(store.path.resolve()),
        "store_sha256": store.sha256,
        "store_size": store.size,
        "device": machine_name(device),
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
        "code": code_version(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    # run.json comes last: a folder without it holds no run yet.
    for name, content in ((RECIPE, recipe.to_dict()), (INITIALIZATION, initialization), ("run.json", run)):
        write_atomically(folder / name, (json.dumps(content, indent=2) + "\n").encode())


def read_run(folder: Path) -> dict[str, Any]:
    """A folder's run.json. Raises RunError if it is not a run folder."""
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"expected a run folder of `c2l pretrain`, found no run.json in {folder}")
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run


def read_recipe(folder: Path) -> dict[str, Any]:
    """The keys of the recipe that a run began with. Raises RunError if they cannot be read."""
    path = folder / RECIPE
    try:
        keys: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; restore it, or move {folder} away") from error
    return keys


def read_initialization(folder: Path) -> dict[str, Any]:
    """The facts about a run's initialization. A run of an earlier version has no such file; its weights were random."""
    path = folder / INITIALIZATION
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else RANDOM_INITIALIZATION
    return facts


def parts_before(initialization: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The facts about all weights that a run began with, learned from or was averaged with."""
    source = [initialization["source"]] if "source" in initialization else []
    return [initialization, *source, *initialization.get("averaged", {}).values()]


def patients_before(initialization: Mapping[str, Any]) -> frozenset[str] | None:
    """Patients whose images trained the weights that a run began with, learned from or was averaged with.

    None if some are unknown.
    """
    lists = [facts["patients"] for facts in parts_before(initialization)]
    return None if None in lists else frozenset().union(*lists)


def load_run_store(folder: Path, store_folder: Path | None = None) -> ImageStore:
    """The store that a run trained on. Raises DatasetError if it was removed or changed.

    `store_folder`: where the store is now; None: where it was then.
    """
    run = read_run(folder)
    store = ImageStore.open(store_folder or run["store"])
    if (store.sha256, store.size) != (run["store_sha256"], run["store_size"]):
        raise DatasetError(
            f"expected the store that {folder} trained on, {run['store_size']}-pixel images with index "
            f"{run['store_sha256'][:12]}; found {store.size}-pixel images with index {store.sha256[:12]} in "
            f"{store.path}. Restore the store there"
        )
    return store


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def code_version() -> str:
    """The commit of this code's checkout, with "-dirty" if it has uncommitted changes; "" without a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip()
