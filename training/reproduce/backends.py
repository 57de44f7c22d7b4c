"""What does the work of a cell: pretraining and the four measurements, called with a scale's settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from c2l_models.files import write_atomically

from ..batches import training_rows
from ..evaluation.result import Result
from ..evaluation.tasks import Task, load_task
from ..initialization import IMAGENET, RANDOM
from ..patient_splits import split_patients
from ..recipe import Recipe
from ..store.image_store import ImageStore
from .data import DataMissing, Stores
from .plan import InitializationPlan, Measurement, Scale, datasets_of, load_initialization_plan, recipe_of
from .pretraining import Pretrained

AVOIDED = "pretrained-on.txt"


class Jobs(Protocol):
    """What the engine asks for; tests give their own."""

    def pretrain(self, recipe: Recipe, store: ImageStore, folder: Path) -> object:
        """Run a recipe to its end, or go on with what is in the folder."""
        ...

    def measure(
        self,
        start: InitializationPlan,
        measured: Measurement,
        seed: int,
        pretrained: Pretrained | None,
        scale: Scale,
        stores: Stores,
        out: Path,
    ) -> Result:
        """Measure a start; what it writes into `out` ends with result.json. A stopped one goes on."""
        ...


@dataclass(frozen=True)
class RealJobs:
    """The pipeline's own functions.

    Attributes:
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        progress: show bars.
    """

    device: str = "auto"
    progress: bool = True

    def pretrain(self, recipe: Recipe, store: ImageStore, folder: Path) -> object:
        """See `Jobs`."""
        from ..pretrain import pretrain

        return pretrain(recipe, store, folder, self.device, resume=True, progress=self.progress)

    def measure(
        self,
        start: InitializationPlan,
        measured: Measurement,
        seed: int,
        pretrained: Pretrained | None,
        scale: Scale,
        stores: Stores,
        out: Path,
    ) -> Result:
        """See `Jobs`."""
        spec, settings = spec_of(start, pretrained), scale.settings(measured) | {"seed": seed}
        if measured.kind == "detect":
            return self._detect(spec, settings, scale, stores, out)
        store = stores.get({load_task(measured.task).dataset}, pretrained.store_sha256 if pretrained else "")
        work = self._finetune if measured.kind == "finetune" else self._probe
        return work(spec, store, measured, settings, out)

    def _probe(
        self, spec: str, store: ImageStore, measured: Measurement, settings: dict[str, Any], out: Path
    ) -> Result:
        """Without floors: the table has a random network among its rows."""
        from ..distributed import pick_device
        from ..probing.probe import probe

        settings |= {"device": pick_device(self.device).type, "progress": self.progress, "baselines": False}
        task = part_of(measured.task, settings.pop("fraction", 0.0), "few_labels")
        if measured.held_out_for == "judging":
            task = judged(measured.task, measured.held_out)
        probe(spec, store, task, out, classifier="knn" if measured.kind == "knn" else "linear", **settings)
        return Result.read(out)

    def _finetune(
        self, spec: str, store: ImageStore, measured: Measurement, settings: dict[str, Any], out: Path
    ) -> Result:
        from ..finetuning.loop import finetune
        from ..finetuning.settings import Settings

        task = part_of(measured.task, measured.held_out, "pretraining")
        return finetune(spec, store, task, out, Settings(**settings), self.device, resume=True, progress=self.progress)

    def _detect(self, spec: str, settings: dict[str, Any], scale: Scale, stores: Stores, out: Path) -> Result:
        """The decoded films are a store beside the others; the evaluation part is one for all rows."""
        from ..detection.detect import detect
        from ..detection.settings import Settings

        own, data = Settings(**settings), stores.raw("rsna")["rsna"]
        return detect(
            spec,
            data,
            out,
            own,
            device=self.device,
            resume=True,
            progress=self.progress,
            avoid=avoided(scale, stores, out.parent),
            store=stores.folder / f"rsna-boxes-{own.size}",
            workers=stores.workers,
        )


def spec_of(start: InitializationPlan, pretrained: Pretrained | None) -> str:
    """What `load_initialization` is asked for."""
    if pretrained:
        return str(pretrained.folder)
    return f"{start.weights}:{start.architecture}" if start.weights in (RANDOM, IMAGENET) else start.weights


@dataclass(frozen=True)
class PartOf(Task):
    """A task that is learned on a share of its training patients, drawn from a stream of `patient_splits`."""

    share: float = 1.0
    stream: str = "few_labels"

    def train_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """The task's rows of these patients."""
        rows = super().train_rows(store)
        return rows[split_patients(store.patients[rows], self.share, self.stream)]


@dataclass(frozen=True)
class Judged(Task):
    """A task that is asked about a share of its own training patients and learnt on the others; no test row is read."""

    share: float = 0.0

    def train_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """The task's training rows of the other patients."""
        rows = super().train_rows(store)
        return rows[~split_patients(store.patients[rows], self.share, "pretraining")]

    def test_rows(self, store: ImageStore) -> NDArray[np.int64]:
        """The task's training rows of these patients: those that `hold_out` leaves out of pretraining."""
        rows = super().train_rows(store)
        return rows[split_patients(store.patients[rows], self.share, "pretraining")]


def part_of(name: str, share: float, stream: str) -> Task:
    """A task, on a share of its training patients; 0: on all. Raises DatasetError for an unknown one."""
    task = load_task(name)
    return PartOf(**vars(task), share=share, stream=stream) if share else task


def judged(name: str, share: float) -> Task:
    """A task, asked about those of its training patients whom a recipe with this `hold_out` leaves out."""
    return Judged(**vars(load_task(name)), share=share)


def avoided(scale: Scale, stores: Stores, folder: Path) -> list[Path]:
    """A list of the patients whom any row is pretrained on at this scale, to be kept from a detector's evaluation part.

    RSNA's films are of ChestX-ray14's patients. The list is written into the folder; where the images for pretraining
    are not there, no row is pretrained, and there is none.
    """
    recipe = replace(recipe_of(load_initialization_plan("resnet18-c2l"), scale, 0), hold_out=0.0)
    try:
        store = stores.get(datasets_of(recipe.sources))
    except DataMissing:
        return []
    patients = sorted(set(store.patients[training_rows(recipe, store)].tolist()))
    file = folder / AVOIDED
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(
        file, "".join(f"{patient}\n" for patient in patients if patient.startswith("chestxray14:")).encode()
    )
    return [file]
