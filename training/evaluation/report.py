"""A probe's figures as a table, a CSV, JSON and a picture: all of them with what is needed to quote them."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from c2l_models.hub import write_atomically

from .metrics import Auroc, Estimate, Mask, paired_difference


@dataclass(frozen=True)
class Column:
    """One network's, or one floor's, results; `seed_means` are the mean AUROCs of a floor's seeds."""

    name: str
    auroc: Auroc
    seed_means: tuple[float, ...] = ()


@dataclass(frozen=True)
class ProbeReport:
    """What `probe` found.

    Attributes:
        labels: names of the L labels.
        positives: positive test images of each.
        without: labels that a second mean leaves out.
        columns: the target, then the floors.
        facts: what the figures were computed on, and with.
    """

    labels: tuple[str, ...]
    positives: tuple[int, ...]
    without: tuple[str, ...]
    columns: tuple[Column, ...]
    facts: dict[str, Any]

    @property
    def target(self) -> Column:
        return self.columns[0]

    @property
    def floors(self) -> tuple[Column, ...]:
        return self.columns[1:]

    def rows(self) -> list[tuple[str, Mask]]:
        """The table's rows, each a mean over labels: each label, all of them, all but `without`."""
        each = np.eye(len(self.labels), dtype=bool)
        rows = list(zip(self.labels, each, strict=True))
        if len(self.labels) > 1:
            rows.append(("mean", np.ones(len(self.labels), bool)))
        if self.without and not set(self.labels) <= set(self.without):
            rows.append((f"mean without {', '.join(self.without)}", ~np.isin(self.labels, self.without)))
        return rows

    def difference(self, floor: Column, mask: Mask) -> Estimate:
        """Target minus floor over some labels, paired."""
        return paired_difference(self.target.auroc, floor.auroc, mask)

    def write(self, out: Path) -> None:
        """Write probe.csv, probe.md, probe.json and probe.png into a folder, which is made."""
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "probe.csv", self.csv().encode())
        write_atomically(out / "probe.md", self.markdown().encode())
        write_atomically(out / "probe.json", (json.dumps(self.to_dict(), indent=2) + "\n").encode())
        write_atomically(out / "probe.png", self.picture())

    def show(self, console: Console | None = None) -> None:
        """Print the target's figures, and its means beside the floors': what fits a terminal's 80 columns."""
        console = console or Console()
        table = _table(f"Linear probe: {self.target.name} on {self.facts['task']}", "label", "positives", "AUROC")
        for name, mask in self.rows():
            table.add_row(name, self._positives(mask), str(self.target.auroc.mean_of(mask)))
        console.print(table)
        for name, mask in (self.rows()[len(self.labels) :] or self.rows()) if self.floors else ():
            table = _table(f"{name}: floors, and {self.target.name} minus each", "floor", "AUROC", "paired difference")
            for floor in self.floors:
                table.add_row(floor.name, str(floor.auroc.mean_of(mask)), str(self.difference(floor, mask)))
            console.print(table)
        console.print(self._caption(), style="dim")

    def markdown(self) -> str:
        """The tables and what they were computed on."""
        parts = [f"# Linear probe: {self.target.name} on {self.facts['task']}", self._caption()]
        for title, header, rows in self._tables():
            rule = ["---"] + ["---:"] * (len(header) - 1)
            lines = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]
            parts += [f"## {title}", "\n".join(lines)]
        facts = [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in self.facts.items()]
        return "\n\n".join([*parts, "## Computed on, and with", "\n".join(facts)]) + "\n"

    def csv(self) -> str:
        """One line a figure: figure, row, positives, column, value, low, high."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["figure", "row", "positives", "column", "value", "low", "high"])
        for name, mask in self.rows():
            count = self._positives(mask)
            figures = [("auroc", column.name, column.auroc.mean_of(mask)) for column in self.columns]
            figures += [("difference", column.name, self.difference(column, mask)) for column in self.floors]
            for figure, column_name, estimate in figures:
                writer.writerow([figure, name, count, column_name, *map(_cell, _values(estimate))])
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Facts and figures as JSON knows them; null where a figure is not available."""

        def figures(columns: Sequence[Column], of: Callable[[Column, Mask], Estimate]) -> dict[str, Any]:
            return {
                column.name: {name: _interval(of(column, mask)) for name, mask in self.rows()} for column in columns
            }

        return {
            "facts": self.facts,
            "positives": dict(zip(self.labels, self.positives, strict=True)),
            "auroc": figures(self.columns, lambda column, mask: column.auroc.mean_of(mask)),
            "target_minus_floor": figures(self.floors, self.difference),
            "floor_seed_means": {column.name: list(map(_plain, column.seed_means)) for column in self.floors},
        }

    def picture(self) -> bytes:
        """PNG: a dot and its interval for each row and column."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = self.rows()
        figure = Figure(figsize=(8.5, 1.6 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        spread = np.linspace(-0.3, 0.3, len(self.columns)) if self.floors else [0.0]
        for shift, column, colour in zip(spread, self.columns, _COLOURS, strict=False):
            values, low, high = np.array([_values(column.auroc.mean_of(mask)) for _, mask in rows]).T
            where = np.arange(len(rows)) + shift
            size, width = (6, 1.8) if column is self.target else (3.5, 0.9)
            axes.hlines(where, low, high, color=colour, linewidth=width)
            marker = "o" if column is self.target else "s"
            axes.plot(values, where, marker, color=colour, markersize=size, label=column.name)
        axes.axvline(0.5, color="0.6", linestyle=":", linewidth=1)
        names = [f"{name} ({count})" if (count := self._positives(mask)) else name for name, mask in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axhspan(len(self.labels) - 0.5, len(rows) - 0.5, color="0.95", zorder=0)
        axes.set_xlabel("AUROC, 95 % interval over patients")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        facts = self.facts
        axes.set_title(
            f"Linear probe on {facts['task']} at {facts['size']} pixels: "
            f"{facts['test_images']:,} test images, {facts['test_patients']:,} patients",
            loc="left",
            fontsize=10,
        )
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and cells of each table."""
        aurocs = [
            [name, self._positives(mask), *(str(column.auroc.mean_of(mask)) for column in self.columns)]
            for name, mask in self.rows()
        ]
        tables = [("AUROC", ["label", "positives", *(column.name for column in self.columns)], aurocs)]
        if self.floors:
            aurocs.append(["spread of seeds' means", "", "", *(_spread(column) for column in self.floors)])
            differences = [
                [name, *(str(self.difference(column, mask)) for column in self.floors)] for name, mask in self.rows()
            ]
            header = ["label", *(column.name for column in self.floors)]
            tables.append((f"{self.target.name} minus each floor, paired", header, differences))
        return tables

    def _positives(self, mask: Mask) -> str:
        """A label's positive test images; empty for a mean."""
        return str(self.positives[int(mask.argmax())]) if mask.sum() == 1 else ""

    def _caption(self) -> str:
        facts = self.facts
        return (
            f"{facts['test_images']} test images of {facts['test_patients']} patients, input "
            f"{facts['size']}×{facts['size']}; 95 % intervals over {facts['bootstrap']} resamples of whole "
            "patients. A random floor is the mean over its seeds, its interval that of the mean; "
            "its batch norm, where recalibrated, saw the task's own training films."
        )


_COLOURS = ("#c1272d", "#222222", "#7fa6c9", "#1f5f99", "#8fbf8f", "#2e7d32")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _spread(column: Column) -> str:
    known = [mean for mean in column.seed_means if not math.isnan(mean)]
    return f"{min(known):.3f}–{max(known):.3f}" if len(known) > 1 else ""


def _values(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _cell(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return dict(zip(("value", "low", "high"), map(_plain, _values(estimate)), strict=True))
