"""`c2l probe`: a linear probe of a release, a run or a random network, beside the floors."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError
from c2l_models.models import create_model
from c2l_models.weights import resolve

from ..export import load_run_backbone
from ..image_store import ImageStore
from ..run_folder import read_run
from . import floors as floor
from .features import extract_features
from .linear import ProbeResult, linear_probe
from .metrics import Auroc, auroc, average
from .report import Column, ProbeReport
from .tasks import Task, load_task

__all__ = ["ProbeReport", "ProbeResult", "linear_probe", "probe"]

RANDOM = "random"
RANDOM_SIZE = 64


@dataclass(frozen=True)
class Target:
    """What is probed: a frozen network [B, 1, S, S] -> [B, F] and the input that it wants."""

    name: str
    architecture: str
    network: nn.Module
    size: int
    mean: float
    std: float
    about: dict[str, Any]


def probe(
    target: str,
    store: ImageStore,
    task: str | Task,
    out: Path | None = None,
    size: int | None = None,
    floors: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
    device: str = "cpu",
    progress: bool = True,
) -> ProbeReport:
    """Probe frozen features on a task's test rows.

    Args:
        target: a release's name, a .safetensors file, a run folder, "random" (ResNet-18) or
            "random:densenet121".
        store: the images; floors are cached in its folder `floors`.
        task: a task, or the name of one in `tasks.toml`.
        out: folder for probe.csv, probe.md, probe.json and probe.png; None: nothing is written.
        size: input side in pixels; by default the weights' own.
        floors: show what pixels and random networks of the architecture reach.
        seed: of the tuning split, of the bootstrap, and of a random target.
        bootstrap: number of resamples.

    Raises:
        C2LError: an unknown task or target, or a store without the task's images.
    """
    task = load_task(task) if isinstance(task, str) else task
    train, test, labels = task.train_rows(store), task.test_rows(store), task.labels(store)
    chosen = load_target(target, store, task, size, seed, device)

    def measure(scores: np.ndarray) -> Auroc:
        return auroc(scores, labels[test], store.patients[test], bootstrap, seed)

    known, asked = (
        extract_features(chosen.network, store, rows, chosen.size, chosen.mean, chosen.std, device)
        for rows in (train, test)
    )
    fitted = linear_probe(known, labels[train], store.patients[train], asked, seed)
    columns = [Column(chosen.name, measure(fitted.scores))]
    for spec in floor.floor_specs(chosen.architecture) if floors else ():
        scores = floor.floor_scores(spec, store, task, chosen.size, device, seed, progress)
        by_seed = [measure(one) for one in scores]
        columns.append(Column(spec.name, average(by_seed), tuple(result.mean for result in by_seed)))
    facts = {
        "target": chosen.name,
        **chosen.about,
        "task": task.name,
        "size": chosen.size,
        "mean": chosen.mean,
        "std": chosen.std,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "train_images": len(train),
        "train_patients": len(set(store.patients[train])),
        "test_images": len(test),
        "test_patients": len(set(store.patients[test])),
        "seed": seed,
        "bootstrap": bootstrap,
        "C": fitted.C,
        "tuning_auroc": round(fitted.tuning_auroc, 4),
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm", "scikit-learn")},
    }
    positives = tuple(int(count) for count in np.nansum(labels[test], axis=0))
    report = ProbeReport(task.label_names(store), positives, task.without, tuple(columns), facts)
    if out:
        report.write(out)
    return report


def load_target(
    target: str, store: ImageStore, task: Task, size: int | None, seed: int = 0, device: str = "cpu"
) -> Target:
    """The network of a release, a file, a run folder or a random initialisation, on the device.

    Raises:
        C2LError: no such target.
    """
    kind, _, architecture = target.partition(":")
    if kind == RANDOM:
        return _random_target(architecture or "resnet18", store, task, size or RANDOM_SIZE, seed, device)
    if (Path(target) / "run.json").is_file():
        return _run_target(Path(target), store, size, device)
    try:
        weights = resolve(target)
    except C2LError as error:
        raise type(error)(f"{error}; a probe's target can also be a run folder, or {RANDOM!r}") from error
    network = create_model(weights.architecture, weights=weights, in_chans=1).to(device)
    about = {
        "architecture": weights.architecture,
        "weights_sha256": weights.sha256,
        "trained_on": list(weights.trained_on),
        "recipe": weights.recipe,
    }
    side, mean, std = size or weights.input_size[-1], weights.mean[0], weights.std[0]
    return Target(weights.name, weights.architecture, network, side, mean, std, about)


def _random_target(architecture: str, store: ImageStore, task: Task, size: int, seed: int, device: str) -> Target:
    """As timm initialises it, batch norm recalibrated on the task's training part."""
    find_architecture(architecture)
    network = floor.random_network(architecture, seed).to(device)
    floor.recalibrate(network, store, task.train_rows(store), size, device)
    name = f"{RANDOM}:{architecture}"
    return Target(name, architecture, network, size, floor.MEAN, floor.STD, {"architecture": architecture})


def _run_target(folder: Path, store: ImageStore, size: int | None, device: str) -> Target:
    """A run's student; the run's own store is not needed where it is the one that is probed."""
    run = read_run(folder)
    own = store if (run["store_sha256"], run["store_size"]) == (store.sha256, store.size) else None
    network, recipe = load_run_backbone(folder, store=own, size=size)
    about = {
        "architecture": recipe.architecture,
        "recipe": recipe.name,
        "trained_on_store": run["store_sha256"],
    }
    side = size or recipe.size
    return Target(folder.name, recipe.architecture, network.to(device), side, recipe.mean, recipe.std, about)
