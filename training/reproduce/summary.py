"""A book's metrics: the mean over the seeds that are done, and the paired differences of rows."""

from dataclasses import dataclass
from typing import Any

from c2l_models.errors import C2LError

from ..evaluation.intervals import Difference, Estimate
from ..evaluation.metrics import Metrics, average
from .plan import Column, InitializationPlan
from .runner import Book, Cell


@dataclass(frozen=True)
class Found:
    """A row's figure in a column.

    Attributes:
        estimate: the mean over `seeds` seeds, its interval over patients; None where there is none.
        why: what is missing, or was not comparable.
        unlearnt: labels that are in no mean, as `Metrics` has it.
    """

    estimate: Estimate | None
    seeds: int
    why: str = ""
    unlearnt: str = ""


def found(book: Book, start: InitializationPlan, column: Column) -> Found:
    """A row's figure, of as many seeds as are done."""
    done, why = _done(book, start, column)
    if not done:
        return Found(None, 0, why)
    try:
        mean = average(done)
        return Found(mean[column.figure], len(done), why, mean.skipped_labels)
    except C2LError as error:
        return Found(None, len(done), str(error))


def difference(book: Book, start: InitializationPlan, other: InitializationPlan, column: Column) -> Difference | None:
    """A row's figure minus another row's, paired resample by resample; None where either has none.

    Over the same seeds of both, so that a run in progress compares like with like.
    """
    seeds = [
        seed
        for seed in book.seeds
        if all(book.cell(row, column.measured, seed).result is not None for row in (start, other))
    ]
    if not seeds:
        return None
    one, two = ([_figures(book.cell(row, column.measured, seed)) for seed in seeds] for row in (start, other))
    try:
        return average(one).minus(average(two), column.figure)
    except C2LError:
        return None


def facts(book: Book, start: InitializationPlan, column: Column) -> dict[str, Any]:
    """The facts of a row's first finished seed, on what it was measured; empty where none is done."""
    for seed in book.seeds:
        if result := book.cell(start, column.measured, seed).result:
            tested = result.facts.get("evaluation")  # as a detector has it
            return result.facts | (
                {"test_images": tested["films"], "test_patients": tested["patients"]} if tested else {}
            )
    return {}


def seconds(book: Book, start: InitializationPlan) -> float:
    """How long all that is done of a row took: pretraining and measurements."""
    of_row = [cell.result for (name, _, _), cell in book.cells.items() if name == start.name and cell.result]
    measured = sum(float(result.facts.get("seconds") or 0) for result in of_row)
    return measured + sum(run.seconds or 0 for (name, _), run in book.pretrained.items() if name == start.name)


def _done(book: Book, start: InitializationPlan, column: Column) -> tuple[list[Metrics], str]:
    cells = {seed: book.cell(start, column.measured, seed) for seed in book.seeds}
    done = [_figures(cell) for cell in cells.values() if cell.result]
    missing = [
        f"seed {seed}: {cell.state}" + f" ({cell.why})" * bool(cell.why)
        for seed, cell in cells.items()
        if not cell.result
    ]
    return done, "; ".join(missing)


def _figures(cell: Cell) -> Metrics:
    assert cell.result
    return cell.result.metrics
