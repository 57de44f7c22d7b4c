"""Patients of a measurement: tasks on a part of their patients, and patients that a detector must not be tested on."""

from dataclasses import dataclass, replace
from pathlib import Path

from numpy import int64
from numpy.typing import NDArray

from c2l_models.files import write_atomically

from ..batches import training_rows
from ..evaluation.tasks import Task, load_task
from ..patient_splits import split_patients
from ..store.image_store import ImageStore
from .data import DataMissing, Stores
from .plan import Scale, datasets_of, load_initialization_plan, recipe_of

PRETRAINING_PATIENTS = "pretrained-on.txt"


@dataclass(frozen=True)
class PatientShareTask(Task):
    """A task that trains on a share of its training patients, drawn from a stream of `patient_splits`."""

    share: float = 1.0
    stream: str = "few_labels"

    def train_rows(self, store: ImageStore) -> NDArray[int64]:
        """The task's training rows of the drawn patients."""
        rows = super().train_rows(store)
        return rows[split_patients(store.patients[rows], self.share, self.stream)]


@dataclass(frozen=True)
class HeldOutTask(Task):
    """A task that tests on a share of its own training patients and trains on the others. It reads no test row.

    The test patients are those that a recipe with `hold_out = share` leaves out of pretraining.
    """

    share: float = 0.0

    def train_rows(self, store: ImageStore) -> NDArray[int64]:
        """The task's training rows of the patients that pretraining may see."""
        rows = super().train_rows(store)
        return rows[~split_patients(store.patients[rows], self.share, "pretraining")]

    def test_rows(self, store: ImageStore) -> NDArray[int64]:
        """The task's training rows of the held-out patients."""
        rows = super().train_rows(store)
        return rows[split_patients(store.patients[rows], self.share, "pretraining")]


def patient_share_task(name: str, share: float, stream: str) -> Task:
    """A task on a share of its training patients; 0: on all. Raises DatasetError for an unknown task."""
    task = load_task(name)
    return PatientShareTask(**vars(task), share=share, stream=stream) if share else task


def held_out_task(name: str, share: float) -> Task:
    """A task, tested on the training patients that a recipe with this `hold_out` leaves out of pretraining."""
    return HeldOutTask(**vars(load_task(name)) | {"folds": 0}, share=share)


def write_pretraining_patients(scale: Scale, stores: Stores, folder: Path) -> list[Path]:
    """Write the ChestX-ray14 patients that any row is pretrained on at this scale.

    A detector must not be tested on them: RSNA's films are of ChestX-ray14's patients.

    Returns:
        The file; an empty list if the pretraining images are missing, because then no row is pretrained.
    """
    recipe = replace(recipe_of(load_initialization_plan("resnet18-c2l"), scale, 0), hold_out=0.0)
    try:
        store = stores.get(datasets_of(recipe.sources))
    except DataMissing:
        return []
    patients = sorted(set(store.patients[training_rows(recipe, store)].tolist()))
    file = folder / PRETRAINING_PATIENTS
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(
        file, "".join(f"{patient}\n" for patient in patients if patient.startswith("chestxray14:")).encode()
    )
    return [file]
