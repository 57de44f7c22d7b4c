"""`c2l probe`: a linear probe of a release, a run or a random network, beside the floors."""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..image_store import ImageStore
from ..starts import load_start
from . import floors as floor
from .features import extract_features
from .linear import ProbeResult, linear_probe
from .metrics import Auroc, auroc, average
from .report import Column, ProbeReport
from .tasks import Task, load_task

__all__ = ["ProbeReport", "ProbeResult", "linear_probe", "probe"]


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
        target: as `load_start` takes it: a release's name, a .safetensors file, a run folder, "imagenet",
            "random" (ResNet-18) or "random:densenet121"; a random network's batch norm is recalibrated on the task's
            training part.
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
    chosen = load_start(target, size=size, seed=seed, store=store, device=device, calibrate_on=train)

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
