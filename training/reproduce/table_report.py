"""A table's results as Markdown and CSV: the paper's metrics, ours, paired differences, and the data behind them."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from c2l_models.files import write_atomically

from ..evaluation.csv_text import csv_text
from ..evaluation.intervals import Estimate
from ..evaluation.markdown import markdown_table
from .plan import Column, InitializationPlan
from .pretraining import Pretraining
from .runner import TableResults
from .seed_means import difference, facts, seconds, seed_mean

CSV_COLUMNS = (
    *("table", "scale", "row", "architecture", "paper_row", "column", "metric", "paper", "value", "low", "high"),
    *("seeds", "interval", "minus", "difference", "difference_low", "difference_high", "difference_seeds"),
    *("pretraining_images", "pretraining_patients", "pretraining_store_sha256"),
    *("test_images", "test_patients", "test_store_sha256", "skipped_labels", "seconds", "missing"),
)


def write_tables(results: TableResults, folder: Path) -> None:
    """Write <table>.md and <table>.csv into a folder, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{results.table.name}.md", markdown(results).encode())
    write_atomically(folder / f"{results.table.name}.csv", as_csv(results).encode())


def markdown(results: TableResults) -> str:
    """The results as Markdown: one section per architecture, then the data of each row."""
    table, scale = results.table, results.scale
    name = f"Table {table.name.removeprefix('table')}: {table.title}" if table.paper else table.title
    parts = [f"# {name}"]
    if scale.smoke:
        parts.append("**A smoke run: it only shows that every step works. Its metrics mean nothing.**")
    unit = (
        f" Metrics are {table.paper.unit}. The paper's values are as printed, for comparison; they are no pass mark."
        if table.paper
        else ""
    )
    parts.append(
        f"Scale {scale.name}: {scale.description}. Our metrics are means over seeds (requested: "
        f"{_listed(results.seeds)}), with 95 % intervals over patients and seeds. A metric without a number of seeds "
        f"is of one seed, and its interval is over patients only.{unit}"
    )
    for architecture, group in groupby(table.rows, lambda row: row[0].architecture):
        rows = list(group)
        parts.append(f"## {architecture}")
        parts += _one_column(results, rows) if len(table.columns) == 1 else _many_columns(results, rows)
    parts += [_draws(results), _notes(results), "## Data of each row", _data_of_rows(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(results: TableResults) -> str:
    """The results as CSV, one line per row and column.

    Metrics are shares in [0, 1]; `paper` is in the paper's unit. Missing values are empty.
    """
    rows, columns = results.table.rows, results.table.columns
    lines = (_csv_line(results, init, printed, column) for init, printed in rows for column in columns)
    return csv_text([CSV_COLUMNS, *([line.get(name) for name in CSV_COLUMNS] for line in lines)])


def _csv_line(results: TableResults, init: InitializationPlan, printed: str, column: Column) -> dict[str, object]:
    ours, tested = seed_mean(results, init, column), facts(results, init, column)
    reference = _reference(results, init)
    line: dict[str, object] = {
        **{"table": results.table.name, "scale": results.scale.folder},
        **{"row": init.name, "architecture": init.architecture, "paper_row": printed},
        **{"column": column.name, "metric": column.metric, "seeds": ours.seeds},
        **{"interval": ours.interval, "skipped_labels": ours.skipped_labels},
        "missing": "; ".join(_reasons(results, init, column)),
        "seconds": f"{seconds(results, init):.0f}",
    }
    if (paper := results.table.printed(printed, column)) is not None:
        line["paper"] = paper
    if ours.estimate:
        line |= {key: f"{getattr(ours.estimate, key):.4f}" for key in ("value", "low", "high")}
    if reference and (paired := difference(results, reference, init, column).difference):
        line |= {"minus": f"{reference.name} minus this", "difference": f"{paired.value:.4f}"}
        line |= {"difference_low": f"{paired.low:.4f}", "difference_high": f"{paired.high:.4f}"}
        line["difference_seeds"] = paired.seeds
    if run := _pretraining(results, init):
        line |= {"pretraining_images": run.images, "pretraining_patients": run.patients}
        line["pretraining_store_sha256"] = run.store_sha256
    line |= {key: tested[key] for key in ("test_images", "test_patients") if key in tested}
    return line | {"test_store_sha256": tested.get("store_sha256", "")}


def _one_column(results: TableResults, rows: Sequence[tuple[InitializationPlan, str]]) -> list[str]:
    """One line per row: the paper's value, ours, and the difference."""
    (column,) = results.table.columns
    lines = [
        [
            init.name,
            printed or "–",
            _paper_value(results, printed, column),
            _our_value(results, init, column),
            _difference(results, init, column),
            seed_mean(results, init, column).seeds,
        ]
        for init, printed in rows
    ]
    references = _listed(results.table.references)
    return [
        f"{column.name}. Paired difference: {references} minus the row, on the same bootstrap patients and seeds.",
        markdown_table(["row", "paper's row", "paper", "ours", "paired difference", "seeds"], lines),
    ]


def _many_columns(results: TableResults, rows: Sequence[tuple[InitializationPlan, str]]) -> list[str]:
    """One line per column, with each row's values: the paper's and ours; then the differences."""
    columns = results.table.columns
    lines = [
        [
            column.name,
            *(
                f"{_paper_value(results, printed, column)} · " * (results.table.paper is not None)
                + _our_value(results, init, column)
                for init, printed in rows
            ),
        ]
        for column in columns
    ]
    inits = [init for init, _ in rows]
    parts = [
        "In each cell: the paper's value · ours." if results.table.paper else "",
        markdown_table(["", *(init.name for init in inits)], lines),
        _skipped_labels(results, inits),
    ]
    others = [init for init in inits if _reference(results, init)]
    if others and (reference := _reference(results, others[0])):
        differences = [[column.name, *(_difference(results, init, column) for init in others)] for column in columns]
        parts += [
            f"{reference.name} minus each other row, paired: on the same bootstrap patients and seeds, over the seeds "
            "that both rows have.",
            markdown_table(["", *(init.name for init in others)], differences),
        ]
    return parts


def _draws(results: TableResults) -> str:
    """The columns that are means over several draws of the labelled patients."""
    drawn = [(column.name, column.measurement.draws) for column in results.table.columns]
    return "\n\n".join(
        f"{name}: each seed's value is the mean over {draws} draws of the labelled patients, the same for every row. "
        "Its intervals are over patients, seeds and draws."
        for name, draws in drawn
        if draws > 1
    )


def _notes(results: TableResults) -> str:
    """The notes of the tasks, which belong beside their metrics (`Task.note`)."""
    notes = {
        f"{column.measurement.task}: {note}": None
        for init, _ in results.table.rows
        for column in results.table.columns
        if (note := facts(results, init, column).get("note"))
    }
    return "\n\n".join(notes)


def _skipped_labels(results: TableResults, inits: Sequence[InitializationPlan]) -> str:
    """Labels skipped because the few training images have one class only, by column. All rows skip the same ones."""
    lines = []
    for column in results.table.columns:
        each = dict.fromkeys(seed_mean(results, init, column).skipped_labels for init in inits)
        if skipped := " / ".join(filter(None, each)):
            lines.append(f"{column.name}: skipped labels, which no mean counts, seed by seed: {skipped}.")
    return "\n\n".join(lines)


def _data_of_rows(results: TableResults) -> str:
    """One line per row: images and patients of pretraining and tests, stores, duration, and missing entries."""
    lines = []
    for init, _ in results.table.rows:
        run = _pretraining(results, init)
        pretrained = f"{run.images:,} images, {run.patients:,} patients" if run else init.weights or "–"
        by_measurement = {column.measurement: facts(results, init, column) for column in results.table.columns}
        tested = [
            f"{measurement.task}: {known['test_images']:,} images, {known['test_patients']:,} patients"
            for measurement, known in by_measurement.items()
            if "test_images" in known and "test_patients" in known
        ]
        stores = {run.store_sha256} if run else set()
        stores |= {known["store_sha256"] for known in by_measurement.values() if known.get("store_sha256")}
        lines.append(
            [
                init.name,
                pretrained,
                "; ".join(dict.fromkeys(tested)) or "–",
                ", ".join(sorted(sha256[:12] for sha256 in stores)) or "–",
                _duration(seconds(results, init)),
                _missing(results, init) or "–",
            ]
        )
    return markdown_table(["row", "pretrained on", "tested on", "store", "time", "missing"], lines)


def _missing(results: TableResults, init: InitializationPlan) -> str:
    """A row's missing measurements and differences; those with the same reason share one statement."""
    folders: dict[str, list[str]] = {}
    for column in results.table.columns:
        for reason in _reasons(results, init, column):
            folders.setdefault(reason, []).append(column.measurement.folder)
    return "; ".join(f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in folders.items())


def _reasons(results: TableResults, init: InitializationPlan, column: Column) -> list[str]:
    """Why a metric lacks runs, and why its difference to the reference is missing although both have runs."""
    reasons = [seed_mean(results, init, column).reason]
    if reference := _reference(results, init):
        reason = difference(results, reference, init, column).reason
        reasons.append(f"no difference to {reference.name} ({reason})" if reason else "")
    return [reason for reason in reasons if reason]


def _reference(results: TableResults, init: InitializationPlan) -> InitializationPlan | None:
    """The row that this one is compared with; None if this row is a reference itself."""
    for other, _ in results.table.rows:
        if other.name in results.table.references and other.architecture == init.architecture and other != init:
            return None if init.name in results.table.references else other
    return None


def _pretraining(results: TableResults, init: InitializationPlan) -> Pretraining | None:
    """The pretraining of the row's first seed that has one."""
    runs = (results.pretrainings.get((init.name, seed)) for seed in results.seeds)
    return next((run for run in runs if run), None)


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _paper_value(results: TableResults, row: str, column: Column) -> str:
    value = results.table.printed(row, column)
    return "–" if value is None else f"{value:.1f}"


def _our_value(results: TableResults, init: InitializationPlan, column: Column) -> str:
    """Our metric, in percent if the paper's table is. "–" if it is missing; the table of the rows' data says why."""
    estimate = seed_mean(results, init, column).estimate
    if estimate is None:
        return "–"
    if results.table.paper and estimate.value == estimate.value:
        return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f}){_seeds(estimate)}"
    return f"{estimate}{_seeds(estimate)}"


def _difference(results: TableResults, init: InitializationPlan, column: Column) -> str:
    reference = _reference(results, init)
    paired = difference(results, reference, init, column).difference if reference else None
    if paired is None:
        return "–"
    if results.table.paper and paired.value == paired.value:
        return f"{100 * paired.value:+.1f} ({100 * paired.low:+.1f} to {100 * paired.high:+.1f}){_seeds(paired)}"
    return f"{paired}{_seeds(paired)}"


def _seeds(estimate: Estimate) -> str:
    return f", {estimate.seeds} seeds" if estimate.seeds > 1 else ""


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
