"""`c2l probe`: train a classifier on frozen features and compare its metrics with baselines."""

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError, DatasetError
from c2l_models.progress import stage

from ..evaluation.metrics import Metrics, average
from ..evaluation.predictions import Predictions, count_cases, measure
from ..evaluation.report import Report, ReportColumn
from ..evaluation.result import Result
from ..evaluation.roc import draw_roc
from ..evaluation.tasks import Task, check_no_shared_patients, load_task
from ..initialization import load_initialization
from ..store.image_store import ImageStore
from .baselines import baseline_scores, baseline_specs
from .classifiers import TITLES, Classifier, score_task
from .readouts import chosen_side, feature_candidates, tried_table

KINDS = {"linear": "probe", "knn": "knn"}
OUT_OF_FOLD_NOTE = (
    "Out of fold: each patient was scored by a classifier that was fitted and tuned on the other folds. AUROC ranks "
    "the scores of all folds together. The network saw {seen} of these patients in pretraining, without their labels."
)
"""Note under the metrics of a report on out-of-fold predictions."""
BASELINES_NOTE = (
    'Each random network is a mean over seeds, with the interval of this mean. "BN recalibrated": its batch-norm '
    "statistics were computed on the task's training images."
)
"""Note under the metrics of a report with baselines."""


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
    sizes: Sequence[int] = (),
    readouts: bool = False,
) -> Report:
    """Train a classifier on frozen features of a task's training part and measure it on the test part.

    A task with folds has no test part. It is measured on out-of-fold predictions of its training part (`score_task`).

    Args:
        target: network, in a form that `load_initialization` accepts: name of a release, .safetensors file, run folder,
            "imagenet", "random" (ResNet-18) or "random:densenet121". The batch norm of a random network is
            recalibrated on the task's training part.
        store: images and labels. Scores of baselines are cached in its folder `floors`.
        task: task, or its name (see `load_task`).
        out: folder for report.csv, report.md, report.png, roc.png, predictions.npz, figures.npz and result.json;
            None: nothing is written.
        size: input side in pixels; default: the input size of the weights.
        baselines: also measure pixels and random networks of the same architecture. The target "pixels" has none.
        seed: seed of the tuning folds, and of a random target.
        bootstrap: number of resamples. They do not depend on the seed.
        device: torch device.
        progress: show progress bars.
        classifier: "linear" (tuned on folds of training patients) or "knn" (20 neighbours by cosine similarity).
        sizes: input sides to choose from, instead of `size`. The linear probe takes the one with the best tuning
            metric, like the penalty (`score_task`). The report shows the tuning metric of each side, and test metrics
            of the chosen one only. Baselines are measured at the chosen side.
        readouts: choose among the ways of reading features in `READOUTS` too, at each side.

    Raises:
        C2LError: unknown task or target, a store without images or binary labels of the task, both `size` and `sizes`,
            or a choice of features for k-NN.
    """
    if size and sizes:
        raise C2LError(f"expected one size or several sizes to choose from, found both {size} and {list(sizes)}")
    started = time.perf_counter()
    task = load_task(task, store) if isinstance(task, str) else task
    train, test, (names, labels) = task.train_rows(store), task.evaluated_rows(store), task.names_and_labels(store)
    if not names:
        raise DatasetError(
            f"the store's images of {task.dataset} have no binary label; expected at least one, such as a column of 0 "
            f"and 1 in the labels.csv of a folder. {task.note_on_labels(store)}".rstrip(". ")
        )
    if not task.folds:
        check_no_shared_patients(store, train, test)
    inits = [  # statistics of batch norm may depend on the side
        load_initialization(target, size=side, seed=seed, store=store, device=device, calibrate_on=train)
        for side in sizes or (size,)
    ]
    init = inits[0]
    specs = baseline_specs(init.architecture) if baselines else []

    def predictions(scores: np.ndarray) -> Predictions:
        return Predictions(task.name, names, scores, labels[test], store.patients[test], scored.threshold)

    def metrics(scores: np.ndarray) -> Metrics:
        return measure(predictions(scores), task, bootstrap)

    with stage("probing", 1 + sum(len(spec.seeds) for spec in specs), "networks", progress) as line:
        candidates = feature_candidates(inits, store, device, readouts)
        scored = score_task(classifier, {name: of for name, (_, of) in candidates.items()}, store, task, seed, device)
        side = chosen_side(candidates, scored.facts)
        columns = [ReportColumn(init.name, metrics(scored.scores))]
        line.advance()
        for spec in specs:
            scores = baseline_scores(spec, store, task, side, device, seed, line, classifier)
            by_seed = [metrics(scores_of_seed) for scores_of_seed in scores]
            headlines = tuple(of_seed[task.headline].value for of_seed in by_seed)
            column = ReportColumn(spec.name, average(by_seed, spec.seeds), headlines if len(by_seed) > 1 else ())
            columns.append(column)
    facts = {
        "target": init.name,
        **init.about,
        "task": task.name,
        "classifier": classifier,
        "uncertain": task.uncertain,
        "size": side,
        "mean": init.mean,
        "std": init.std,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "train_images": len(train),
        "train_patients": len(set(store.patients[train])),
        "test_images": len(test),
        "test_patients": len(set(store.patients[test])),
        "test_patients_seen_in_pretraining": init.count_seen(store.patients[test]),
        **({"note": task.note} if task.note else {}),
        "seed": seed,
        "bootstrap": bootstrap,
        **scored.facts,
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm", "scikit-learn")},
    }
    seen = facts["test_patients_seen_in_pretraining"]
    out_of_fold = OUT_OF_FOLD_NOTE.format(seen="an unknown number" if seen is None else seen)
    notes = [task.note, task.note_on_labels(store), out_of_fold * bool(task.folds), BASELINES_NOTE * bool(specs)]
    tables = (tried_table(scored.facts),) if len(candidates) > 1 else ()
    report = Report(
        TITLES[classifier],
        count_cases(names, labels[test]),
        tuple(columns),
        task.headline,
        facts,
        " ".join(filter(None, notes)),
        tables,
    )
    if out:
        report.write(out)
        predicted = predictions(scored.scores)
        predicted.save(out)
        draw_roc(predicted, out / "roc.png")
        facts = facts | {"seconds": round(time.perf_counter() - started, 1)}
        Result(KINDS[classifier], init.name, init.architecture, task.name, seed, report.target.metrics, facts).write(
            out
        )
    return report
