"""Pretraining, read from top to bottom: the paper's Algorithm 1 around an image store, on one process or many."""

import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from c2l_models.errors import DatasetError, RunError, RunInterrupted

from .augment import Draws, draw_two, two_views
from .batches import batches, training_rows
from .contact_sheet import draw_first_batch
from .curves import draw_curves
from .distributed import World, join, unwrap
from .evaluation.monitor import KnnMonitor
from .image_store import ImageStore
from .interruption import stop_requests
from .log import RunLog
from .networks import update_teacher
from .objectives.c2l import C2L, Step
from .recipe import Recipe
from .run import Run, check_sound


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
        run_folder: is made; gets recipe.json, run.json, log.jsonl, tensorboard/, pictures and checkpoints/.
        device: "cpu", "cuda", or "auto": CUDA where there is one. Under `torchrun` each process takes a GPU.
        resume: go on from the folder's newest sound checkpoint, or begin where there is none; on the CPU to the same
            bits as if it had never stopped.
        max_seconds: stop after about so long, with a checkpoint to go on from.
        progress: show a progress line.

    Returns:
        The run folder.

    Raises:
        RunError: the folder exists and `resume` is not set; the checkpoint is another run's; the loss is not finite.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint is written.
        DatasetError: fewer images than one batch.
    """
    deadline = time.monotonic() + (float("inf") if max_seconds is None else max_seconds)
    with join(device) as (world, place), stop_requests() as request:
        recipe = replace(recipe, mixup_blocks=max(recipe.mixup_blocks, world.size))
        check_shares(recipe, world)
        rows = training_rows(recipe, store)
        steps_per_epoch = len(rows) // recipe.batch_size
        if not steps_per_epoch:
            raise DatasetError(f"{len(rows)} images to train on, fewer than one batch of {recipe.batch_size}")
        total_steps = recipe.epochs * steps_per_epoch

        run = Run(recipe, store, run_folder, world, place)
        passed_over = run.begin(resume)
        fixed = draw_two(len(store), recipe, run.seeded("views")) if recipe.views == "once" else None
        monitor = KnnMonitor(recipe, store, rows)
        with RunLog(run_folder, total_steps, run.step, world.is_main, progress) as log:
            for reason in passed_over:
                log.write_note(run.step, reason)
            for batch in batches(store, rows, recipe, place, world, first=run.step):
                epoch = run.step // steps_per_epoch
                lr = run.set_lr(recipe.lr_at(epoch))
                draws = fixed and fixed[world.block(torch.from_numpy(batch.rows))]
                if run.step == 0 and world.is_main:
                    with suppress(OSError):  # a full disk: no picture is worth a run
                        draw_first_batch(run_folder / "first_batch.png", batch.images, run.c2l, run.seeded(0), draws)
                done = train_step(run.model, run.optimizer, batch.images, run.seeded(run.step), draws)
                run.step += 1
                run.group.add(recipe.batch_size, batch.waited, figures(done))
                log.advance()

                epoch_ends = run.step % steps_per_epoch == 0
                group_ends = run.step % recipe.log_every == 0 or run.step == total_steps
                asked = bool(request) or time.monotonic() > deadline
                leaves = (group_ends or world.size == 1) and world.any(asked, place)
                saves = epoch_ends or leaves or run.step % recipe.checkpoint_every == 0
                if group_ends or saves:
                    figures_of_steps = check_sound(run, rows)
                if group_ends:
                    log.write_group(run.step, run.step / steps_per_epoch, lr, run.group, figures_of_steps)
                    run.group.clear()
                if epoch_ends and world.is_main and monitor.is_due(epoch + 1):
                    with run.group.paused():
                        run.probed(auroc := monitor(run.c2l.student.backbone))
                        log.write_probe(run.step, epoch + 1, auroc)
                        with suppress(OSError):
                            draw_curves(run_folder)
                if saves and (unwritten := run.save(must=leaves or run.step == total_steps)):
                    log.write_note(run.step, unwritten)
                if leaves:
                    break
        if world.is_main:
            with suppress(OSError):
                draw_curves(run_folder)
        world.wait()
        if request and run.step < total_steps:
            raise RunInterrupted(f"{request} at step {run.step}: its checkpoint is written, --resume goes on from it")
    return run_folder


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    generator: torch.Generator,
    draws: Draws | None = None,
) -> Step:
    """One iteration of Algorithm 1.

    Args:
        model: student, teacher and queue (`C2L`, wrapped where there are several processes); all three are changed.
        optimizer: of the student's parameters.
        batch: X, uint8 [B, 1, S, S], this process's part.
        generator: on the batch's device, in the same state on every process; all chance comes from it.
        draws: the views' augmentation, where it is not drawn anew.
    """
    c2l: C2L = unwrap(model)
    x1_a, x2_a = two_views(batch, c2l.recipe, generator, c2l.world, draws)  # line 1
    step: Step = model(x1_a, x2_a, generator)  # lines 2, 7 to 15
    optimizer.zero_grad()
    step.loss.total.backward()  # line 16
    optimizer.step()
    update_teacher(c2l.teacher, c2l.student, c2l.recipe.teacher_momentum)  # line 17
    c2l.queue.insert(*step.keys)  # line 18
    return step


def figures(step: Step) -> dict[str, Tensor]:
    """What is logged of a step, left on its device. Spread: 0 where all features are one, 1 where they are even."""
    loss, keys, top1 = step
    spread = keys[0].std(dim=0).mean() * keys[0].shape[1] ** 0.5
    return {"loss": loss.total, "loss_a": loss.loss_a, "loss_m": loss.loss_m, "top1": top1, "spread": spread}


def check_shares(recipe: Recipe, world: World) -> None:
    """Raise RunError where a batch cannot be shared equally by the processes, each with whole batch-norm groups."""
    if recipe.batch_size % (world.size * recipe.batch_norm_group) or recipe.mixup_blocks % world.size:
        raise RunError(
            f"{world.size} processes, batch_size {recipe.batch_size}, batch_norm_group {recipe.batch_norm_group}, "
            f"mixup_blocks {recipe.mixup_blocks}: wanted a batch of whole groups, and whole blocks, on each process; "
            "take another number of processes or other values"
        )


if __name__ == "__main__":
    from c2l_models.cli import main

    main(["pretrain", *sys.argv[1:]])
