"""Training a detector, read from top to bottom; on the CPU it goes on from a checkpoint to the same bits."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection import RetinaNet

from c2l_models.errors import DatasetError, RunError, RunInterrupted

from ..run_files import checkpoint
from ..run_files.interruption import stop_requests
from ..run_files.log import RunLog, StepGroup
from ..seeding import seed_of
from .box_augment import augment
from .detector import OPACITY
from .images import Films
from .patients import TRAINING
from .settings import Settings

KEEP = 2
"""Checkpoints: should the newest be torn, there is the one before."""
LOG_EVERY = 10
"""Steps."""


def train(
    detector: RetinaNet,
    films: Films,
    settings: Settings,
    folder: Path,
    device: torch.device,
    progress: bool = True,
) -> float:
    """Train on the training part; go on from the folder's newest checkpoint, where there is one.

    Films without boxes take part: all that is found in them is wrong. Order, augmentation and learning rate are a
    function of settings and step.

    Args:
        detector: is changed.
        films: what is learnt from.
        settings: how.
        folder: gets log.jsonl, tensorboard/ and, after each epoch, checkpoints/.
        device: where the detector is.
        progress: show a progress line.

    Returns:
        Seconds that all steps took, those before a stop included.

    Raises:
        DatasetError: fewer films than one batch.
        RunError: the loss is not finite.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint is written.
    """
    positions = films.of(TRAINING)
    steps_per_epoch, total = len(positions) // settings.batch_size, settings.total_steps(len(positions))
    if not total:
        raise DatasetError(f"{len(positions)} films to train on, fewer than one batch of {settings.batch_size}")
    optimizer = torch.optim.SGD(
        detector.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay
    )
    group, first, seconds = StepGroup(), 0, 0.0
    damaged: tuple[str, ...] = ()
    if checkpoint.exists(folder):
        loaded = checkpoint.load(folder)
        state, damaged = loaded.state, loaded.passed_over
        detector.load_state_dict(state["detector"])
        optimizer.load_state_dict(state["optimizer"])
        group.load_state_dict(state["group"])
        first, seconds = state["step"], state["seconds"]
    began = time.monotonic()

    def save(step: int) -> None:
        parts = {"detector": detector, "optimizer": optimizer, "group": group}
        group.read()
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": step, "seconds": seconds + time.monotonic() - began}
        checkpoint.save(folder, state, step, KEEP)

    with stop_requests() as request, RunLog(folder, total, first, True, progress, "training") as log:
        for reason in damaged:
            log.write_note(first, reason)
        for step in range(first, total):
            lr = settings.lr_at(step, total)
            batch = positions[batch_of(step, len(positions), settings)]
            losses = train_step(detector, optimizer, films, batch, lr, seed_of(settings.seed, 0, step), device)
            group.add(len(batch), 0.0, losses)
            log.advance()
            done = step + 1
            if done % LOG_EVERY == 0 or done == total:
                if not group.read().isfinite().all():
                    raise RunError(f"the loss is not finite within {LOG_EVERY} steps before step {done}; lower --lr")
                log.write_group(done, done / steps_per_epoch, lr, group)
                group.clear()
            if done % steps_per_epoch == 0 or done == total or request:
                save(done)
            if request and done < total:
                raise RunInterrupted(f"{request} after step {done} of {total}; go on with --resume")
    return seconds + time.monotonic() - began


def train_step(
    detector: RetinaNet,
    optimizer: torch.optim.Optimizer,
    films: Films,
    batch: NDArray[np.int64],
    lr: float,
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """One step on the films at these positions; the loss and its two parts. All chance comes from the seed."""
    torch.manual_seed(seed)
    images, targets = [], []
    for position, film in zip(batch, films.store[films.rows[batch]].to(device), strict=True):
        boxes = torch.from_numpy(films.boxes[position]).float().to(device)
        film, boxes = augment(film, boxes)
        images.append(film.float() / 255)
        labels = torch.full((len(boxes),), OPACITY, dtype=torch.int64, device=device)
        targets.append({"boxes": boxes, "labels": labels})
    for parameters in optimizer.param_groups:
        parameters["lr"] = lr
    detector.train()
    losses: dict[str, Tensor] = detector(images, targets)
    loss = losses["classification"] + losses["bbox_regression"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss, "loss_class": losses["classification"], "loss_box": losses["bbox_regression"]}


def batch_of(step: int, films: int, settings: Settings) -> NDArray[np.int64]:
    """Which of so many films a step takes; each epoch has an order of its own."""
    epoch, place = divmod(step, films // settings.batch_size)
    order = np.random.default_rng(seed_of(settings.seed, 1, epoch)).permutation(films)
    return order[place * settings.batch_size :][: settings.batch_size]
