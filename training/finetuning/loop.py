"""Fine-tuning, read from top to bottom: split by patients, fit, choose the epoch, look at the test list once."""

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

from c2l_models.errors import C2LError, RunError, RunInterrupted

from ..augment import apply, draw_view
from ..batches import Batch, batches, fits
from ..distributed import pick_device
from ..evaluation.classification_metrics import auroc
from ..evaluation.predictions import Predictions, measure
from ..evaluation.result import Result
from ..evaluation.roc import draw_roc
from ..evaluation.tasks import Task, check_no_shared_patients, count_seen_patients, load_task
from ..initialization import Initialization, load_initialization
from ..run_files import checkpoint
from ..run_files.interruption import StopRequest, stop_requests
from ..run_files.log import progress_line
from ..store.image_store import ImageStore
from . import tuned_network as folder
from .finetuning_report import report_of
from .network import masked_bce
from .parts import both_answers, split_task
from .settings import Settings
from .tuning_run import Run


def finetune(
    start: str,
    store: ImageStore,
    task: str | Task,
    out: Path,
    settings: Settings,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
    versus: Path | None = None,
) -> Result:
    """Fine-tune a start on a task's training patients, and measure it on its test patients.

    Args:
        start: as `load_initialization` takes it: a release, a file, a run folder, "imagenet", "random".
        store: the images and their labels.
        task: a task, or the name of one in `tasks.toml`.
        out: the run's folder; gets settings.json, log.jsonl, model.safetensors, predictions.npz, figures.npz, the
            report and, last, result.json.
        settings: what is computed.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        resume: go on with the run in `out`, or begin where there is none; on the CPU to the same bits as if it had
            never stopped. Of a finished run the result is read and its report written anew.
        progress: show a progress line.
        versus: the folder of another finished run on the same task: the report shows the paired differences to it.

    Raises:
        RunError: the folder exists and `resume` is not set, or it is another run's; the loss is not finite; a patient
            is trained on and tested on.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint is written.
        DatasetError: a store without the task's images, or with too few patients.
        C2LError: no such start or task; `versus` is no finished run, or was not measured on the same sample.
    """
    task = replace(load_task(task) if isinstance(task, str) else task, uncertain=settings.uncertain)
    other = Result.read(versus) if versus else None
    if other and other.task != task.name:
        raise C2LError(f"{versus} is a run on {other.task}, this one is on {task.name}; wanted two runs on one task")
    place, labels = pick_device(device), task.labels(store)
    parts = split_task(task, store, settings)
    calibrate_on = parts.fit if settings.frozen else None
    chosen = load_initialization(start, "resnet18", settings.size, settings.seed, store, place, calibrate_on)
    folder.begin(out, _what(chosen, store, task, settings, place), resume)
    if Result.is_done(out):
        result = Result.read(out)
    else:
        images = store.to(place) if fits(store, place) else store
        run = Run(chosen, parts, labels.shape[1], settings, out, place)
        fit(run, images, labels, resume, progress)
        result = evaluate(run, chosen, images, task, labels)
    result.write(out)  # before the report, which another run in the way may refuse: the test list is looked at once
    predictions = Predictions.load(out)
    report_of(result, predictions, task, other).write(out)
    draw_roc(predictions, out / "roc.png")
    folder.tidy(out)
    return result


def fit(run: Run, store: ImageStore, labels: NDArray[np.float32], resume: bool, progress: bool) -> None:
    """All epochs, each looked at on the held-out patients; raises as `finetune`."""
    if resume and checkpoint.exists(run.folder):
        run.load()
    targets = torch.from_numpy(labels).to(run.device)
    began = time.perf_counter()
    with stop_requests() as request, progress_line(progress) as line:
        shown = line.add_task("fine-tuning", total=run.total_steps, completed=run.step, metrics="")
        run.train()
        for batch in batches(store, run.parts.fit, run.order, run.device, first=run.step):
            run.loss += train_step(run, batch, targets[batch.rows])
            run.step += 1
            line.update(shown, completed=run.step)
            if run.step % run.steps_per_epoch == 0:
                told = tune(run, store, labels, time.perf_counter() - began)
                line.update(shown, metrics=f"loss {told['loss']:.4f}  tuning AUROC {told['tuning_auroc']:.3f}")
                run.save()
                began = time.perf_counter()
            if request and run.step < run.total_steps:
                _stop(run, request)


def train_step(run: Run, batch: Batch, targets: Tensor) -> Tensor:
    """One step on a batch, targets [B, L]; gives the loss, on the device. All chance comes from seed and step."""
    draw = draw_view(len(batch.images), run.view, run.seeded())
    view = apply(batch.images.float() / 255, draw, run.view)
    run.schedule.step_update(run.step)
    with run.autocast():
        logits = run.network(view)
    loss = masked_bce(logits, targets)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    return loss.detach()


def tune(run: Run, store: ImageStore, labels: NDArray[np.float32], seconds: float) -> dict[str, Any]:
    """After an epoch: mean AUROC on the held-out patients, which chooses the epoch. Gives the log's line.

    Raises:
        RunError: the loss or a score is not finite.
    """
    loss, rows = float(run.loss) / run.steps_per_epoch, run.parts.tune
    scores = run.predict(store, rows)
    if not (math.isfinite(loss) and np.isfinite(scores).all()):
        raise RunError(
            f"epoch {run.epoch}: the loss is {loss:g} or a score is not finite; begin a new run with a lower --lr than "
            f"{run.settings.lr:g}"
        )
    reached = auroc(scores, labels[rows], bootstrap=0).mean
    if reached > run.best:
        run.best, run.best_step = reached, run.step
    told = {"epoch": run.epoch, "step": run.step, "loss": loss, "tuning_auroc": reached, "lr": run.lr}
    run.lines.append(told | {"seconds": round(seconds, 3)})
    run.loss.zero_()
    folder.write_log(run.folder, run.lines)
    return told


def evaluate(run: Run, start: Initialization, store: ImageStore, task: Task, labels: NDArray[np.float32]) -> Result:
    """The chosen epoch's network on the test list: the only place where that list is looked at."""
    parts, settings, patients = run.parts, run.settings, store.patients
    for rows in (parts.fit, parts.tune):
        check_no_shared_patients(store, rows, parts.test)
    run.choose()
    names = task.label_names(store)
    about = {"architecture": start.architecture, "labels": names, "mean": start.mean, "std": start.std}
    folder.save_network(run.folder, run.network.state_dict(), about | {"size": settings.size, "in_chans": 1})
    scores = run.predict(store, parts.test).astype(np.float64)
    scores[:, ~both_answers(labels[parts.fit])] = np.nan  # nothing was learnt: no figure, as in a probe
    targets = labels[parts.test].astype(np.float64)
    predictions = Predictions(task.name, names, scores, targets, patients[parts.test])
    predictions.save(run.folder)
    metrics = measure(predictions, task, settings.bootstrap)
    facts = _what(start, store, task, settings, run.device) | {
        "size": settings.size,
        "bootstrap": settings.bootstrap,
        **{f"{name}_images": len(rows) for name, rows in vars(parts).items()},
        **{f"{name}_patients": len(set(patients[rows])) for name, rows in vars(parts).items()},
        "test_patients_seen_in_pretraining": count_seen_patients(start.seen, patients[parts.test]),
        "epoch": run.best_step // run.steps_per_epoch,
        "tuning_auroc": round(run.best, 4),
        "seconds_per_epoch": round(float(np.median([line["seconds"] for line in run.lines])), 2),
        "seconds": round(sum(line["seconds"] for line in run.lines), 1),
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm")},
    }
    return Result("finetune", start.name, start.architecture, task.name, settings.seed, metrics, facts)


def _what(
    start: Initialization, store: ImageStore, task: Task, settings: Settings, device: torch.device
) -> dict[str, Any]:
    """What has to be the same for a run to go on."""
    return {
        "start": start.name,
        "about": start.about,
        "task": task.name,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "device": device.type,
        "settings": settings.to_dict(),
    }


def _stop(run: Run, request: StopRequest) -> None:
    run.save()
    raise RunInterrupted(f"{request} at step {run.step}; a checkpoint is written, --resume goes on from it")
