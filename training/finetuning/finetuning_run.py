"""State of a fine-tuning run. A checkpoint and the settings together determine the next step."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from c2l_models.errors import RunError

from ..features import extract_features
from ..initialization import Initialization
from ..recipe import Augment
from ..run_files import checkpoint
from ..seeding import seed_of
from ..store.image_store import ImageStore
from .network import make_optimizer, make_schedule, with_head
from .settings import Settings
from .task_split import TaskSplit

_SAVED = ("step", "loss", "lines", "best", "best_step")


@dataclass(frozen=True)
class View:
    """Size, normalisation and augmentation of the training images."""

    size: int
    mean: float
    std: float
    augment: Augment


class FinetuningRun:
    """Network, optimizer and progress.

    Attributes:
        network: the initialization's network with a new head, changed in place.
        order: the settings that determine the batches. The batch size is at most the number of images to fit.
        step: number of finished steps.
        steps_per_epoch, total_steps: follow from the settings and the number of images to fit.
        loss: float64 scalar on the device, the sum of the losses in the present epoch.
        lines: the log's lines, one per epoch.
        best: the highest `tuning_metric` on the tuning patients so far; -inf without tuning patients.
        best_step: the step after which `best` was reached, or the last epoch's step without tuning patients.
    """

    def __init__(
        self,
        init: Initialization,
        split: TaskSplit,
        outputs: int,
        settings: Settings,
        folder: Path,
        device: torch.device,
    ):
        self.settings, self.folder, self.device, self.split = settings, folder, device, split
        self.order = replace(settings, batch_size=min(settings.batch_size, len(split.fit)))
        self.steps_per_epoch = len(split.fit) // self.order.batch_size
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.view = View(settings.size, init.mean, init.std, settings.augment)
        self.network = with_head(init, outputs, settings)
        self.optimizer = make_optimizer(self.network, settings)
        self.schedule = make_schedule(self.optimizer, settings, self.total_steps)
        self.step = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.lines: list[dict[str, Any]] = []
        self.best, self.best_step = -math.inf, -1
        self._generator = torch.Generator(device)
        torch.backends.cudnn.benchmark = device.type == "cuda"  # a step's shapes never change

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self.step // self.steps_per_epoch

    @property
    def lr(self) -> float:
        """The head's learning rate at the last step."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def step_generator(self) -> torch.Generator:
        """The random generator of the next step. It depends on seed and step only."""
        return self._generator.manual_seed(seed_of(self.settings.seed, self.step))

    def train(self) -> None:
        """Set training mode. A frozen network stays in evaluation mode, so its batch norm does not change."""
        self.network.train(not self.settings.frozen)

    def predict(self, store: ImageStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of the clean images of some rows, float32 [len(rows), L].

        The network always runs in float32. With bfloat16, which has 128 values between x and 2x, many logits would tie.
        """
        view = self.view
        return extract_features(self.network, store, rows, view.size, view.mean, view.std, self.device)

    def save(self) -> None:
        """Write a checkpoint, and mark it if its epoch is the best so far. Raises CheckpointNotWritten."""
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {key: getattr(self, key) for key in _SAVED} | {"epoch_rule": self.split.epoch_rule}
        path = checkpoint.save(self.folder, state, self.step, keep=1)
        if self.best_step == self.step:
            checkpoint.mark_best(self.folder, path)

    def load(self) -> None:
        """Restore the newest intact checkpoint.

        Raises:
            RunError: no checkpoint is intact, or the run began with another rule for the epoch, as earlier versions
                did.
        """
        loaded = checkpoint.load(self.folder)
        began_with = loaded.state.get("epoch_rule", "best mean over all labels (an earlier version)")
        if began_with != self.split.epoch_rule:
            raise RunError(
                f"{self.folder} was interrupted while it chose the epoch by another rule: began with {began_with!r}, "
                f"now {self.split.epoch_rule!r}. Choose another folder for a new run"
            )
        self.network.load_state_dict(loaded.state["network"])
        self.optimizer.load_state_dict(loaded.state["optimizer"])
        for key in _SAVED:
            setattr(self, key, loaded.state[key])
        self.loss = self.loss.to(self.device)
        if self.best_step == self.step:
            checkpoint.mark_best(self.folder, loaded.path)  # the run may have ended between writing and marking

    def restore_best(self) -> None:
        """Load the network of the epoch that was best on the tuning patients."""
        self.network.load_state_dict(checkpoint.load(self.folder, best=True).state["network"])
