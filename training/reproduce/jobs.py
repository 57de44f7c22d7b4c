"""What does the work of a cell: pretraining and the four measurements, called with a scale's settings."""

from pathlib import Path
from typing import Protocol

from ..evaluation.result import Result
from ..image_store import ImageStore
from ..recipe import Recipe
from .data import Stores
from .plan import Measurement, Scale, StartPlan
from .pretraining import Pretrained


class Jobs(Protocol):
    """What the engine asks for; tests give their own."""

    def pretrain(self, recipe: Recipe, store: ImageStore, folder: Path) -> object:
        """Run a recipe to its end, or go on with what is in the folder."""
        ...

    def measure(
        self,
        start: StartPlan,
        measured: Measurement,
        seed: int,
        pretrained: Pretrained | None,
        scale: Scale,
        stores: Stores,
        out: Path,
    ) -> Result:
        """Measure a start; what it writes into `out` ends with result.json. A stopped one goes on."""
        ...
