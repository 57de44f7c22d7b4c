"""What a downstream run leaves: its metrics, and what they were computed on and with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from c2l_models.errors import C2LError
from c2l_models.files import write_atomically

from .intervals import Estimate
from .metrics import Metrics

FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """One run's outcome.

    Attributes:
        kind: "probe", "knn", "finetune" or "detect".
        initialization: what the network started from, as a table shows it.
        architecture, task, seed: what was run.
        metrics: what it reached.
        facts: data, settings, versions and time, as JSON knows them.
    """

    kind: str
    initialization: str
    architecture: str
    task: str
    seed: int
    metrics: Metrics
    facts: dict[str, Any]

    def write(self, out: Path) -> Path:
        """Write figures.npz, then result.json: that it is there means that all is. Gives its path."""
        out.mkdir(parents=True, exist_ok=True)
        self.metrics.save(out)
        named = {name: estimate_as_json(self.metrics[name]) for name in self.metrics.names}
        content = {**self._head(), "figures": named, "facts": self.facts}
        write_atomically(out / FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        return out / FILE

    @classmethod
    def read(cls, out: Path) -> "Result":
        """What `write` wrote. Raises C2LError where it is missing or damaged."""
        try:
            content = json.loads((out / FILE).read_text(encoding="utf-8"))
            content.pop("figures", None)  # the intervals, for people: resamples are in figures.npz
            return cls(initialization=content.pop("start"), **content, metrics=Metrics.load(out))
        except FileNotFoundError:
            raise C2LError(f"{out} holds no {FILE}; wanted the folder of a finished run") from None
        except (ValueError, TypeError, KeyError) as error:
            raise C2LError(f"{out / FILE} is damaged ({error}); delete the folder and run it again") from None

    @staticmethod
    def is_done(out: Path) -> bool:
        """Whether a run has finished in this folder."""
        return (out / FILE).is_file()

    def _head(self) -> dict[str, Any]:
        names = {"kind": self.kind, "start": self.initialization}
        return names | {"architecture": self.architecture, "task": self.task, "seed": self.seed}


def estimate_as_json(estimate: Estimate) -> dict[str, float | None]:
    """Value, low and high to four decimals; null where there is none."""
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {key: None if np.isnan(value) else round(value, 4) for key, value in values.items()}
