"""The engine of `c2l reproduce`: row by row and seed by seed, what is missing is run, what is there is used."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from c2l_models.errors import C2LError, RunError, RunInterrupted

from ..evaluation.result import Result
from ..evaluation.tasks import load_task
from ..initialization import InitializationNotAvailable
from ..run_files import checkpoint
from .backends import Jobs
from .data import DataMissing, Stores
from .plan import InitializationPlan, Measurement, Scale, TablePlan, datasets_of, recipe_of
from .pretraining import Pretrained, ensure_pretrained, trained_on

State = Literal["waiting", "done", "not run", "failed", "interrupted"]


@dataclass(frozen=True)
class Cell:
    """What became of one measurement of one start with one seed: a result, or why there is none."""

    state: State = "waiting"
    result: Result | None = None
    why: str = ""


@dataclass
class Book:
    """All that is known of a table so far.

    Attributes:
        plan, scale, seeds: what is to be run.
        cells: by start, measurement and seed; what is not there is waiting.
        pretrained: by start and seed, the pretrainings that are finished.
    """

    plan: TablePlan
    scale: Scale
    seeds: tuple[int, ...]
    cells: dict[tuple[str, Measurement, int], Cell] = field(default_factory=dict)
    pretrained: dict[tuple[str, int], Pretrained] = field(default_factory=dict)

    def cell(self, start: InitializationPlan, measured: Measurement, seed: int) -> Cell:
        """The cell; a waiting one where nothing was tried yet."""
        return self.cells.get((start.name, measured, seed), Cell())

    def keys(self) -> Iterator[tuple[InitializationPlan, Measurement, int]]:
        """What is to be run, in its order: a seed of the whole table before the next one, the cheap before the dear."""
        for seed in self.seeds:
            for start, _ in self.plan.rows:
                for measured in self.plan.measurements:
                    yield start, measured, seed

    @property
    def failed(self) -> bool:
        """Whether a cell failed; one that could not be run here has not."""
        return any(cell.state == "failed" for cell in self.cells.values())

    def summary(self) -> str:
        """How many cells there are of each state, and why, for those that are not done."""
        cells = {key: self.cell(*key) for key in self.keys()}
        counts = Counter(cell.state for cell in cells.values())
        lines = [f"{self.plan.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
        lines += [
            f"  {start.name}, seed {seed}, {measured.folder}: {cell.state}: {cell.why}"
            for (start, measured, seed), cell in cells.items()
            if cell.why
        ]
        return "\n".join(lines)


@dataclass
class Engine:
    """Runs cells.

    Attributes:
        out: root of all that is written: pretrain/, probe/, knn/, finetune/, detect/.
        scale: how large it is.
        stores: where images come from.
        jobs: what does the work.
        console: where progress is told.
    """

    out: Path
    scale: Scale
    stores: Stores
    jobs: Jobs
    console: Console
    _failed: dict[tuple[str, int], Exception] = field(default_factory=dict)

    def run(self, book: Book, write: Callable[[Book], object]) -> Book:
        """Fill a book; `write` is called at the start and after every cell.

        A cell that fails is noted and the next one begun.

        Raises:
            RunInterrupted, KeyboardInterrupt: asked to stop; the cell says so, and the same call goes on there.
        """
        keys = list(book.keys())
        write(book)
        for number, (start, measured, seed) in enumerate(keys, 1):
            self._say(f"[{number}/{len(keys)}] {start.name}, seed {seed}: {measured.folder}")
            key = (start.name, measured, seed)
            try:
                book.cells[key] = self._attempt(book, start, measured, seed)
            except (RunInterrupted, KeyboardInterrupt) as stop:
                book.cells[key] = Cell("interrupted", why=str(stop) or "by hand; the same command goes on")
                write(book)
                raise
            if (cell := book.cells[key]).why:
                self._say(f"    {cell.state}: {cell.why}")
            write(book)
        return book

    def _attempt(self, book: Book, start: InitializationPlan, measured: Measurement, seed: int) -> Cell:
        try:
            return Cell("done", self._cell(book, start, measured, seed))
        except RunInterrupted:
            raise
        except (DataMissing, InitializationNotAvailable, NotMeasured) as error:
            return Cell("not run", why=str(error))
        except C2LError as error:
            return Cell("failed", why=str(error))
        except Exception as error:  # whatever it is, the other rows can do without this one
            self._say(traceback.format_exc())
            return Cell("failed", why=f"{type(error).__name__}: {error}")

    def _cell(self, book: Book, start: InitializationPlan, measured: Measurement, seed: int) -> Result:
        need(start, measured, self.stores)  # before a pretraining is begun whose figure could not be measured
        pretrained = self.pretrained(start, seed) if start.recipe else None
        if pretrained:
            book.pretrained[start.name, seed] = pretrained
        return self.measured(start, measured, seed, pretrained)

    def measured(
        self, start: InitializationPlan, measured: Measurement, seed: int, pretrained: Pretrained | None
    ) -> Result:
        """A measurement's result: read where it is there, run where not."""
        out = self.out / measured.folder / f"{start.name}-seed{seed}"
        if not Result.is_done(out):
            return self.jobs.measure(start, measured, seed, pretrained, self.scale, self.stores, out)
        result = Result.read(out)
        check_result(result, start, measured, seed, self.scale, out)
        if pretrained:
            check_weights(result, pretrained, out)
        return result

    def pretrained(self, start: InitializationPlan, seed: int) -> Pretrained:
        """A row's finished pretraining. One that failed is not tried again for the row's next figure."""
        key = (start.folder, seed)
        if key in self._failed:
            raise self._failed[key]
        recipe = recipe_of(start, self.scale, seed)
        folder = self.out / "pretrain" / f"{start.folder}-seed{seed}"
        try:
            store = self.stores.get(datasets_of(recipe.sources), trained_on(folder))
            return ensure_pretrained(recipe, store, folder, self.jobs.pretrain)
        except RunInterrupted:
            raise
        except Exception as error:
            self._failed[key] = error
            raise

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class NotMeasured(C2LError):
    """A measurement that is not made of such a network."""


def need(start: InitializationPlan, measured: Measurement, stores: Stores) -> None:
    """Raise NotMeasured where no detector is built on the network, DataMissing unless the images are there."""
    if measured.kind == "detect":
        from ..detection.detector import ARCHITECTURES

        if start.architecture not in ARCHITECTURES:
            raise NotMeasured(f"the detector is built on {', '.join(ARCHITECTURES)}, as in Table 5")
        stores.raw(measured.task)
    else:
        stores.need({load_task(measured.task).dataset})


def check_weights(result: Result, pretrained: Pretrained, out: Path) -> None:
    """Raise RunError unless a result that was found was measured on the pretraining that is there now."""
    tables = [table for key in ("about", "start") if isinstance(table := result.facts.get(key), dict)]
    had = next((table["checkpoint"] for table in (result.facts, *tables) if "checkpoint" in table), None)
    if had != (now := checkpoint.newest(pretrained.folder)):
        raise RunError(
            f"{out} was measured on checkpoint {had} of {pretrained.folder}, whose newest is {now}; move {out} away"
        )


def check_result(
    result: Result, start: InitializationPlan, measured: Measurement, seed: int, scale: Scale, out: Path
) -> None:
    """Raise RunError unless a result that was found is of this kind, task, architecture and seed, at this scale."""
    has = result.facts | result.facts.get("settings", {})
    has |= {key: getattr(result, key) for key in ("kind", "task", "architecture", "seed")}
    wanted = {"kind": measured.kind, "task": measured.task, "architecture": start.architecture, "seed": seed}
    wanted |= {key: value for key, value in scale.settings(measured).items() if key in has}
    if differing := [key for key, value in wanted.items() if has[key] != value]:
        listed = "; ".join(f"{key}: it has {has[key]!r}, wanted {wanted[key]!r}" for key in differing)
        raise RunError(f"{out} holds another result: {listed}; move it away, or give another --out")
