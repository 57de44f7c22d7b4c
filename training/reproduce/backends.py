"""Backends that run a table's pretraining and measurements: the pipeline itself, or a test's stand-in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..evaluation.result import Result
from ..evaluation.tasks import load_task
from ..initialization import IMAGENET, RANDOM
from ..recipe import Recipe
from ..store.image_store import ImageStore
from .data import Stores
from .patient_tasks import held_out_task, patient_share_task, write_pretraining_patients
from .plan import InitializationPlan, Measurement, Scale
from .pretraining import Pretraining


class Backend(Protocol):
    """Runs one pretraining or one measurement."""

    def pretrain(self, recipe: Recipe, store: ImageStore, folder: Path) -> object:
        """Run a recipe to its end in a folder. Resumes a run that is already there."""
        ...

    def measure(
        self,
        init: InitializationPlan,
        measurement: Measurement,
        seed: int,
        pretraining: Pretraining | None,
        scale: Scale,
        stores: Stores,
        out: Path,
    ) -> Result:
        """Measure an initialization. Writes into `out`, result.json last. Resumes an interrupted measurement.

        Args:
            init, measurement, seed: what to measure.
            pretraining: of `init`; None if its weights are loaded.
            scale: its settings override the measurement's defaults.
            stores: source of the images.
            out: the measurement's folder.
        """
        ...


@dataclass(frozen=True)
class LocalBackend:
    """Runs everything on this machine.

    Attributes:
        device: "cpu", "cuda", or "auto": CUDA if available.
        progress: show progress bars.
    """

    device: str = "auto"
    progress: bool = True

    def pretrain(self, recipe: Recipe, store: ImageStore, folder: Path) -> object:
        """See `Backend`."""
        from ..pretrain import pretrain

        return pretrain(recipe, store, folder, self.device, resume=True, progress=self.progress)

    def measure(
        self,
        init: InitializationPlan,
        measurement: Measurement,
        seed: int,
        pretraining: Pretraining | None,
        scale: Scale,
        stores: Stores,
        out: Path,
    ) -> Result:
        """See `Backend`."""
        spec, settings = spec_of(init, pretraining), scale.settings(measurement) | {"seed": seed}
        if measurement.kind == "detect":
            return self._detect(spec, settings, scale, stores, out)
        store = stores.get({load_task(measurement.task).dataset}, pretraining.store_sha256 if pretraining else "")
        run = self._finetune if measurement.kind == "finetune" else self._probe
        return run(spec, store, measurement, settings, out)

    def _probe(
        self, spec: str, store: ImageStore, measurement: Measurement, settings: dict[str, Any], out: Path
    ) -> Result:
        """Linear probe or k-NN, without baselines: one row of the table is a random network."""
        from ..distributed import pick_device
        from ..probing.probe import probe

        settings |= {"device": pick_device(self.device).type, "progress": self.progress, "baselines": False}
        task = patient_share_task(measurement.task, settings.pop("fraction", 0.0), "few_labels")
        if measurement.held_out_for == "testing":
            task = held_out_task(measurement.task, measurement.held_out)
        probe(spec, store, task, out, classifier="knn" if measurement.kind == "knn" else "linear", **settings)
        return Result.read(out)

    def _finetune(
        self, spec: str, store: ImageStore, measurement: Measurement, settings: dict[str, Any], out: Path
    ) -> Result:
        from ..finetuning.finetune import finetune
        from ..finetuning.settings import Settings

        task = patient_share_task(measurement.task, measurement.held_out, "pretraining")
        return finetune(spec, store, task, out, Settings(**settings), self.device, resume=True, progress=self.progress)

    def _detect(self, spec: str, settings: dict[str, Any], scale: Scale, stores: Stores, out: Path) -> Result:
        """The decoded films get a store of their own. All rows share one test part."""
        from ..detection.detect import detect
        from ..detection.settings import Settings

        own, data = Settings(**settings), stores.raw_folders("rsna")["rsna"]
        return detect(
            spec,
            data,
            out,
            own,
            device=self.device,
            resume=True,
            progress=self.progress,
            avoid=write_pretraining_patients(scale, stores, out.parent),
            store=stores.folder / f"rsna-boxes-{own.size}",
            workers=stores.workers,
        )


def spec_of(init: InitializationPlan, pretraining: Pretraining | None) -> str:
    """The argument of `load_initialization`."""
    if pretraining:
        return str(pretraining.folder)
    return f"{init.weights}:{init.architecture}" if init.weights in (RANDOM, IMAGENET) else init.weights
