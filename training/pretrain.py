"""Pretraining, read from top to bottom: the paper's Algorithm 1 around a memory-mapped store of radiographs."""

import json
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from c2l_models.errors import DatasetError, RunError

from . import checkpoint
from .augment import two_views
from .evaluation.monitor import KnnMonitor
from .image_store import ImageStore
from .log import RunLog, draw_curves
from .networks import update_teacher
from .objectives.c2l import C2L, Step
from .recipe import Recipe


def pretrain(
    recipe: Recipe,
    store: ImageStore,
    run_folder: Path,
    device: str = "auto",
    resume: bool = False,
    max_seconds: float | None = None,
    progress: bool = True,
) -> Path:
    """Run a recipe, or go on with a stopped run.

    Args:
        recipe: what is computed.
        store: the images; `recipe.sources` says which of them are trained on.
        run_folder: is made; gets recipe.json, run.json, log.jsonl, tensorboard/, curves.png and checkpoint.pt.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        resume: go on from the folder's checkpoint; on the CPU to the same bits as if it had never stopped.
        max_seconds: stop after about so long, with a checkpoint to go on from.
        progress: show a progress line.

    Returns:
        The run folder.

    Raises:
        RunError: the folder exists and `resume` is not set; the checkpoint is another run's; the loss is not finite.
        DatasetError: fewer images than one batch.
    """
    began = time.perf_counter()
    place = pick_device(device)
    rows = training_rows(recipe, store)
    steps_per_epoch = len(rows) // recipe.batch_size
    if not steps_per_epoch:
        raise DatasetError(f"{len(rows)} images to train on, fewer than one batch of {recipe.batch_size}")

    torch.manual_seed(recipe.seed)
    host = torch.Generator().manual_seed(recipe.seed)  # queue, mixup, ShuffleBN
    local = torch.Generator(place).manual_seed(recipe.seed)  # augmentation
    c2l = C2L(recipe, host).to(place).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        c2l.student.parameters(),
        lr=recipe.lr_at(0),
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    step = 0
    if resume:
        state = checkpoint.load(run_folder)
        checkpoint.check_same_run(state, recipe, store.sha256)
        c2l.load_state_dict(state["c2l"])
        optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"], host, local)
        step = state["step"]
    else:
        create_run_folder(run_folder, recipe, store, place)

    def save() -> None:
        state = {
            "recipe": recipe.to_dict(),
            "store_sha256": store.sha256,
            "c2l": c2l.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": random_state(host, local),
            "step": step,
        }
        checkpoint.save(run_folder / checkpoint.NAME, state)

    images = store.to(place)
    monitor = KnnMonitor(recipe, store, rows)
    total_steps = recipe.epochs * steps_per_epoch
    c2l.train()
    with RunLog(run_folder, total_steps, step, progress) as log:
        for batch, waited in batches(images, rows, recipe, first=step):
            epoch = step // steps_per_epoch
            lr = optimizer.param_groups[0]["lr"] = recipe.lr_at(epoch)
            done = train_step(c2l, optimizer, batch, host, local)
            step += 1
            log.add(len(batch), waited, **figures(done))
            if step % recipe.log_every == 0 or step == total_steps:
                means = log.write_group(step, step / steps_per_epoch, lr)
                if not np.isfinite(means["loss"]):
                    raise RunError(f"the loss is {means['loss']} at step {step}; lower optimizer.lr ({lr:g})")
            epoch_ends = step % steps_per_epoch == 0
            if epoch_ends and recipe.probe_every and (epoch + 1) % recipe.probe_every == 0:
                log.write_probe(step, epoch + 1, monitor(c2l.student.backbone))
                draw_curves(run_folder)
            out_of_time = max_seconds is not None and time.perf_counter() - began > max_seconds
            if epoch_ends or out_of_time or step % recipe.checkpoint_every == 0:
                save()
            if out_of_time:
                break
    draw_curves(run_folder)
    return run_folder


def train_step(
    c2l: C2L, optimizer: torch.optim.Optimizer, batch: Tensor, host: torch.Generator, local: torch.Generator
) -> Step:
    """One iteration of Algorithm 1.

    Args:
        c2l: student, teacher and queue; all three are changed.
        optimizer: of the student's parameters.
        batch: X, uint8 [B, 1, S, S].
        host: a CPU generator, for mixup and ShuffleBN.
        local: a generator on the batch's device, for the augmentation.
    """
    recipe = c2l.recipe
    x1_a, x2_a = two_views(batch, recipe, local)  # line 1
    step = c2l(x1_a, x2_a, host)  # lines 2, 7 to 15
    optimizer.zero_grad()
    step.loss.total.backward()  # line 16
    optimizer.step()
    update_teacher(c2l.teacher, c2l.student, recipe.teacher_momentum)  # line 17
    c2l.queue.insert(*step.keys)  # line 18
    return step


def figures(step: Step) -> dict[str, Tensor]:
    """What is logged of a step, left on its device. Spread: 0 where all features are one, 1 where they are even."""
    loss, keys, top1 = step
    spread = keys[0].std(dim=0).mean() * keys[0].shape[1] ** 0.5
    return {"loss": loss.total, "loss_a": loss.loss_a, "loss_m": loss.loss_m, "top1": top1, "spread": spread}


def training_rows(recipe: Recipe, store: ImageStore) -> np.ndarray:
    """The store's rows that a recipe trains on, int64 [N].

    Raises:
        DatasetError: a source of the recipe is not in the store.
    """
    if not recipe.sources:
        return np.flatnonzero(store.index["split"].to_numpy() != "test")
    parts = []
    for source in recipe.sources:
        dataset, _, split = source.partition(":")
        part = store.select(dataset=dataset, split=split or None)
        if not len(part):
            raise DatasetError(
                f"recipe {recipe.name} trains on {source}, and the store holds none of it: "
                f"prepare it with `c2l prepare --source {dataset}=DIR`, or give other --sources"
            )
        parts.append(part)
    return np.concatenate(parts)


def epoch_order(rows: np.ndarray, recipe: Recipe, epoch: int) -> np.ndarray:
    """The order of an epoch's rows: a function of seed and epoch alone, so that a resumed run finds it again."""
    return np.random.default_rng((recipe.seed, epoch)).permutation(rows)


def batches(
    images: ImageStore, rows: np.ndarray, recipe: Recipe, first: int = 0
) -> Iterator[tuple[Tensor, float]]:
    """A run's batches from step `first` on: uint8 [B, 1, S, S], each with the seconds that it was waited for.

    An epoch's last images that do not fill a batch are left out; the next epoch has another order.
    """
    steps_per_epoch = len(rows) // recipe.batch_size
    for step in range(first, recipe.epochs * steps_per_epoch):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first:
            order = epoch_order(rows, recipe, epoch)
        began = time.perf_counter()
        batch = images[order[position * recipe.batch_size : (position + 1) * recipe.batch_size]]
        yield batch, time.perf_counter() - began


def pick_device(device: str) -> torch.device:
    """ "auto": CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def random_state(host: torch.Generator, local: torch.Generator) -> dict[str, Any]:
    """Every random state that a step may draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"host": host.get_state(), "local": local.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any], host: torch.Generator, local: torch.Generator) -> None:
    """The inverse of `random_state`."""
    host.set_state(state["host"])
    local.set_state(state["local"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def create_run_folder(folder: Path, recipe: Recipe, store: ImageStore, device: torch.device) -> None:
    """Make the folder with the resolved recipe and what it runs on; an existing one is never written over."""
    if folder.exists():
        raise RunError(f"{folder} exists; choose another folder, or go on with that run: --resume")
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict(), indent=2) + "\n")
    run = {
        "store": str(store.path.resolve()),
        "store_sha256": store.sha256,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "c2l_models": version("c2l-models"),
    }
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
