"""`c2l reproduce TABLE`: a table of the paper, or this project's own comparison, from raw folders to metrics."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .backends import Jobs, RealJobs
from .data import Stores, find_data
from .plan import load_scale, load_table
from .runner import Book, Engine
from .table_pictures import draw
from .table_report import write_tables


def reproduce_table(
    name: str,
    data: Sequence[str],
    out: Path,
    scale: str | None = None,
    smoke: bool = False,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    jobs: Jobs | None = None,
) -> Book:
    """Run what is missing of a table and write it after every cell; the same call goes on where it was stopped.

    Args:
        name: "table1" to "table5", "open" or "search".
        data: "NAME=DIR", or folders that hold data sets under their usual names.
        out: gets stores/, and in a folder for the scale, such as `open` or `open-smoke`: pretrain/, probe/, knn/,
            finetune/, detect/ and tables/.
        scale: "paper", "open" or "search"; None: the one that the table names.
        smoke: a few steps of everything: shows that all of it runs.
        seeds: of pretraining and measurement; metrics are means over them.
        only: names of rows; none: all.
        device: "cpu", "cuda" or "auto".
        workers: decoding processes; None: one a core.
        jobs: what does the work; the pipeline by default.

    Raises:
        C2LError: an unknown table, row, scale or data set. A row that fails says so in the table.
        RunInterrupted, KeyboardInterrupt: asked to stop.
    """
    plan = load_table(name)
    plan = plan.only(only) if only else plan
    size = load_scale(scale or plan.scale, smoke)
    folder = out / (size.name + "-smoke" * smoke)
    stores = Stores(out / "stores", find_data(data), size.store_size, workers)
    engine = Engine(folder, size, stores, jobs or RealJobs(device), Console(stderr=True))
    tables = folder / "tables"
    book = engine.run(Book(plan, size, tuple(dict.fromkeys(seeds))), lambda book: write_tables(book, tables))
    draw(book, tables)
    return book
