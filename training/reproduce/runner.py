"""Runner of `c2l reproduce`: measures each row with each seed. Existing results are reused."""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from c2l_models.errors import C2LError, RunError, RunInterrupted
from c2l_models.progress import report, stage

from ..evaluation.result import Result
from ..evaluation.tasks import load_task
from ..imagenet import InitializationNotAvailable
from ..run_files import checkpoint
from ..run_files.identity import check_same_settings
from .backends import Backend
from .data import DataMissing, Stores
from .plan import InitializationPlan, Measurement, Scale, TablePlan, datasets_of, recipe_of
from .pretraining import Pretraining, ensure_pretrained, store_of_run

State = Literal["waiting", "done", "not run", "failed", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """State of one measurement of one initialization with one seed: its result, or the reason why it has none."""

    state: State = "waiting"
    result: Result | None = None
    reason: str = ""


@dataclass
class TableResults:
    """The results of a table so far.

    Attributes:
        table, scale, seeds: what to run.
        entries: by initialization, measurement and seed; a missing entry is waiting.
        pretrainings: finished pretrainings, by initialization and seed.
    """

    table: TablePlan
    scale: Scale
    seeds: tuple[int, ...]
    entries: dict[tuple[str, Measurement, int], Entry] = field(default_factory=dict)
    pretrainings: dict[tuple[str, int], Pretraining] = field(default_factory=dict)

    def entry(self, init: InitializationPlan, measurement: Measurement, seed: int) -> Entry:
        """The entry; a waiting one if nothing has been tried yet."""
        return self.entries.get((init.name, measurement, seed), Entry())

    def keys(self) -> Iterator[tuple[InitializationPlan, Measurement, int]]:
        """Everything to run, in order: the whole table for one seed before the next seed."""
        for seed in self.seeds:
            for init, _ in self.table.rows:
                for measurement in self.table.measurements:
                    for drawn in measurement.each_draw:
                        yield init, drawn, seed

    @property
    def failed(self) -> bool:
        """Whether an entry failed. An entry that could not be run here has not failed."""
        return any(entry.state == "failed" for entry in self.entries.values())

    def summary(self) -> str:
        """The number of entries in each state, and the reason for each that is not done."""
        entries = {key: self.entry(*key) for key in self.keys()}
        counts = Counter(entry.state for entry in entries.values())
        lines = [f"{self.table.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
        lines += [
            f"  {init.name}, seed {seed}, {measurement.folder}: {entry.state}: {entry.reason}"
            for (init, measurement, seed), entry in entries.items()
            if entry.reason
        ]
        return "\n".join(lines)


@dataclass
class Runner:
    """Runs the measurements of a table that have no result yet.

    Attributes:
        out: the scale's folder; holds pretrain/, probe/, knn/, finetune/ and detect/.
        scale: overrides recipes and settings.
        stores: source of the images.
        backend: runs pretraining and measurements.
    """

    out: Path
    scale: Scale
    stores: Stores
    backend: Backend
    _failed: dict[tuple[str, int], Exception] = field(default_factory=dict)

    def run(self, results: TableResults, write: Callable[[TableResults], object]) -> TableResults:
        """Fill the results. A failed entry does not stop the others.

        Args:
            results: gets an entry per key.
            write: is called once before the first entry and after each one.

        Raises:
            RunInterrupted, KeyboardInterrupt: the user or the system stopped the run. The entry is marked, and the
                next call resumes there.
        """
        keys = list(results.keys())
        write(results)
        with stage(results.table.name, len(keys), "entries", show=True) as line:
            for number, (init, measurement, seed) in enumerate(keys, 1):
                report(f"[{number}/{len(keys)}] {init.name}, seed {seed}: {measurement.folder}")
                key = (init.name, measurement, seed)
                try:
                    results.entries[key] = self._attempt(results, init, measurement, seed)
                except (RunInterrupted, KeyboardInterrupt) as stop:
                    reason = str(stop) or "stopped by the user; the same command resumes"
                    results.entries[key] = Entry("interrupted", reason=reason)
                    write(results)
                    raise
                if (entry := results.entries[key]).reason:
                    report(f"    {entry.state}: {entry.reason}")
                write(results)
                line.advance()
        return results

    def _attempt(self, results: TableResults, init: InitializationPlan, measurement: Measurement, seed: int) -> Entry:
        try:
            check_measurable(init, measurement, self.stores)  # before a pretraining whose result could not be measured
            pretraining = self.pretrain(init, seed) if init.recipe else None
            if pretraining:
                results.pretrainings[init.name, seed] = pretraining
            return Entry("done", self.measure(init, measurement, seed, pretraining))
        except RunInterrupted:
            raise
        except (DataMissing, InitializationNotAvailable, NotSupported) as error:
            return Entry("not run", reason=str(error))
        except C2LError as error:
            return Entry("failed", reason=str(error))
        except Exception as error:  # any error: the other rows do not depend on this one
            print(traceback.format_exc(), file=sys.stderr)
            return Entry("failed", reason=f"{type(error).__name__}: {error}")

    def measure(
        self, init: InitializationPlan, measurement: Measurement, seed: int, pretraining: Pretraining | None
    ) -> Result:
        """Return the result of a measurement: read from disk if it exists, otherwise run."""
        out = self.out / measurement.folder / f"{init.name}-seed{seed}"
        own_seed = measurement.seed(seed)
        if not Result.is_done(out):
            return self.backend.measure(init, measurement, own_seed, pretraining, self.scale, self.stores, out)
        result = Result.read(out)
        check_result(result, init, measurement, own_seed, self.scale, out)
        check_images(result, measurement, self.stores, out)
        if pretraining:
            check_weights(result, pretraining, out)
        return result

    def pretrain(self, init: InitializationPlan, seed: int) -> Pretraining:
        """Return a row's finished pretraining. A failed one is not tried again for the row's next measurement."""
        key = (init.folder, seed)
        if key in self._failed:
            raise self._failed[key]
        recipe = recipe_of(init, self.scale, seed)
        folder = self.out / "pretrain" / f"{init.folder}-seed{seed}"
        try:
            store = self.stores.get(datasets_of(recipe.sources), store_of_run(folder))
            return ensure_pretrained(recipe, store, folder, self.backend.pretrain)
        except RunInterrupted:
            raise
        except Exception as error:
            _release_locals(error)
            self._failed[key] = error
            raise


def _release_locals(error: BaseException | None) -> None:
    """Clear the local variables of an error's finished frames: a failed step's tensors would fill the GPU."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class NotSupported(C2LError):
    """The measurement does not support this architecture."""


def check_measurable(init: InitializationPlan, measurement: Measurement, stores: Stores) -> None:
    """Raise NotSupported if there is no detector for the architecture, and DataMissing unless the images are there."""
    if measurement.kind == "detect":
        from ..detection.detector import ARCHITECTURES

        if init.architecture not in ARCHITECTURES:
            raise NotSupported(f"the detector supports only {', '.join(ARCHITECTURES)}, as in Table 5")
        stores.raw_folders(measurement.task)
    else:
        stores.require({load_task(measurement.task).dataset})


def check_images(result: Result, measurement: Measurement, stores: Stores, out: Path) -> None:
    """Raise RunError unless the store that an existing result was measured on is there; a detector has a store apart.

    Raises DatasetError as `Stores.get`.
    """
    if measurement.kind == "detect":
        return
    measured = result.facts["store_sha256"]
    store = stores.get({load_task(measurement.task).dataset}, measured)
    if store.sha256 != measured:
        raise RunError(
            f"{out} was measured on the store {measured[:12]}, which is gone; the images are now those of "
            f"{store.sha256[:12]} in {store.path}; move {out} away"
        )


def check_weights(result: Result, pretraining: Pretraining, out: Path) -> None:
    """Raise RunError unless an existing result was measured on the newest checkpoint of this pretraining."""
    tables = (result.facts, *(value for value in result.facts.values() if isinstance(value, dict)))
    measured = next((table["checkpoint"] for table in tables if "checkpoint" in table), None)
    if measured != (newest := checkpoint.newest(pretraining.folder)):
        raise RunError(
            f"{out} was measured on checkpoint {measured} of {pretraining.folder}, but the newest is {newest}; "
            f"move {out} away"
        )


def check_result(
    result: Result, init: InitializationPlan, measurement: Measurement, seed: int, scale: Scale, out: Path
) -> None:
    """Raise RunError unless an existing result has this kind, task, architecture, seed and the scale's settings."""
    found = result.facts | result.facts.get("settings", {})
    found |= {key: getattr(result, key) for key in ("kind", "task", "architecture", "seed")}
    expected = {"kind": measurement.kind, "task": measurement.task, "architecture": init.architecture, "seed": seed}
    expected |= {key: value for key, value in scale.settings(measurement).items() if key in found}
    check_same_settings(
        out, {key: found[key] for key in expected}, expected, advice="Move it away, or choose another --out"
    )
