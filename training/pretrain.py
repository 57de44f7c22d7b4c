"""Pretraining: the paper's Algorithm 1 on an image store, on one process or many. Read from top to bottom."""

import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from c2l_models.errors import RunError

from .augment import Draws, draw_two
from .batches import batches, training_rows
from .callbacks import Callbacks, RunCallbacks
from .distributed import World, join, unwrap
from .memory_plan import plan_memory
from .networks import buffers_kept
from .objectives.method import Method, MethodStep
from .processor import slow_precision
from .recipe import Recipe
from .run import Run
from .run_files.interruption import stop_requests
from .run_files.log import RunLog
from .run_files.run_lock import locked_run_folder
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
    """Run a recipe, or resume a stopped run.

    Args:
        recipe: all settings.
        store: the images; `recipe.sources` selects those to train on.
        run_folder: the run's folder. It receives recipe.json, run.json, log.jsonl, tensorboard/, pictures and
            checkpoints/.
        device: "cpu", "cuda", or "auto": CUDA if the machine has it. Under `torchrun` each process takes a GPU.
        resume: resume from the folder's newest sound checkpoint, or start if it has no checkpoint. On the CPU, with one
            or two processes, the result is bit-identical to an uninterrupted run; otherwise it is equal to the
            rounding of sums.
        max_seconds: stop after about this time, with a checkpoint.
        progress: show a progress line.

    Returns:
        The run folder.

    Raises:
        RunError: the folder exists and `resume` is not set, or is in use; the checkpoint is from another run; no
            checkpoint is sound; the loss is not plausible; or the processes cannot share a batch equally.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint is written.
        DatasetError: the store has no image of a source, or the images do not fill one batch.
    """
    deadline = time.monotonic() + (float("inf") if max_seconds is None else max_seconds)
    with join(device) as (world, own_device), stop_requests() as request, ExitStack() as held:
        recipe = share_batch(recipe, world)
        rows = training_rows(recipe, store)
        run = Run(recipe, store, rows, run_folder, world, own_device)  # lines 3 and 5
        world.share(lambda: held.enter_context(locked_run_folder(run_folder, resume)))
        damaged = run.start_or_resume(resume)
        shown = run.method.PROGRESS
        with RunLog(run_folder, run.schedule.total_steps, run.step, world.is_main, progress, shown=shown) as log:
            memory = plan_memory(recipe, store, train_step, own_device, world.size)
            run.images_on_gpu = memory.images_on_gpu if memory else None
            notes = [*damaged, slow_precision(recipe.precision, own_device), str(memory or "")]
            for note in filter(None, notes):
                log.write_note(run.step, note)
            callbacks = RunCallbacks(run, log, request, deadline)
            train(run, callbacks)
        callbacks.close()
    return run_folder


def train(run: Run, callbacks: Callbacks) -> None:
    """Train from the run's present step to the end of its recipe, or until a callback stops it (lines 6 to 19)."""
    recipe = run.recipe
    fixed = draw_two(len(run.store), recipe, run.seeded("views")) if recipe.views == "once" else None
    run.group.start_clock()
    steps = (run.step, run.schedule.total_steps, run.groups, run.images_on_gpu)
    for batch in batches(run.store, run.rows, recipe, run.device, run.world, *steps):
        lr = run.apply_schedule()
        draws = fixed[batch.rows] if fixed else None
        callbacks.before_step(batch, draws)
        step = train_step(run.model, run.optimizer, batch.images, run.seeded(run.step), draws)
        run.step += 1
        if callbacks.after_step(step, batch, lr):
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
        model: the `Method` (networks and queue), wrapped if there are several processes; it is updated.
        optimizer: updates the student's parameters.
        batch: X, uint8 [B, 1, S, S], this process's part.
        generator: on the batch's device, in the same state on every process; everything but dropout draws from it.
        draws: the augmentation of the two views, if it was drawn before the loop.
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
    """The recipe with at least one mixup block per process.

    Raises:
        RunError: the processes cannot share a batch equally, each with whole batch-norm groups and mixup blocks.
    """
    blocks = max(recipe.mixup_blocks, world.size)
    if recipe.batch_size % (world.size * recipe.batch_norm_group) or recipe.batch_size % blocks or blocks % world.size:
        raise RunError(
            f"{world.size} processes cannot share a batch of {recipe.batch_size}: expected whole groups of "
            f"{recipe.batch_norm_group} images (batch_norm_group) and whole mixup blocks (here {blocks}) on each "
            "process; change the number of processes, or these settings"
        )
    return replace(recipe, mixup_blocks=blocks)


if __name__ == "__main__":
    from c2l_models.cli import main

    main(["pretrain", *sys.argv[1:]])
