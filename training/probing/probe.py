"""`c2l probe`: what a classifier makes of frozen features, of a release, a run or chance, beside the floors."""

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from c2l_models.errors import DatasetError

from ..evaluation.metrics import Metrics, average
from ..evaluation.predictions import Predictions, measure
from ..evaluation.report import Report, ReportColumn
from ..evaluation.result import Result
from ..evaluation.roc import draw_roc
from ..evaluation.tasks import Task, check_no_shared_patients, count_seen_patients, load_task
from ..features import extract_features
from ..initialization import load_initialization
from ..store.image_store import ImageStore
from .baselines import baseline_scores, baseline_specs
from .classifiers import TITLES, Classifier, fit_and_score

KINDS = {"linear": "probe", "knn": "knn"}


def probe(
    target: str,
    store: ImageStore,
    task: str | Task,
    out: Path | None = None,
    size: int | None = None,
    baselines: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
    device: str = "cpu",
    progress: bool = True,
    classifier: Classifier = "linear",
) -> Report:
    """Probe frozen features on a task's test rows.

    Args:
        target: as `load_initialization` takes it: a release's name, a .safetensors file, a run folder, "imagenet",
            "random" (ResNet-18) or "random:densenet121"; a random network's batch norm is recalibrated on the task's
            training part.
        store: the images; floors are cached in its folder `floors`.
        task: a task, or the name of one in `tasks.toml`.
        out: folder for report.csv, report.md, report.png, roc.png, predictions.npz and what `Result` says; None:
            nothing is written.
        size: input side in pixels; by default the weights' own.
        baselines: show what pixels and random networks of the architecture reach.
        seed: of the tuning split, and of a random target.
        bootstrap: number of resamples, the same ones whatever the seed.
        classifier: "linear", tuned on held-out training patients, or "knn", 20 neighbours by cosine.

    Raises:
        C2LError: an unknown task or target, or a store without the task's images or without labels to ask about.
    """
    began = time.perf_counter()
    task = load_task(task) if isinstance(task, str) else task
    train, test, labels = task.train_rows(store), task.test_rows(store), task.labels(store)
    if not (names := task.label_names(store)):
        raise DatasetError(
            f"the store's images of {task.dataset} have no label that is 0, 1 or unknown throughout; wanted one, such "
            "as a column of 0 and 1 in the labels.csv of a folder"
        )
    check_no_shared_patients(store, train, test)
    chosen = load_initialization(target, size=size, seed=seed, store=store, device=device, calibrate_on=train)
    known, asked = (
        extract_features(chosen.network, store, rows, chosen.size, chosen.mean, chosen.std, device)
        for rows in (train, test)
    )
    answers = fit_and_score(classifier, known, labels[train], store.patients[train], asked, seed)

    def predictions(scores: np.ndarray) -> Predictions:
        return Predictions(task.name, names, scores, labels[test], store.patients[test], answers.threshold)

    def metrics(scores: np.ndarray) -> Metrics:
        return measure(predictions(scores), task, bootstrap)

    columns = [ReportColumn(chosen.name, metrics(answers.scores))]
    for spec in baseline_specs(chosen.architecture) if baselines else ():
        scores = baseline_scores(spec, store, task, chosen.size, device, seed, progress, classifier)
        by_seed = [metrics(one) for one in scores]
        headlines = tuple(one[task.headline].value for one in by_seed)
        columns.append(ReportColumn(spec.name, average(by_seed), headlines if len(by_seed) > 1 else ()))
    facts = {
        "target": chosen.name,
        **chosen.about,
        "task": task.name,
        "classifier": classifier,
        "uncertain": task.uncertain,
        "size": chosen.size,
        "mean": chosen.mean,
        "std": chosen.std,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "train_images": len(train),
        "train_patients": len(set(store.patients[train])),
        "test_images": len(test),
        "test_patients": len(set(store.patients[test])),
        "test_patients_seen_in_pretraining": count_seen_patients(chosen.seen, store.patients[test]),
        "seed": seed,
        "bootstrap": bootstrap,
        **answers.facts,
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm", "scikit-learn")},
    }
    positives = dict(zip(names, np.nansum(labels[test], axis=0).astype(int).tolist(), strict=True))
    report = Report(
        TITLES[classifier], positives, tuple(columns), task.headline, facts, BASELINES_NOTE if baselines else ""
    )
    if out:
        report.write(out)
        answered = predictions(answers.scores)
        answered.save(out)
        draw_roc(answered, out / "roc.png")
        facts = facts | {"seconds": round(time.perf_counter() - began, 1)}
        Result(
            KINDS[classifier], chosen.name, chosen.architecture, task.name, seed, report.target.metrics, facts
        ).write(out)
    return report


BASELINES_NOTE = (
    "A random floor is the mean over its seeds, its interval that of the mean; its batch norm, where recalibrated, saw "
    "the task's own training films."
)
"""What a report says of its floors."""
