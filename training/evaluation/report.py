"""Report of a run as Markdown, CSV and plot: metrics with intervals, baselines, and how they were computed."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from c2l_models.files import write_atomically

from .csv_text import csv_text
from .intervals import Difference, Estimate
from .markdown import escaped, markdown_table
from .metrics import Metrics
from .plotting import LABEL, NAME_WIDTH, PAIRED, REFERENCE, as_png, new_figure, style_axes, wrapped
from .predictions import KAPPA, MIN_CASES, few_cases_note


@dataclass(frozen=True)
class ReportColumn:
    """Metrics of one network or baseline.

    Attributes:
        name: name in tables.
        metrics: metrics, averaged over seeds if there are several.
        seeds: headline metric of each seed; empty if there is only one.
    """

    name: str
    metrics: Metrics
    seeds: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """The name, with the number of seeds if there are several."""
        return f"{self.name} ({count} seeds)" if (count := self.metrics.num_seeds) > 1 else self.name


@dataclass(frozen=True)
class Report:
    """Metrics of a run, compared with baselines or with another run.

    Attributes:
        title: name of the method, such as "Linear probe".
        cases: numbers of positive and of negative test images by label. Metrics that are not labels summarize several
            labels.
        columns: the target, which the report is about, then the baselines or runs that it is compared with. All have
            the same metrics.
        headline: name of the metric that summarizes the task.
        facts: data, settings and versions behind the metrics. Required keys: `task`, `size`, `test_images`,
            `test_patients` and `bootstrap`.
        notes: sentences for the caption.
        tables: more tables: title, header and rows of each.
    """

    title: str
    cases: Mapping[str, Sequence[int]]
    columns: tuple[ReportColumn, ...]
    headline: str
    facts: dict[str, Any]
    notes: str = ""
    tables: tuple[tuple[str, list[str], list[list[str]]], ...] = ()

    @property
    def target(self) -> ReportColumn:
        """The column of the network that the report is about."""
        return self.columns[0]

    @property
    def comparisons(self) -> tuple[ReportColumn, ...]:
        """The columns that the target is compared with."""
        return self.columns[1:]

    @property
    def summaries(self) -> tuple[str, ...]:
        """Names of the metrics that summarize several labels. A mean over one label repeats it and is left out."""
        names = (name for name in self.target.metrics.names if name not in self.cases)
        return tuple(name for name in names if name == KAPPA or len(self.cases) > 1)

    @property
    def main(self) -> tuple[str, ...]:
        """The headline, then the other summaries."""
        return tuple(dict.fromkeys([self.headline, *self.summaries]))

    @property
    def rare(self) -> tuple[str, ...]:
        """Labels with fewer than `MIN_CASES` positive or negative test images, reported apart; none if all are."""
        rare = tuple(name for name, counts in self.cases.items() if min(counts) < MIN_CASES)
        return rare if len(rare) < len(self.cases) else ()

    @property
    def _common(self) -> tuple[str, ...]:
        """Names of the metrics in the tables, without the rare labels."""
        shown = {*self.cases, *self.summaries} - {*self.rare}
        return tuple(name for name in self.target.metrics.names if name in shown)

    @property
    def _measured(self) -> str:
        return f"AUROC, {KAPPA}" if KAPPA in self.summaries else "AUROC"

    def difference(self, other: ReportColumn, name: str) -> Difference:
        """A metric of the target minus the same metric of another column, paired by resample."""
        return self.target.metrics.minus(other.metrics, name)

    def write(self, out: Path) -> None:
        """Write report.csv, report.md and report.png into a folder, which is created if necessary."""
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "report.csv", self.csv().encode())
        write_atomically(out / "report.md", self.markdown().encode())
        write_atomically(out / "report.png", self.picture())

    def show(self, console: Console | None = None) -> None:
        """Print the target's metrics, then the summary metrics of the other columns; 80 characters wide."""
        console = console or Console(markup=False, emoji=False)  # a label such as [x] is no style
        table = _table(f"{self.title}: {self.target.name} on {self.facts['task']}", "", "positives", self._measured)
        for names in (self._common, self.rare):
            for name in names:
                table.add_row(name, self._positives(name), str(self.target.metrics[name]))
            table.add_section()
        console.print(table)
        for name in self.main if self.comparisons else ():
            title = f"Paired difference in {name}: {self.target.name} minus each row"
            table = _table(title, "", "metric", "paired difference")
            for other in self.comparisons:
                table.add_row(other.title, str(other.metrics[name]), str(self.difference(other, name)))
            console.print(table)
        for title, header, rows in self.tables:
            table = _table(title, *header)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        console.print(self.caption(), style="dim")

    def markdown(self) -> str:
        """The report as Markdown: tables, then data, settings and versions."""
        title = f"# {self.title}: {escaped(self.target.name)} on {escaped(self.facts['task'])}"
        parts = [title, self.caption(escaped)]
        for title, header, rows in self.all_tables():
            parts += [f"## {escaped(title)}", markdown_table(header, rows)]
        facts = [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in self.facts.items()]
        return "\n\n".join([*parts, "## Data, settings and versions", "\n".join(facts)]) + "\n"

    def csv(self) -> str:
        """The report as CSV, one row per metric and column.

        The CSV column `kind` is "figure" (a metric) or "difference" (the target minus the report's column, paired). The
        CSV column `figure` is the metric's name, `seeds` the number of seeds of the report's column, and `interval` the
        kind of the interval, as in `Metrics`.
        """
        rows: list[list[object]] = [
            ["kind", "figure", "positives", "column", "value", "low", "high", "seeds", "interval"]
        ]
        for name in self.target.metrics.names:
            lines = [("figure", column, column.metrics[name]) for column in self.columns]
            lines += [("difference", column, self.difference(column, name)) for column in self.comparisons]
            for kind, column, estimate in lines:
                compared = (column, self.target) if kind == "difference" else (column,)
                interval = "percentile" if self._with_percentiles(compared) else "expanded"
                values = [*map(_cell, _values(estimate)), column.metrics.num_seeds, interval]
                rows.append([kind, name, self._positives(name), column.name, *values])
        return csv_text(rows)

    def picture(self) -> bytes:
        """The report as PNG: one row per metric, with the value and interval of each column."""
        names = (*self._common, *self.rare)
        counted = [f"{name} ({count})" if (count := self._positives(name)) else name for name in names]
        shown = [wrapped(name, NAME_WIDTH) for name in counted]
        lines = [name.count("\n") + 1 for name in shown]
        row = max(0.5, *(0.1 + 0.09 * (one + other) for one, other in pairwise([1, *lines, 1])))  # inches
        figure = new_figure(8.5, 1.6 + row * len(names))
        axes = figure.add_subplot()
        spread = np.linspace(-0.3, 0.3, len(self.columns)) if self.comparisons else [0.0]
        for shift, column, colour in zip(spread, self.columns, PAIRED, strict=False):
            values, low, high = np.array([_values(column.metrics[name]) for name in names]).T
            where = np.arange(len(names)) + shift
            size, width = (6, 1.8) if column is self.target else (3.5, 0.9)
            axes.hlines(where, low, high, color=colour, linewidth=width)
            marker = "o" if column is self.target else "s"
            axes.plot(values, where, marker, color=colour, markersize=size, label=column.title)
        # Chance level of an AUROC. The chance level of kappa is 0, so the line stops before kappa's row.
        last = len(self._common) - 1 if KAPPA in names else len(names)
        axes.plot([0.5, 0.5], [-0.5, last - 0.5], ":", color=REFERENCE, linewidth=1)
        axes.set_yticks(range(len(names)), shown)
        axes.set_ylim(len(names) - 0.5, -0.5)
        end = len(self._common) - 0.5  # the summaries, above the rare labels
        axes.axhspan(end - len(self.summaries), end, color="0.95", zorder=0)
        axes.set_xlabel(f"{self._measured}; 95 % interval over patients and seeds")
        facts = self.facts
        title = (
            f"{self.title} on {facts['task']} at {facts['size']} pixels: "
            f"{facts['test_images']:,} test images, {facts['test_patients']:,} patients"
        )
        style_axes(axes, title, grid="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=LABEL)
        return as_png(figure)

    def all_tables(self) -> list[tuple[str, Sequence[str], Sequence[Sequence[object]]]]:
        """Title, header and rows of each table. The cells are texts and estimates."""
        header = ["label", "positives", *(column.title for column in self.columns)]
        values: dict[str, list[object]] = {
            name: [name, self._positives(name), *(column.metrics[name] for column in self.columns)]
            for name in self.target.metrics.names
        }
        common = [values[name] for name in self._common]
        if any(column.seeds for column in self.columns):
            common.append([f"{self.headline}, range over seeds", "", *map(_seed_range, self.columns)])
        tables: list[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = [(self._measured, header, common)]
        if self.rare:
            title = f"Labels with fewer than {MIN_CASES} positive or negative test images"
            tables.append((title, header, [values[name] for name in self.rare]))
        if self.comparisons:
            differences = [
                [name, *(self.difference(column, name) for column in self.comparisons)] for name in self._common
            ]
            header = ["label", *(column.title for column in self.comparisons)]
            tables.append((f"Paired difference: {self.target.name} minus each column", header, differences))
        return [*tables, *self.tables]

    @staticmethod
    def _with_percentiles(columns: Iterable[ReportColumn]) -> list[str]:
        """Names of the columns without jackknife values."""
        return [column.name for column in columns if column.metrics.interval == "percentile"]

    def _positives(self, name: str) -> str:
        """Number of positive test images of a label; empty for a metric over several labels."""
        return str(self.cases[name][0]) if name in self.cases else ""

    def caption(self, spelled: Callable[[str], str] = str) -> str:
        """Facts about the metrics. `spelled`: the form of a label's or column's name."""
        facts = self.facts
        undefined = [spelled(name) for name in self.cases if np.isnan(self.target.metrics[name].value)]
        caption = (
            f"{facts['test_images']} test images of {facts['test_patients']} patients, input "
            f"{facts['size']}×{facts['size']}; 95 % intervals over {facts['bootstrap']} resamples of whole patients"
        )
        caption += " and, in a mean over seeds, of seeds." if any(c.metrics.runs for c in self.columns) else "."
        if old := self._with_percentiles(self.columns):
            caption += (
                f" Percentile intervals, which are too narrow: {', '.join(map(spelled, old))} (measured by an earlier "
                "version, without jackknife values)."
            )
        if undefined:
            caption += (
                f" n/a: the training or the test images have only one class. Means leave out {', '.join(undefined)}."
            )
        return " ".join(filter(None, [caption, self.notes, self.few_cases(spelled)]))

    def few_cases(self, spelled: Callable[[str], str] = str) -> str:
        """The sentence of `few_cases_note` on the report's test images."""
        return few_cases_note(self.cases, spelled)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _seed_range(column: ReportColumn) -> str:
    known = [value for value in column.seeds if not math.isnan(value)]
    return f"{min(known):.3f}–{max(known):.3f}" if len(known) > 1 else ""


def _values(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _cell(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"
