"""`c2l reproduce release NAME --check`: the release's first steps once more, and whether they give the same losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2l_models.errors import C2LError
from c2l_models.releases.provenance import damaged
from c2l_models.releases.registry import Weights, get_weights

from ..recipe import from_dict
from ..releasing.first_steps import FirstSteps, first_steps
from .data import Stores, find_data
from .plan import datasets_of
from .release_metrics import provenance_with, write_table

TOLERANCE = (0.002, 0.002, 0.03)
"""How far a loss may be off: the first step's, the second's, and each later one's.

Measured with the recipe open15k-resnet18 (bfloat16, losses of 2 to 8) on one thread of a Xeon with AMX. Without AMX,
and with torch's own kernels for AVX2, the first two losses moved by no more than 0.0006, and later ones by no more than
0.0075 (8 steps each); with float32 in place of bfloat16 by 0.0044 and 0.018 (24 steps). A rate higher by a tenth moved
the second by 0.0037, a temperature of 0.11 for 0.1 the first by 0.47, a teacher momentum of 0.999 for 0.996 the second
by 0.011, another seed the first by 0.32.
"""

FACTS = ("torch", "instructions", "machine", "threads", "precision", "images")
"""What is told of both sides."""


@dataclass(frozen=True)
class Comparison:
    """A release's first steps, as they were and as they are here."""

    name: str
    released: FirstSteps
    now: FirstSteps

    @property
    def differences(self) -> list[float]:
        """Of each step's losses, without sign."""
        return [abs(now - then) for then, now in zip(self.released.losses, self.now.losses, strict=True)]

    @property
    def allowed(self) -> list[float]:
        """How far each step's loss may be off."""
        return [TOLERANCE[min(step, 2)] for step in range(len(self.released.losses))]

    @property
    def same(self) -> bool:
        """Whether every loss came back."""
        pairs = zip(self.differences, self.allowed, strict=True)
        return all(difference <= allowed for difference, allowed in pairs)  # a NaN did not

    def table(self) -> str:
        """Each step's losses, as Markdown."""
        columns = (self.released.losses, self.now.losses, self.differences, self.allowed)
        rows = (
            f"| {step} | {then!r} | {now!r} | {difference:.2g} | {allowed:g} |"
            for step, (then, now, difference, allowed) in enumerate(zip(*columns, strict=True), 1)
        )
        head = ("| step | loss, released | now | difference | allowed |", "| ---: | ---: | ---: | ---: | ---: |")
        return "\n".join([*head, *rows])

    def summary(self) -> str:
        """What was found, in a line or two."""
        most, steps = max(self.differences), len(self.differences)
        found = f"{self.name}: the losses of the first {steps} steps "
        if not most:
            return f"{found}came back to the bit"
        verdict = "came back" if self.same else "DID NOT come back"
        found += f"{verdict}: off by at most {most:.2g}"
        if self.released.images != self.now.images:
            libraries = differing(self.released.prepared_with, self.now.prepared_with)
            return f"{found}; the images are not the same bytes in the same order: {libraries}"
        if self.released.same_place(self.now):
            return (
                f"{found}, where torch, instructions, threads and the processor's name would have let expect every bit"
            )
        return found


def check_release(name: str, data: Sequence[str], out: Path, workers: int | None = None) -> Comparison:
    """Compute a release's first steps from raw folders, on one CPU thread, and compare their losses.

    Args:
        name: of the release.
        data: as `reproduce_table` takes it.
        out: gets stores/ and tables/<release>-check.md.
        workers: decoding processes; None: one a core.

    Raises:
        C2LError: no such release, one without its first steps, or a provenance that cannot be read.
    """
    weights = get_weights(name)
    released = released_steps(weights)
    provenance = provenance_with(weights, "recipe", "store_size", "store_sha256")
    recipe = from_dict(provenance["recipe"])
    stores = Stores(out / "stores", find_data(data), provenance["store_size"], workers)
    store = stores.get(datasets_of(recipe.sources), provenance["store_sha256"])
    comparison = Comparison(name, released, first_steps(recipe, store, len(released.losses)))
    write_table(out, f"{name}-check", markdown(comparison))
    return comparison


def released_steps(weights: Weights) -> FirstSteps:
    """The first steps that a release keeps. Raises C2LError where it has none, WeightsCorrupted for damaged ones."""
    provenance = provenance_with(weights)
    if "first_steps" not in provenance:
        raise C2LError(
            f"{weights.name} was released before releases kept the losses of their first steps, so there is nothing "
            f"to check them by; `c2l reproduce release {weights.name}` without --check computes its metrics again"
        )
    try:
        values: dict[str, Any] = dict(provenance["first_steps"])
        steps = FirstSteps(**values | {"losses": tuple(map(float, values["losses"]))})
    except (TypeError, ValueError, KeyError):
        raise damaged(weights, "first_steps as `c2l release` writes them") from None
    if not steps.losses:
        raise damaged(weights, "first_steps with losses")
    return steps


def markdown(comparison: Comparison) -> str:
    """The comparison as a table, with what each side was computed on."""
    then, now = comparison.released, comparison.now
    return "\n".join(
        [
            f"# {comparison.name}: the first steps, computed again",
            "",
            f"{comparison.summary()}.",
            "",
            "Every bit is expected where torch, instructions, threads and processor are the release's.",
            "",
            "| | released | now |",
            "| --- | --- | --- |",
            *(f"| {key} | {getattr(then, key)} | {getattr(now, key)} |" for key in FACTS),
            "",
            comparison.table(),
            "",
        ]
    )


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which of the libraries that a store was prepared with are not the same."""
    listed = [f"{key} was {then[key]}, is {now.get(key, 'none')}" for key in then if now.get(key) != then[key]]
    return "; ".join(listed) or "the libraries are the same, so the files are others"
