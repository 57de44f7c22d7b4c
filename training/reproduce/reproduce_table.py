"""`c2l reproduce TABLE`: fill a table of the paper, or this project's own comparison, from raw folders."""

from collections.abc import Sequence
from pathlib import Path

from ..run_files.run_lock import locked
from .backends import Backend, LocalBackend
from .data import Stores, find_data
from .plan import load_scale, load_table
from .runner import Runner, TableResults
from .table_plots import draw
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
    backend: Backend | None = None,
    pretraining_only: Sequence[str] = (),
) -> TableResults:
    """Run the missing entries of a table, and write the table after each one. An interrupted call resumes.

    Args:
        name: of the table: "table1" to "table5", "open" or "search"; see `table_names`.
        data: "NAME=DIR", or folders that hold data sets under their usual names.
        out: gets stores/, and a folder for the scale, such as `open` or `open-smoke`, with pretrain/, probe/, knn/,
            finetune/, detect/ and tables/.
        scale: "paper", "open" or "search"; None: the table's default.
        smoke: run a few steps of everything, as a check that it works.
        seeds: of pretraining and measurements. Metrics are means over them.
        only: names of rows to run; empty: all.
        device: "cpu", "cuda" or "auto".
        workers: decoding processes; None: one per core.
        backend: runs pretraining and measurements; None: this machine.
        pretraining_only: "NAME:PATTERN" of images that no labelled task may use, as for `prepare`.

    Raises:
        C2LError: an unknown table, row, scale or data set. If a row fails, the table says so instead.
        RunInterrupted, KeyboardInterrupt: the user or the system stopped the run.
    """
    table = load_table(name)
    table = table.only(only) if only else table
    sizes = load_scale(scale or table.scale, smoke)
    folder = out / sizes.folder
    stores = Stores(out / "stores", find_data(data), sizes.store_size, workers, pretraining_only=pretraining_only)
    runner = Runner(folder, sizes, stores, backend or LocalBackend(device))
    results = TableResults(table, sizes, tuple(dict.fromkeys(seeds)))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        runner.run(results, lambda results: write_tables(results, folder / "tables"))
        draw(results, folder / "tables")
    return results
