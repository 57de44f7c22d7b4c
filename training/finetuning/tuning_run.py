"""A fine-tuning run's state: what the next step needs is in a checkpoint, or follows from settings and step."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..features import extract_features
from ..initialization import Initialization
from ..recipe import Augment
from ..run_files import checkpoint
from ..seeding import seed_of
from ..store.image_store import ImageStore
from .network import make_optimizer, make_schedule, with_head
from .parts import Parts
from .settings import Settings


@dataclass(frozen=True)
class View:
    """How training images are drawn and normalised: the settings' augmentation, the start's normalisation."""

    size: int
    mean: float
    std: float
    augment: Augment


class Run:
    """Network, optimizer and progress.

    Attributes:
        network: the start with a new head, changed in place.
        order: the settings, with a batch no larger than what there is to fit.
        step: steps done; `steps_per_epoch` and `total_steps` follow from the settings and the number of images.
        loss: the sum over the present epoch's steps, left on the device.
        lines: of the log, one an epoch.
        best, best_step: the highest tuning AUROC so far, and the step after which it was reached.
    """

    def __init__(
        self, start: Initialization, parts: Parts, outputs: int, settings: Settings, folder: Path, device: torch.device
    ):
        self.settings, self.folder, self.device, self.parts = settings, folder, device, parts
        self.order = replace(settings, batch_size=min(settings.batch_size, len(parts.fit)))
        self.steps_per_epoch = len(parts.fit) // self.order.batch_size
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.view = View(settings.size, start.mean, start.std, settings.augment)
        self.network = with_head(start, outputs, settings)
        self.optimizer = make_optimizer(self.network, settings)
        self.schedule = make_schedule(self.optimizer, settings, self.total_steps)
        self.step = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.lines: list[dict[str, Any]] = []
        self.best, self.best_step = -math.inf, -1
        self._generator = torch.Generator(device)
        torch.backends.cudnn.benchmark = device.type == "cuda"  # shapes never change

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def lr(self) -> float:
        """The head's learning rate at the step before."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def seeded(self) -> torch.Generator:
        """The generator that the next step draws from: a function of seed and step alone."""
        return self._generator.manual_seed(seed_of(self.settings.seed, self.step))

    def autocast(self) -> torch.autocast:
        """The precision of the network's steps."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def train(self) -> None:
        """Training mode; a frozen backbone's batch norm stays as it is."""
        self.network.train(not self.settings.frozen)

    def predict(self, store: ImageStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log odds of each label on the clean view of each row, float32 [len(rows), L].

        In float32 whatever the precision: bfloat16 has a hundred values to a factor of two, and so ties.
        """
        view = self.view
        return extract_features(self.network, store, rows, view.size, view.mean, view.std, self.device)

    def save(self) -> None:
        """Write a checkpoint, and mark it where its epoch is the best so far. Raises CheckpointNotWritten."""
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {key: getattr(self, key) for key in _PLAIN}
        path = checkpoint.save(self.folder, state, self.step, keep=1)
        if self.best_step == self.step:
            checkpoint.mark_best(self.folder, path)

    def load(self) -> None:
        """Go on from the newest sound checkpoint. Raises RunError where none is sound."""
        loaded = checkpoint.load(self.folder)
        self.network.load_state_dict(loaded.state["network"])
        self.optimizer.load_state_dict(loaded.state["optimizer"])
        for key in _PLAIN:
            setattr(self, key, loaded.state[key])
        self.loss = self.loss.to(self.device)
        if self.best_step == self.step:
            checkpoint.mark_best(self.folder, loaded.path)  # a kill may have come between writing and marking

    def choose(self) -> None:
        """Take the network of the epoch that was best on the held-out patients."""
        self.network.load_state_dict(checkpoint.load(self.folder, best=True).state["network"])


_PLAIN = ("step", "loss", "lines", "best", "best_step")
