"""The state of a pretraining run. A checkpoint and the recipe together determine the next step."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from c2l_models.errors import RunError

from .augment import two_views
from .batches import balance_groups
from .constraints import check
from .distributed import World
from .features import calibration_rows
from .initialization import PIXELS, RANDOM, UNTRAINED, Initialization, load_initialization
from .objectives import build
from .objectives.distillation import Distillation
from .recipe import Recipe
from .recipe_files import from_dict
from .run_files import checkpoint
from .run_files.identity import check_same_pretraining, pretraining_identity
from .run_files.log import StepGroup
from .run_files.run_folder import RANDOM_INITIALIZATION, create_run_folder, read_initialization
from .schedule import Schedule
from .seeding import seed_of
from .store.image_store import ImageStore

NOT_LEARNED = (RANDOM, UNTRAINED, PIXELS)
"""Kinds of initialization that are no learned weights."""
TARGET_IMAGES = 1024
"""Largest number of training images whose views give the mean and spread of a distillation's targets."""


class Run:
    """Networks, optimizer and progress of a run, the same on every process.

    Attributes:
        rows: the store's rows to train on, int64 [N].
        groups: the source of each row, if batches are balanced; otherwise None (see `batches.epoch_order`).
        method: networks and state of the recipe's method.
        model: the method, wrapped so that gradients are averaged over processes.
        optimizer: of the student's parameters.
        group: the metrics of the steps since the last line of the log.
        step: number of finished steps.
        images_on_gpu: whether the store is copied to the GPU; None: if it takes at most half of the GPU's memory.
        schedule: number of steps, and learning rate and teacher momentum at each.
        initialization: facts about the weights with which the networks began, and the patients that they saw.
        best: the highest mean over tasks of a probe's metrics so far.
        best_step: the step after which `best` was measured.
    """

    def __init__(
        self, recipe: Recipe, store: ImageStore, rows: np.ndarray, folder: Path, world: World, device: torch.device
    ) -> None:
        """`rows`: the store's rows to train on. Raises DatasetError if they do not fill one batch."""
        self.recipe, self.store, self.folder, self.world, self.device = recipe, store, folder, world, device
        self.rows, self.groups = rows, balance_groups(recipe, store, rows)
        self.schedule = Schedule(recipe, len(rows))
        torch.backends.cudnn.benchmark = device.type == "cuda"  # a step's shapes never change
        torch.manual_seed(_seed(recipe, "networks"))
        queue = torch.Generator().manual_seed(_seed(recipe, "queue"))
        self.method = build(recipe, world, queue).to(device).to(memory_format=torch.channels_last).train()
        if recipe.compile:
            for network in self.method.networks:
                network.compile(dynamic=False)  # the shapes never change within a phase of the run
        self.model = world.wrap(self.method, device)
        self.optimizer = make_optimizer(recipe, self.method.student, self.schedule.learning_rate(0))
        self.initialization: Mapping[str, Any] = RANDOM_INITIALIZATION
        self.group = StepGroup()
        self.step = 0
        self.images_on_gpu: bool | None = None
        self.best, self.best_step = self._best_before = -math.inf, -1
        self._generator = torch.Generator(device)

    def start_or_resume(self, resume: bool) -> tuple[str, ...]:
        """Make the run folder, or load its newest sound checkpoint. Returns a note for each damaged checkpoint.

        Raises:
            RunError: the folder exists and `resume` is not set, or its checkpoint is from another run.
        """
        identity = pretraining_identity(self.recipe, self.store, self.device)

        def on_main() -> checkpoint.Loaded | None:
            if resume and checkpoint.exists(self.folder):
                loaded = checkpoint.load(self.folder)
                if "optimizer" not in loaded.state:
                    raise RunError(
                        f"expected a whole checkpoint in {self.folder}, found a slim one, without optimizer and "
                        "teacher; resume the run that it was made from, or start a new one with "
                        f"--recipe.initialization {self.folder}"
                    )
                earlier = from_dict(loaded.state["recipe"]).to_dict()  # keys newer than the run take their defaults
                check_same_pretraining(self.folder, loaded.state | {"recipe": earlier}, identity)
                return loaded
            return None

        def make_folder() -> None:
            settings = (self.recipe, self.initialization, self.store, self.device, self.world)
            create_run_folder(self.folder, *settings, again=resume)

        self._identity = identity
        loaded = self.world.share(on_main)
        if loaded is None:
            self.initialize()
            self.world.share(make_folder)
            self.save(required=True)
            return ()
        self.initialization = read_initialization(self.folder)
        self.load_source()
        self.method.load_state_dict(loaded.state["method"])
        self.optimizer.load_state_dict(loaded.state["optimizer"])
        self.group.load_state_dict(loaded.state["group"])
        self.step, self.best, self.best_step = (loaded.state[key] for key in ("step", "best", "best_step"))
        if self.world.is_main and self.best_step == self.step:
            checkpoint.mark_best(self.folder, loaded.path)  # the run may have been killed between saving and marking
        return loaded.passed_over

    def initialize(self) -> None:
        """Load the weights that the recipe's `initialization` names into the networks, and a distillation's source.

        Raises:
            RecipeError: the weights are of another architecture, or expect another normalisation of the images; or they
                are a baseline, or random weights with an architecture or seed of their own.
            C2LError: as `load_initialization`.
        """
        recipe = self.recipe
        kind = recipe.initialization.partition(":")[0]
        expected = f"{RANDOM!r}, which has the recipe's architecture and seed, or the name of learned weights"
        check(recipe.initialization == RANDOM or kind not in NOT_LEARNED, recipe, "initialization", expected)
        self.load_source()
        if recipe.initialization == RANDOM:
            return
        init = self._load(recipe.initialization, "architecture", "mean", "std")
        self.method.load_backbone(init.network.state_dict())
        self.initialization = {**self.initialization, **facts_of(init)}

    def load_source(self) -> None:
        """Load the frozen network of a distillation. A new run computes the mean and spread of its features.

        Raises:
            RecipeError: its features or its normalisation do not fit the recipe.
            RunError: a resumed run began with another network.
        """
        recipe, method = self.recipe, self.method
        if not isinstance(method, Distillation):
            return
        init = self._load(recipe.distillation.source, "mean", "std")
        method.set_source(init.network.to(self.device))
        if "source" not in self.initialization:  # a checkpoint has the targets of a resumed run
            features = self._features_of_views(init.network)
            expected = f"{features.shape[1]}, the number of features of {init.name}"
            check(recipe.feature_dim == features.shape[1], recipe, "feature_dim", expected)
            method.set_targets(features)
        facts = json.loads(json.dumps(facts_of(init)))
        if self.initialization.get("source", facts) != facts:
            raise RunError(
                f"{self.folder} began with another source: expected {self.initialization['source']['name']} with the "
                f"recorded weights, found {init.name} with others; restore that file to resume"
            )
        self.initialization = {**self.initialization, "source": facts}

    def _load(self, spec: str, *keys: str) -> Initialization:
        """Load weights. Raises RecipeError unless they have the recipe's value of each of these keys."""
        recipe = self.recipe
        init = load_initialization(spec, recipe.architecture, recipe.size, store=self.store)
        for key in keys:
            expected = getattr(init, key)
            check(getattr(recipe, key) == expected, recipe, key, f"{expected!r}, as {init.name} has")
        return init

    @torch.inference_mode()
    def _features_of_views(self, network: torch.nn.Module) -> torch.Tensor:
        """A network's features of augmented views of training images, float32 [N, D]; the same on every process."""
        rows = calibration_rows(self.rows)[:TARGET_IMAGES]
        generator = torch.Generator(self.device).manual_seed(_seed(self.recipe, "views"))
        features = []
        for part in np.array_split(rows, -(-len(rows) // 128)):
            view, _ = two_views(self.store[part].to(self.device), self.recipe, generator)
            features.append(network.eval()(view).float())
        return torch.cat(features)

    def seeded(self, step: int | str) -> torch.Generator:
        """The random generator of a step, on the run's device. It depends on recipe and step alone.

        It is the same on every process. Layers that draw by themselves, such as dropout, use torch's global generator,
        which is seeded differently on each process.
        """
        torch.manual_seed(_seed(self.recipe, step, 1 + self.world.rank))
        return self._generator.manual_seed(_seed(self.recipe, step))

    def apply_schedule(self) -> float:
        """Set the current step's learning rate, teacher momentum and size of views. Returns the learning rate."""
        lr = self.schedule.learning_rate(self.step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.method.teacher_momentum = self.schedule.teacher_momentum(self.step)
        if (size := self.schedule.size(self.step)) != self.method.recipe.size:
            self.method.recipe = replace(self.recipe, size=size)
        return lr

    def record_probe(self, auroc: dict[str, float]) -> None:
        """Record a probe by task (`tuning_metric`): the next checkpoint is the best one if the mean is the highest."""
        values = [value for value in auroc.values() if not math.isnan(value)]
        score = float(np.mean(values)) if values else -math.inf
        if score > self.best:
            self._best_before = self.best, self.best_step
            self.best, self.best_step = score, self.step

    def save(self, required: bool = False) -> str:
        """Write a checkpoint on rank 0. Returns an error message if that failed, otherwise an empty string.

        Its time does not count as the steps' time.

        Raises:
            CheckpointNotWritten: the checkpoint could not be written, and `required` is set.
        """
        if not self.world.is_main:
            return ""
        with self.group.paused():
            return self._write_checkpoint(required)

    def _write_checkpoint(self, required: bool) -> str:
        """As `save`, on rank 0."""
        parts: dict[str, Any] = {"method": self.method, "optimizer": self.optimizer, "group": self.group}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": self.step, "best": self.best, "best_step": self.best_step}
        try:
            path = checkpoint.save(self.folder, self._identity | state, self.step, self.recipe.keep_checkpoints)
            if self.best_step == self.step:
                checkpoint.mark_best(self.folder, path)
        except checkpoint.CheckpointNotWritten as error:
            if required:
                raise
            if self.best_step == self.step:
                self.best, self.best_step = self._best_before  # its file is still on the disk
            return str(error)
        return ""


def facts_of(init: Initialization) -> dict[str, Any]:
    """Name, facts and patients of loaded weights, as initialization.json stores them."""
    return {"name": init.name, **init.about, "patients": None if init.seen is None else sorted(init.seen)}


def make_optimizer(recipe: Recipe, student: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimizer of the student's parameters."""
    settings = recipe.optimizer
    if settings.name == "adamw":
        return torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(student.parameters(), lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _seed(recipe: Recipe, use: int | str, stream: int = 0) -> int:
    """The seed of a step, or of a named use ("networks", "queue", "views"). Each can have several streams."""
    number = use if isinstance(use, int) else {"networks": 0, "queue": 1, "views": 2}[use]
    return seed_of(recipe.seed, int(isinstance(use, str)), number, stream)
