"""`c2l reproduce release NAME --check`: run a release's first training steps again and compare their losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2l_models.errors import C2LError
from c2l_models.releases.provenance import damaged, read_provenance
from c2l_models.releases.record import Weights
from c2l_models.releases.registry import get_weights

from ..evaluation.markdown import markdown_table
from ..recipe_files import from_dict
from ..releasing.first_steps import FirstSteps, first_steps
from .data import Stores, find_data
from .plan import datasets_of
from .release_metrics import check_trained_here, write_table

TOLERANCE = (0.005, 0.005, 0.03)
"""Largest allowed difference of the first step's loss, the second's, and each later one's.

Other instruction sets must pass, and other settings must not. Measured with resnet18.c2l_open26k (six steps,
bfloat16, losses of 2.6 to 6.2), whose record is of an AMD EPYC with AVX-512 BF16, on one thread of a Xeon. With AMX,
the first two losses moved by at most 0.0022 and later ones by 0.0030; with the kernels for AVX-512 BF16 by 0.0013 and
0.0017; with those for AVX2 by 0.0014 and 0.0013; in float32 by 0.0046 and 0.0035. A temperature of 0.11 instead of
0.1 moved the first loss by 0.52, a mixup alpha of 0.8 instead of 1 by 0.040; another seed the second by 0.013 and the
third by 0.33. A learning rate higher by a tenth and a teacher momentum of 0.999 instead of 0.99 stay within 0.0020,
because the rate is still near zero: the check does not notice them.
"""

FACTS = ("torch", "instructions", "machine", "threads", "precision", "images")
"""Fields of `FirstSteps` that the report shows for both sides."""


@dataclass(frozen=True)
class LossComparison:
    """Losses of a release's first steps: as released, and computed now."""

    name: str
    released: FirstSteps
    now: FirstSteps

    @property
    def differences(self) -> list[float]:
        """The absolute difference of each step's losses."""
        return [abs(now - released) for released, now in zip(self.released.losses, self.now.losses, strict=True)]

    @property
    def allowed(self) -> list[float]:
        """The largest allowed difference of each step."""
        return [TOLERANCE[min(step, 2)] for step in range(len(self.released.losses))]

    @property
    def reproduced(self) -> bool:
        """Whether every loss lies within its tolerance."""
        pairs = zip(self.differences, self.allowed, strict=True)
        return all(difference <= allowed for difference, allowed in pairs)  # false for a NaN

    def table(self) -> str:
        """Each step's losses, as Markdown."""
        columns = zip(self.released.losses, self.now.losses, self.differences, self.allowed, strict=True)
        lines = (
            (step, repr(released), repr(now), f"{difference:.2g}", f"{allowed:g}")
            for step, (released, now, difference, allowed) in enumerate(columns, 1)
        )
        return markdown_table(["step", "loss, released", "now", "difference", "allowed"], lines, "rrrrr")

    def summary(self) -> str:
        """The outcome in one or two lines."""
        largest = max(self.differences)
        text = f"{self.name}: the losses of the first {len(self.differences)} steps are "
        if not largest:
            return f"{text}reproduced bit for bit"
        text += f"{'reproduced' if self.reproduced else 'NOT reproduced'}: largest difference {largest:.2g}"
        if self.released.images != self.now.images:
            libraries = differing_libraries(self.released.prepared_with, self.now.prepared_with)
            return f"{text}; the images differ in their bytes or order: {libraries}"
        if self.released.same_machine(self.now):
            return (
                f"{text}, although torch, instruction set, thread count and processor match, so bit-identical losses "
                "were expected"
            )
        return text


def check_release(
    name: str, data: Sequence[str], out: Path, workers: int | None = None, pretraining_only: Sequence[str] = ()
) -> LossComparison:
    """Compute a release's first steps from raw folders, on one CPU thread, and compare their losses.

    Args:
        name: of the release.
        data: as in `reproduce_table`.
        out: gets stores/ and tables/<release>-check.md.
        workers: decoding processes; None: one per core.
        pretraining_only: as in `reproduce_table`.

    Raises:
        C2LError: no such release, a release that was not trained here or has no stored first steps, or a damaged
            provenance.
    """
    weights = get_weights(name)
    check_trained_here(weights)
    released = released_steps(weights)
    provenance = read_provenance(weights, "recipe", "store_size", "store_sha256")
    recipe = from_dict(provenance["recipe"])
    stores = Stores(out / "stores", find_data(data), provenance["store_size"], workers, True, pretraining_only)
    store = stores.get(datasets_of(recipe.sources), provenance["store_sha256"])
    comparison = LossComparison(name, released, first_steps(recipe, store, len(released.losses)))
    write_table(out, f"{name}-check", markdown(comparison))
    return comparison


def released_steps(weights: Weights) -> FirstSteps:
    """The first steps in a release's provenance.

    Raises:
        C2LError: the release has none.
        WeightsCorrupted: they are damaged.
    """
    provenance = read_provenance(weights)
    if "first_steps" not in provenance:
        raise C2LError(
            f"{weights.name} has no losses to compare with: it is older than the stored first steps; "
            f"`c2l reproduce release {weights.name}` without --check computes its metrics again"
        )
    try:
        values: dict[str, Any] = dict(provenance["first_steps"])
        steps = FirstSteps(**values | {"losses": tuple(map(float, values["losses"]))})
    except (TypeError, ValueError, KeyError):
        raise damaged(weights, "first_steps as `c2l release` writes them") from None
    if not steps.losses:
        raise damaged(weights, "first_steps with losses")
    return steps


def markdown(comparison: LossComparison) -> str:
    """The report: each side's machine and software, and the losses of each step."""
    released, now = comparison.released, comparison.now
    return "\n".join(
        [
            f"# {comparison.name}: the first steps, computed again",
            "",
            f"{comparison.summary()}.",
            "",
            "The losses should be bit-identical if torch, instruction set, thread count and processor match.",
            "",
            markdown_table(["", "released", "now"], [(k, getattr(released, k), getattr(now, k)) for k in FACTS], "lll"),
            "",
            comparison.table(),
            "",
        ]
    )


def differing_libraries(released: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The libraries whose versions differ between the two stores."""
    listed = [
        f"{name} was {version}, is {now.get(name, 'missing')}"
        for name, version in released.items()
        if now.get(name) != version
    ]
    return "; ".join(listed) or "the library versions match, so the files differ"
