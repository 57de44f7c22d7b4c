"""Jobs and stores that compute nothing, so that `c2l reproduce` is tested in milliseconds."""

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
FIGURES = {
    "finetune": (*LABELS, "mean", "mean without Hernia", "kl_grade ≥ 2", "quadratic weighted kappa"),
    "detect": tuple(f"mAP at 0.{n}" for n in range(2, 9)),
}
RESAMPLES = 20


def figures_of(name: str, seed: int, kind: str = "finetune") -> Metrics:
    """Metrics that follow from the start's name and the seed: all of a run's are equal."""
    names = FIGURES.get(kind, FIGURES["finetune"])
    value = sum(map(ord, name)) % 40 / 100 + 0.4 + seed / 100
    spread = np.linspace(-0.02, 0.02, RESAMPLES)[:, None]
    return Metrics(names, np.full(len(names), value), value + np.repeat(spread, len(names), 1), "sample")


@dataclass
class FakeJobs:
    """Writes results at once; raises what `fails` has for a start's name or a folder of measurements."""

    fails: dict[str, BaseException] = field(default_factory=dict)
    pretrained: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    def pretrain(self, recipe, store, folder):
        self.pretrained.append(folder.name)
        if error := self.fails.get(f"pretrain {folder.name}"):
            raise error

    def measure(self, start, measured, seed, pretrained, scale, stores, out):
        self.measured.append(f"{measured.folder}/{out.name}")
        for key in (start.name, measured.folder, f"{start.name} {seed}"):
            if key in self.fails:
                raise self.fails[key]
        facts = {"seconds": 90.0, "test_images": 1492, "test_patients": 91, "store_sha256": "f" * 64}
        facts |= {"about": {"checkpoint": ""}} if pretrained else {}
        metrics = figures_of(start.name, seed, measured.kind)
        result = Result(measured.kind, start.name, start.architecture, measured.task, seed, metrics, facts)
        result.write(out)
        return result


class FakeStores:
    """Gives one small store for everything; `missing` data sets are not there."""

    def __init__(self, store: ImageStore, missing: tuple[str, ...] = ()) -> None:
        self.store, self.missing = store, missing

    def need(self, datasets):
        self.raw(*datasets)

    def raw(self, *datasets):
        for name in datasets:
            if name in self.missing:
                raise DataMissing(f"no {name} among the data given")
        return {name: Path(name) for name in datasets}

    def get(self, datasets, sha256=""):
        self.need(datasets)
        return self.store
