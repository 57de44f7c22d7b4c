"""Result of a downstream run: its metrics, and the data, settings and versions behind them."""

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
    """Result of one run.

    Attributes:
        kind: "probe", "knn", "finetune" or "detect".
        initialization: name of the network's initialization in tables. Its key in result.json is `start`.
        architecture, task, seed: settings of the run.
        metrics: metrics on the test part. Their key in result.json is `figures`.
        facts: data, settings, versions and time, as JSON values.
    """

    kind: str
    initialization: str
    architecture: str
    task: str
    seed: int
    metrics: Metrics
    facts: dict[str, Any]

    def write(self, out: Path) -> Path:
        """Write figures.npz, then result.json, whose presence means that the run is complete. Returns its path."""
        out.mkdir(parents=True, exist_ok=True)
        self.metrics.save(out)
        named = {name: estimate_as_json(self.metrics[name]) for name in self.metrics.names}
        content = {
            "kind": self.kind,
            "start": self.initialization,
            "architecture": self.architecture,
            "task": self.task,
            "seed": self.seed,
            "figures": named,
            "facts": self.facts,
        }
        write_atomically(out / FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        return out / FILE

    @classmethod
    def read(cls, out: Path) -> "Result":
        """Read the result of a run. Raises C2LError if a file is missing or damaged."""
        try:
            content = json.loads((out / FILE).read_text(encoding="utf-8"))
            content.pop("figures", None)  # rounded for readers; the exact metrics are in figures.npz
            return cls(initialization=content.pop("start"), **content, metrics=Metrics.load(out))
        except FileNotFoundError:
            raise C2LError(f"{out} has no {FILE}; expected the folder of a finished run") from None
        except (ValueError, TypeError, KeyError) as error:
            raise C2LError(f"{out / FILE} is damaged ({error}); delete the folder and repeat the run") from None

    @staticmethod
    def is_done(out: Path) -> bool:
        """Whether the run in this folder is complete."""
        return (out / FILE).is_file()


def estimate_as_json(estimate: Estimate) -> dict[str, float | None]:
    """Value, low and high, rounded to four decimals; None instead of NaN. A mean over seeds also has their number."""
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    rounded = {key: None if np.isnan(value) else round(value, 4) for key, value in values.items()}
    return rounded | ({"seeds": estimate.seeds} if estimate.seeds > 1 else {})
