"""Train a detector. On the CPU, a resumed run is bit-identical to an uninterrupted one."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection import RetinaNet

from c2l_models.errors import DatasetError, RunError, RunInterrupted

from ..networks import autocast
from ..run_files import checkpoint
from ..run_files.interruption import stop_requests
from ..run_files.log import RunLog, StepGroup
from ..seeding import seed_of
from .box_augment import augment
from .detector import OPACITY
from .images import DetectionImages
from .patients import TRAINING
from .settings import Settings

KEEP = 2
"""Number of checkpoints to keep, so that a damaged one has a predecessor."""
LOG_EVERY = 10
"""Steps between two lines of the log."""


def train(
    detector: RetinaNet,
    images: DetectionImages,
    settings: Settings,
    folder: Path,
    device: torch.device,
    progress: bool = True,
    measure: Callable[[], Mapping[str, float]] | None = None,
) -> float:
    """Train on the training part, from the newest checkpoint in the folder if there is one.

    Images without boxes are used too, as negatives. Order, augmentation and learning rate depend on settings and step
    only.

    Args:
        detector: trained in place.
        images: the challenge's images.
        settings: the run's settings.
        folder: receives log.jsonl, tensorboard/ and, after each epoch, checkpoints/.
        device: the detector's device.
        progress: show a progress line.
        measure: computes the metrics of the detector, which the log gets after each `curve_every` steps. They change
            nothing in the training.

    Returns:
        Seconds of all steps and measurements, including those before an interruption.

    Raises:
        DatasetError: there are fewer images than one batch.
        RunError: the loss is not finite.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint was written.
    """
    positions = images.of(TRAINING)
    steps_per_epoch, total = len(positions) // settings.batch_size, settings.total_steps(len(positions))
    if not total:
        raise DatasetError(
            f"expected at least one batch of {settings.batch_size} training images, found {len(positions)}; "
            "lower --batch-size or use more images"
        )
    optimizer = make_optimizer(detector, settings)
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
            with autocast(device, settings.precision):
                losses = train_step(detector, optimizer, images, batch, lr, seed_of(settings.seed, 0, step), device)
            group.add(len(batch), 0.0, losses)
            log.advance()
            done = step + 1
            if done % LOG_EVERY == 0 or done == total:
                if not group.read().isfinite().all():
                    raise RunError(
                        f"expected finite losses, found NaN or infinity in the {LOG_EVERY} steps up to step {done}; "
                        f"start a new run with a lower --lr than {settings.lr:g}"
                    )
                log.write_group(done, done / steps_per_epoch, lr, group)
                group.clear()
            if measure and settings.curve_every and (done % settings.curve_every == 0 or done == total):
                with group.paused():
                    log.write_probe(done, done // steps_per_epoch, dict(measure()), "test part:")
            if done % steps_per_epoch == 0 or done == total or request:
                with group.paused():
                    save(done)
            if request and done < total:
                raise RunInterrupted(f"{request} after step {done} of {total}; resume with --resume")
    return seconds + time.monotonic() - began


def make_optimizer(detector: RetinaNet, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of all parameters. `train_step` sets its learning rate."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(detector.parameters(), settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(detector.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)


def train_step(
    detector: RetinaNet,
    optimizer: torch.optim.Optimizer,
    images: DetectionImages,
    batch: NDArray[np.int64],
    lr: float,
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Train on the images at the positions `batch`. Returns the loss and its two terms.

    All random numbers depend on the seed.
    """
    torch.manual_seed(seed)
    inputs, targets = [], []
    for position, image in zip(batch, images.store[images.rows[batch]].to(device), strict=True):
        boxes = torch.from_numpy(images.boxes[position]).float().to(device)
        image, boxes = augment(image, boxes)
        inputs.append(image.float() / 255)
        labels = torch.full((len(boxes),), OPACITY, dtype=torch.int64, device=device)
        targets.append({"boxes": boxes, "labels": labels})
    for parameters in optimizer.param_groups:
        parameters["lr"] = lr
    detector.train()
    losses: dict[str, Tensor] = detector(inputs, targets)
    loss = losses["classification"] + losses["bbox_regression"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss, "loss_class": losses["classification"], "loss_box": losses["bbox_regression"]}


def batch_of(step: int, count: int, settings: Settings) -> NDArray[np.int64]:
    """The positions, among `count` training images, of a step's batch. Each epoch has its own order."""
    epoch, batch = divmod(step, count // settings.batch_size)
    order = np.random.default_rng(seed_of(settings.seed, 1, epoch)).permutation(count)
    return order[batch * settings.batch_size :][: settings.batch_size]
