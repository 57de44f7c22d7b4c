"""Pretraining, read from top to bottom: the paper's Algorithm 1 around a memory-mapped store of radiographs."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from c2l_models.errors import DatasetError, RunError

from . import checkpoint
from .augment import two_views
from .batches import batches, training_rows
from .evaluation.monitor import KnnMonitor
from .image_store import ImageStore
from .log import RunLog, draw_curves
from .networks import update_teacher
from .objectives.c2l import C2L, Step
from .recipe import Recipe
from .run_folder import create_run_folder


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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("this version pretrains in one process; start it without torchrun")
    place = pick_device(device)
    rows = training_rows(recipe, store)
    steps_per_epoch = len(rows) // recipe.batch_size
    if not steps_per_epoch:
        raise DatasetError(f"{len(rows)} images to train on, fewer than one batch of {recipe.batch_size}")

    seeds = np.random.SeedSequence(recipe.seed).generate_state(3).tolist()  # three streams that share nothing
    torch.manual_seed(seeds[0])  # the networks' first weights
    host = torch.Generator().manual_seed(seeds[1])  # queue, mixup, ShuffleBN
    local = torch.Generator(place).manual_seed(seeds[2])  # augmentation
    c2l = C2L(recipe, host).to(place).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        c2l.student.parameters(),
        lr=recipe.lr_at(0),
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    images = store.to(place)
    monitor = KnnMonitor(recipe, store, rows)
    identity = checkpoint.identity(recipe, store, place)

    step = 0
    if resume:
        state = checkpoint.load(run_folder)
        checkpoint.check_same_run(state, identity)
        c2l.load_state_dict(state["c2l"])
        optimizer.load_state_dict(state["optimizer"])
        checkpoint.set_random_state(state["random"], host, local)
        step = state["step"]
    else:
        create_run_folder(run_folder, recipe, store, place)

    total_steps = recipe.epochs * steps_per_epoch
    c2l.train()
    with RunLog(run_folder, total_steps, step, progress) as log:

        def save() -> None:
            parts: dict[str, Any] = {"c2l": c2l, "optimizer": optimizer, "log": log}
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"random": checkpoint.random_state(host, local), "step": step}
            checkpoint.save(run_folder / checkpoint.NAME, identity | state)

        if resume:
            log.load_state_dict(state["log"])
        else:
            save()
        for batch, waited in batches(images, rows, recipe, first=step):
            epoch = step // steps_per_epoch
            lr = optimizer.param_groups[0]["lr"] = recipe.lr_at(epoch)
            done = train_step(c2l, optimizer, batch, host, local)
            step += 1
            log.add(len(batch), waited, **figures(done))
            if step % recipe.log_every == 0 or step == total_steps:
                log.write_group(step, step / steps_per_epoch, lr)
            epoch_ends = step % steps_per_epoch == 0
            if epoch_ends and monitor.is_due(epoch + 1):
                with log.paused():
                    log.write_probe(step, epoch + 1, monitor(c2l.student.backbone))
                    draw_curves(run_folder)
            out_of_time = max_seconds is not None and time.perf_counter() - began > max_seconds
            if epoch_ends or out_of_time or step % recipe.checkpoint_every == 0:
                check_finite(done, c2l, step)
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


def check_finite(done: Step, c2l: C2L, step: int) -> None:
    """Raise RunError where loss or weights are not finite any more, before they replace a sound checkpoint."""
    if not all(torch.isfinite(values).all() for values in (done.loss.total, *c2l.student.parameters())):
        raise RunError(
            f"loss or weights are not finite at step {step} (loss {done.loss.total.item()}); the checkpoint is from "
            f"before it. Begin a new run with a lower --recipe.optimizer.lr than {c2l.recipe.optimizer.lr:g}"
        )


def pick_device(device: str) -> torch.device:
    """ "auto": CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


if __name__ == "__main__":
    from c2l_models.cli import main

    main(["pretrain", *sys.argv[1:]])
