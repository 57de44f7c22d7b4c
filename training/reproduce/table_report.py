"""A book as a Markdown and a CSV table: the paper's metrics, ours, how they compare, and what they were made of."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from c2l_models.files import write_atomically

from .plan import Column, InitializationPlan
from .pretraining import Pretrained
from .runner import Book
from .summary import difference, facts, found, seconds

CSV_COLUMNS = (
    *("table", "scale", "row", "architecture", "paper_row", "column", "figure", "paper", "value", "low", "high"),
    *("seeds", "minus", "difference", "difference_low", "difference_high"),
    *("pretraining_images", "pretraining_patients", "pretraining_store_sha256"),
    *("test_images", "test_patients", "test_store_sha256", "unlearnt", "seconds", "missing"),
)


def write_tables(book: Book, folder: Path) -> None:
    """Write <table>.md and <table>.csv into a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{book.plan.name}.md", markdown(book).encode())
    write_atomically(folder / f"{book.plan.name}.csv", as_csv(book).encode())


def markdown(book: Book) -> str:
    """The book as Markdown: a part an architecture, then what each row was made of."""
    plan, scale = book.plan, book.scale
    name = f"Table {plan.name.removeprefix('table')}: {plan.title}" if plan.paper else plan.title
    parts = [f"# {name}"]
    if scale.smoke:
        parts.append("**A smoke run: it shows that all of it runs. Its metrics mean nothing.**")
    unit = (
        f" Metrics are {plan.paper.unit}; the paper's are as printed, beside ours, and no pass mark."
        if plan.paper
        else ""
    )
    parts.append(
        f"Scale {scale.name}: {scale.description}. Ours are means over seeds ({_listed(book.seeds)} asked for), with "
        f"95 % intervals over whole patients.{unit}"
    )
    for architecture, rows in groupby(plan.rows, lambda row: row[0].architecture):
        starts = list(rows)
        parts.append(f"## {architecture}")
        parts += _by_row(book, starts) if len(plan.columns) == 1 else _by_column(book, starts)
    parts += ["## What each row was made of", _rows(book)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(book: Book) -> str:
    """The book as CSV: a line a row and column; shares in [0, 1], but `paper` as printed. Empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for start, printed in book.plan.rows:
        for column in book.plan.columns:
            writer.writerow(_line(book, start, printed, column))
    return text.getvalue()


def _line(book: Book, start: InitializationPlan, printed: str, column: Column) -> dict[str, object]:
    ours, of, rival = found(book, start, column), facts(book, start, column), _against(book, start)
    line: dict[str, object] = {
        **{"table": book.plan.name, "scale": book.scale.name + "-smoke" * book.scale.smoke},
        **{"row": start.name, "architecture": start.architecture, "paper_row": printed},
        **{"column": column.name, "figure": column.figure, "seeds": ours.seeds, "missing": ours.why},
        **{"unlearnt": ours.unlearnt, "seconds": f"{seconds(book, start):.0f}"},
    }
    if (paper := book.plan.printed(printed, column)) is not None:
        line["paper"] = paper
    if ours.estimate:
        line |= {key: f"{getattr(ours.estimate, key):.4f}" for key in ("value", "low", "high")}
    if rival and (paired := difference(book, rival, start, column)):
        line |= {"minus": f"{rival.name} minus this", "difference": f"{paired.value:.4f}"}
        line |= {"difference_low": f"{paired.low:.4f}", "difference_high": f"{paired.high:.4f}"}
    if run := _pretrained(book, start):
        line |= {"pretraining_images": run.images, "pretraining_patients": run.patients}
        line["pretraining_store_sha256"] = run.store_sha256
    line |= {key: of[key] for key in ("test_images", "test_patients") if key in of}
    return line | {"test_store_sha256": of.get("store_sha256", "")}


def _by_row(book: Book, rows: Sequence[tuple[InitializationPlan, str]]) -> list[str]:
    """A line a row: the paper's figure, ours, and the difference."""
    (column,) = book.plan.columns
    header = ["row", "in the paper", "the paper", "ours", "minus this, paired", "seeds"]
    lines = [
        [
            start.name,
            printed or "–",
            _printed(book, printed, column),
            _ours(book, start, column),
            _difference(book, start, column),
            str(found(book, start, column).seeds),
        ]
        for start, printed in rows
    ]
    named = _listed(book.plan.against)
    return [f"{column.name}. Paired: {named} minus the row, on the same patients drawn.", _table(header, lines)]


def _by_column(book: Book, rows: Sequence[tuple[InitializationPlan, str]]) -> list[str]:
    """A line a column: the paper's figure and ours of each row; then the differences."""
    starts = [start for start, _ in rows]
    cells = [
        [column.name]
        + [
            " · ".join([_printed(book, printed, column)] * (book.plan.paper is not None) + [_ours(book, start, column)])
            for start, printed in rows
        ]
        for column in book.plan.columns
    ]
    told = "In each cell: the paper's figure · ours." if book.plan.paper else ""
    parts = [told, _table(["", *(start.name for start in starts)], cells), _unlearnt(book, starts)]
    rivals = [start for start in starts if _against(book, start)]
    if rivals and (first := _against(book, rivals[0])):
        differences = [
            [column.name, *(_difference(book, start, column) for start in rivals)] for column in book.plan.columns
        ]
        parts += [
            f"{first.name} minus each, paired: on the same patients drawn, over the seeds that both have.",
            _table(["", *(start.name for start in rivals)], differences),
        ]
    return parts


def _unlearnt(book: Book, starts: Sequence[InitializationPlan]) -> str:
    """What too few labels could not teach, column by column; a seed's labels are the same for every row."""
    lines = []
    for column in book.plan.columns:
        each = dict.fromkeys(found(book, start, column).unlearnt for start in starts)
        if lacking := " / ".join(filter(None, each)):
            lines.append(f"{column.name}: not learnt, and in no mean: {lacking} (seed by seed).")
    return "\n\n".join(lines)


def _rows(book: Book) -> str:
    """A line a row: images, patients and store of its pretraining, of its tests, its time, and what is missing."""
    header = ["row", "pretrained on", "tested on", "store", "time", "missing"]
    lines = []
    for start, _ in book.plan.rows:
        run = _pretrained(book, start)
        told = f"{run.images:,} images, {run.patients:,} patients" if run else start.weights or "–"
        of = {column.measured: facts(book, start, column) for column in book.plan.columns}
        tested = [
            f"{measured.task}: {known['test_images']:,} images, {known['test_patients']:,} patients"
            for measured, known in of.items()
            if "test_images" in known and "test_patients" in known
        ]
        stores = {run.store_sha256} if run else set()
        stores |= {known["store_sha256"] for known in of.values() if known.get("store_sha256")}
        missing: dict[str, list[str]] = {}  # what lacks for the same reason
        for column in book.plan.columns:
            if reason := found(book, start, column).why:
                missing.setdefault(reason, []).append(column.measured.folder)
        why = [f"{', '.join(dict.fromkeys(folders))}: {reason}" for reason, folders in missing.items()]
        lines.append(
            [
                start.name,
                told,
                "; ".join(dict.fromkeys(tested)) or "–",
                ", ".join(sorted(sha256[:12] for sha256 in stores)) or "–",
                _duration(seconds(book, start)),
                "; ".join(why) or "–",
            ]
        )
    return _table(header, lines)


def _against(book: Book, start: InitializationPlan) -> InitializationPlan | None:
    """The row that this one is compared with; None for that row itself."""
    for other, _ in book.plan.rows:
        if other.name in book.plan.against and other.architecture == start.architecture and other != start:
            return None if start.name in book.plan.against else other
    return None


def _pretrained(book: Book, start: InitializationPlan) -> Pretrained | None:
    """The pretraining of a row's first seed that has one."""
    runs = (book.pretrained.get((start.name, seed)) for seed in book.seeds)
    return next((run for run in runs if run), None)


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _printed(book: Book, row: str, column: Column) -> str:
    paper = book.plan.printed(row, column)
    return "–" if paper is None else f"{paper:.1f}"


def _ours(book: Book, start: InitializationPlan, column: Column) -> str:
    """The figure as the table's unit has it; the reasons for what is missing are told below the table."""
    estimate = found(book, start, column).estimate
    if estimate is None or estimate.value != estimate.value or not book.plan.paper:
        return "–" if estimate is None else str(estimate)
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _difference(book: Book, start: InitializationPlan, column: Column) -> str:
    rival = _against(book, start)
    paired = difference(book, rival, start, column) if rival else None
    if paired is None or paired.value != paired.value or not book.plan.paper:
        return "–" if paired is None else str(paired)
    return f"{100 * paired.value:+.1f} ({100 * paired.low:+.1f} to {100 * paired.high:+.1f})"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    cleaned = [[cell.replace("|", "/").replace("\n", " ") for cell in line] for line in (header, rule, *lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cleaned)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
