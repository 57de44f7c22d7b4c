"""Fine-tuning, from top to bottom: split by patients, train, choose the epoch, evaluate the test part once.

The epoch is chosen by the task's headline on held-out patients. With too few of them, or if `hold_out` is 0, it is the
last one.
"""

import math
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2l_models.devices import check_default_dtype
from c2l_models.errors import C2LError, RunError, RunInterrupted
from c2l_models.progress import stage

from ..augment import apply, draw_view
from ..batches import Batch, batches, fits
from ..distributed import pick_device
from ..evaluation.predictions import Predictions, measure, tuning_metric
from ..evaluation.result import Result
from ..evaluation.roc import draw_roc
from ..evaluation.tasks import Task, check_no_shared_patients, load_task
from ..initialization import Initialization, check_has_network, load_initialization
from ..networks import autocast
from ..run_files import checkpoint
from ..run_files.interruption import stop_requests
from ..run_files.run_lock import locked_run_folder
from ..store.image_store import ImageStore
from .finetuned_network import save_network
from .finetuning_folder import open_folder, write_log
from .finetuning_report import report_of
from .finetuning_run import FinetuningRun
from .network import masked_bce
from .settings import Settings
from .task_split import has_both_classes, split_task


def finetune(
    spec: str,
    store: ImageStore,
    task: str | Task,
    out: Path,
    settings: Settings,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
    versus: Path | None = None,
) -> Result:
    """Fine-tune an initialization on a task's training patients, and evaluate it on the test patients.

    Args:
        spec: the initialization, as `load_initialization` takes it: a release, a file, a run folder, "imagenet" or
            "random".
        store: the images and their labels.
        task: a task, or its name in `tasks.toml`.
        out: the run's folder. It receives settings.json, log.jsonl, checkpoints/ during training, model.safetensors,
            predictions.npz, figures.npz, result.json, report.md, report.csv and roc.png.
        settings: the run's settings.
        device: "cpu", "cuda", or "auto": CUDA if available.
        resume: resume the run in `out`, or start it if there is none. On the CPU, the result is bit-identical to an
            uninterrupted run. If the run is finished, its result is read and its report is written again.
        progress: show a progress line.
        versus: folder of another finished run on the same task; the report shows the paired differences to it.

    Raises:
        RunError: the folder exists and `resume` is not set, it holds another run or is in use; the loss is not finite;
            a patient is in both the training part and the test part.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint was written.
        DatasetError: the store has no images of the task, or too few patients to fit.
        C2LError: no such initialization or task, or an initialization without a network; `versus` is not a finished
            run, or has another sample.
    """
    check_has_network(spec)
    task = replace(load_task(task, store) if isinstance(task, str) else task, uncertain=settings.uncertain)
    other = Result.read(versus) if versus else None
    if other and other.task != task.name:
        raise C2LError(f"expected a run on {task.name} in {versus}, found one on {other.task}; choose another run")
    check_default_dtype()
    used_device, labels = pick_device(device), task.labels(store)
    split = split_task(task, store, settings)
    calibrate_on = split.fit if settings.frozen else None
    init = load_initialization(spec, "resnet18", settings.size, settings.seed, store, used_device, calibrate_on)
    with locked_run_folder(out, resume):
        open_folder(out, _identity(init, store, task, settings, used_device))
        if Result.is_done(out):
            result = Result.read(out)
        else:
            images = store.to(used_device) if fits(store, used_device) else store
            run = FinetuningRun(init, split, labels.shape[1], settings, out, used_device)
            fit(run, images, task, labels, resume, progress)
            result = evaluate(run, init, images, task, labels)
        result.write(out)  # first, because the report may refuse `other`, and the test part must be evaluated only once
        predictions = Predictions.load(out)
        report_of(result, predictions, task, other).write(out)
        draw_roc(predictions, out / "roc.png")
        checkpoint.remove(out)
    return result


def fit(
    run: FinetuningRun, store: ImageStore, task: Task, labels: NDArray[np.float32], resume: bool, progress: bool
) -> None:
    """Train all epochs, and evaluate each on the tuning patients, if there are any. Raises as `finetune`."""
    if resume and checkpoint.exists(run.folder):
        run.load()
    targets = torch.from_numpy(labels).to(run.device)
    began = time.perf_counter()
    with (
        stop_requests() as request,
        stage("fine-tuning", run.total_steps, "steps", progress, done=run.step) as line,
    ):
        run.train()
        for batch in batches(store, run.split.fit, run.order, run.device, first=run.step, last=run.total_steps):
            run.loss += train_step(run, batch, targets[batch.rows])
            run.step += 1
            line.advance()
            if run.step % run.steps_per_epoch == 0:
                logged = end_epoch(run, store, task, labels, time.perf_counter() - began)
                tuned = f"  tuning AUROC {logged['tuning_auroc']:.3f}" if "tuning_auroc" in logged else ""
                line.note(f"loss {logged['loss']:.4f}{tuned}")
                run.save()
                began = time.perf_counter()
            if request and run.step < run.total_steps:
                run.save()
                raise RunInterrupted(f"{request} at step {run.step}; a checkpoint was written, resume with --resume")


def train_step(run: FinetuningRun, batch: Batch, targets: Tensor) -> Tensor:
    """Train on one batch with targets [B, L], and return the loss on the device.

    All random numbers depend on seed and step only.
    """
    draw = draw_view(len(batch.images), run.view, run.step_generator())
    view = apply(batch.images.float() / 255, draw, run.view)
    run.schedule.step_update(run.step)
    with autocast(run.device, run.settings.precision):
        logits = run.network(view)
    loss = masked_bce(logits, targets)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    return loss.detach()


def end_epoch(
    run: FinetuningRun, store: ImageStore, task: Task, labels: NDArray[np.float32], seconds: float
) -> dict[str, Any]:
    """Log an epoch, and mark it if it is the one to test: the highest `tuning_metric` so far, else the last epoch.

    Returns the epoch's line of the log. It has `tuning_auroc` if there are tuning patients.

    Raises:
        RunError: the loss or a score is not finite.
    """
    loss, rows = float(run.loss) / run.steps_per_epoch, run.split.tune
    logged = {"epoch": run.epoch, "step": run.step, "loss": loss}
    finite = math.isfinite(loss)
    if len(rows) and finite:
        scores = run.predict(store, rows)
        finite = bool(np.isfinite(scores).all())
    if not finite:
        raise RunError(
            f"epoch {run.epoch}: expected finite losses and scores, found NaN or infinity (mean loss {loss:g}); start "
            f"a new run with a lower --lr than {run.settings.lr:g}"
        )
    if len(rows):
        logged["tuning_auroc"] = tuning_metric(task, task.label_names(store), scores, labels[rows])
        if logged["tuning_auroc"] > run.best:
            run.best, run.best_step = logged["tuning_auroc"], run.step
    else:
        run.best_step = run.step
    logged["lr"] = run.lr
    run.lines.append(logged | {"seconds": round(seconds, 3)})
    run.loss.zero_()
    write_log(run.folder, run.lines)
    return logged


def evaluate(
    run: FinetuningRun, init: Initialization, store: ImageStore, task: Task, labels: NDArray[np.float32]
) -> Result:
    """Evaluate the chosen epoch's network on the test part. Nothing else reads the test part."""
    split, settings, patients = run.split, run.settings, store.patients
    parts = {"fit": split.fit, "tune": split.tune, "test": split.test}
    for rows in (split.fit, split.tune):
        check_no_shared_patients(store, rows, split.test)
    run.restore_best()
    names = task.label_names(store)
    about = {"architecture": init.architecture, "labels": names, "mean": init.mean, "std": init.std}
    save_network(run.folder, run.network.state_dict(), about | {"size": settings.size, "in_chans": 1})
    scores = run.predict(store, split.test).astype(np.float64)
    scores[:, ~has_both_classes(labels[split.fit])] = np.nan  # a label that was not trained has no metric
    targets = labels[split.test].astype(np.float64)
    predictions = Predictions(task.name, names, scores, targets, patients[split.test])
    predictions.save(run.folder)
    metrics = measure(predictions, task, settings.bootstrap)
    facts = _identity(init, store, task, settings, run.device) | {
        "size": settings.size,
        "bootstrap": settings.bootstrap,
        **{f"{name}_images": len(rows) for name, rows in parts.items()},
        **{f"{name}_patients": len(set(patients[rows])) for name, rows in parts.items()},
        "test_patients_seen_in_pretraining": init.count_seen(patients[split.test]),
        "epoch": run.best_step // run.steps_per_epoch,
        "epoch_rule": split.epoch_rule,
        "tuning_auroc": round(run.best, 4) if len(split.tune) else None,
        "seconds_per_epoch": round(float(np.median([line["seconds"] for line in run.lines])), 2),
        "seconds": round(sum(line["seconds"] for line in run.lines), 1),
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm")},
    }
    return Result("finetune", init.name, init.architecture, task.name, settings.seed, metrics, facts)


def _identity(
    init: Initialization, store: ImageStore, task: Task, settings: Settings, device: torch.device
) -> dict[str, Any]:
    """The content of settings.json: all values that must be equal for a run to resume."""
    return {
        "start": init.name,
        "about": init.about,
        "task": task.name,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "device": device.type,
        "settings": settings.to_dict(),
    }
