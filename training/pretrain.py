"""Pretraining, read from top to bottom: the paper's Algorithm 1 around an image store, on one process or many."""

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from c2l_models.errors import RunError

from .augment import Draws, draw_two
from .batches import batches, training_rows
from .callbacks import Watch, Watcher
from .distributed import World, join, unwrap
from .networks import buffers_kept
from .objectives.method import Method, MethodStep
from .recipe import Recipe
from .run import Run
from .run_files.interruption import stop_requests
from .run_files.log import RunLog
from .store.image_store import ImageStore


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
        resume: go on from the folder's newest sound checkpoint, or begin where there is none; on the CPU, with one
            process or two, to the same bits as if it had never stopped, with more to the rounding of sums.
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
        recipe = share_batch(recipe, world)
        rows = training_rows(recipe, store)
        run = Run(recipe, store, rows, run_folder, world, place)
        damaged = run.begin(resume)
        with RunLog(run_folder, run.total_steps, run.step, world.is_main, progress) as log:
            for reason in damaged:
                log.write_note(run.step, reason)
            watch = Watch(run, log, request, deadline)
            train(run, watch)
        watch.close()
    return run_folder


def train(run: Run, watch: Watcher) -> None:
    """Step after step, from where the run is to the end of its recipe, or to where its watch stops it."""
    recipe = run.recipe
    fixed = draw_two(len(run.store), recipe, run.seeded("views")) if recipe.views == "once" else None
    for batch in batches(run.store, run.rows, recipe, run.device, run.world, first=run.step):
        lr = run.set_lr()
        draws = fixed[batch.rows] if fixed else None
        watch.begins(batch, draws)
        step = train_step(run.model, run.optimizer, batch.images, run.seeded(run.step), draws)
        run.step += 1
        if watch.ends(step, batch, lr):
            break


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    generator: torch.Generator,
    draws: Draws | None = None,
) -> MethodStep:
    """One iteration of Algorithm 1.

    Args:
        model: student, teacher and queue (a `Method`, wrapped where there are several processes); all are changed.
        optimizer: of the student's parameters.
        batch: X, uint8 [B, 1, S, S], this process's part.
        generator: on the batch's device, in the same state on every process; all chance comes from it.
        draws: the views' augmentation, where it is not drawn anew.
    """
    method: Method = unwrap(model)
    views = method.views(batch, generator, draws)  # line 1
    step: MethodStep = model(*views, generator)  # lines 2, 7 to 15
    optimizer.zero_grad()
    with buffers_kept(method.student) if method.recipe.gradient_checkpointing else nullcontext():
        step.loss.total.backward()  # line 16
    optimizer.step()
    method.after_step(step)  # lines 17 and 18
    return step


def share_batch(recipe: Recipe, world: World) -> Recipe:
    """The recipe with at least one mixup block a process.

    Raises:
        RunError: a batch cannot be shared equally by the processes, each with whole batch-norm groups and blocks.
    """
    blocks = max(recipe.mixup_blocks, world.size)
    if recipe.batch_size % (world.size * recipe.batch_norm_group) or recipe.batch_size % blocks or blocks % world.size:
        raise RunError(
            f"{world.size} processes cannot share a batch of {recipe.batch_size} in groups of "
            f"{recipe.batch_norm_group} (batch_norm_group) and {blocks} mixup blocks; wanted whole groups and blocks "
            "on each process: take another number of processes, or other values"
        )
    return replace(recipe, mixup_blocks=blocks)


if __name__ == "__main__":
    from c2l_models.cli import main

    main(["pretrain", *sys.argv[1:]])
