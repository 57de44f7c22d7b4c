"""A backend and stores that compute nothing, so that tests of `c2l reproduce` take milliseconds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.result import Result
from c2l_models.training.reproduce.data import DataMissing
from c2l_models.training.store.image_store import ImageStore

LABELS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
METRICS = {
    "finetune": (*LABELS, "mean", "mean without Hernia", "kl_grade ≥ 2", "quadratic weighted kappa"),
    "detect": tuple(f"mAP at 0.{n}" for n in range(2, 9)),
}
RESAMPLES = 20


def metrics_of(name: str, seed: int, kind: str = "finetune") -> Metrics:
    """Metrics computed from the initialization's name and the seed. All metrics of a run are equal."""
    names = METRICS.get(kind, METRICS["finetune"])
    value = sum(map(ord, name)) % 40 / 100 + 0.4 + seed / 100
    spread = np.linspace(-0.02, 0.02, RESAMPLES)[:, None]
    return Metrics(names, np.full(len(names), value), value + np.repeat(spread, len(names), 1), "sample")


@dataclass
class FakeBackend:
    """Writes results at once. Raises the error that `fails` holds for an initialization or a measurement's folder."""

    fails: dict[str, BaseException] = field(default_factory=dict)
    pretrained: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    def pretrain(self, recipe, store, folder):
        self.pretrained.append(folder.name)
        if error := self.fails.get(f"pretrain {folder.name}"):
            raise error

    def measure(self, init, measurement, seed, pretraining, scale, stores, out):
        self.measured.append(f"{measurement.folder}/{out.name}")
        for key in (init.name, measurement.folder, f"{init.name} {seed}"):
            if key in self.fails:
                raise self.fails[key]
        facts = {"seconds": 90.0, "test_images": 1492, "test_patients": 91, "store_sha256": stores.get(()).sha256}
        facts |= {"about": {"checkpoint": ""}} if pretraining else {}
        metrics = metrics_of(init.name, seed, measurement.kind)
        result = Result(measurement.kind, init.name, init.architecture, measurement.task, seed, metrics, facts)
        result.write(out)
        return result


class FakeStores:
    """Returns one small store for all data sets except the `missing` ones."""

    def __init__(self, store: ImageStore, missing: tuple[str, ...] = ()) -> None:
        self.store, self.missing = store, missing

    def require(self, datasets):
        self.raw_folders(*datasets)

    def raw_folders(self, *datasets):
        for name in datasets:
            if name in self.missing:
                raise DataMissing(f"--data does not name {name}")
        return {name: Path(name) for name in datasets}

    def get(self, datasets, sha256=""):
        self.require(datasets)
        return self.store
