"""The HTML page of a run's report: metrics with intervals, ROC curves, and the data, settings and versions."""

from collections.abc import Mapping, Sequence

from ..pages.charts import Chart, Line
from ..pages.report import Charts, Facts, Page, Section, Table, Text
from .intervals import Difference, Estimate
from .metrics import Metrics
from .predictions import KAPPA, Predictions
from .report import Report
from .roc import roc

ROC_NOTE = (
    "Sensitivity against 1 − specificity at every threshold, on the test images. The dotted diagonal is chance. n/a: a "
    "label with one class, or that could not be learned, has no curve."
)


def report_page(
    report: Report, runs: Mapping[str, Predictions], curves: Sequence[Section] = (), facts: Sequence[Facts] = ()
) -> Page:
    """Make the page of a report.

    Args:
        report: the report.
        runs: predictions of the report's run by its name in the report; then, if they are known, those of other runs
            that it is compared with.
        curves: sections of training curves.
        facts: more facts about the weights, such as their recipe.
    """
    tables = [table_of(*table) for table in report.all_tables()]
    metrics = {column.name: column.metrics for column in report.columns}
    own = report.facts | {"evaluation_sample": report.target.metrics.sample}
    return Page(
        f"{report.title}: {report.target.name} on {report.facts['task']}",
        [(name if name == KAPPA else f"AUROC, {name}", report.target.metrics[name]) for name in report.main],
        [
            Section("Metrics", [Text([report.caption()]), *tables]),
            Section("ROC curves", [Charts(roc_charts(runs, metrics), ROC_NOTE)]),
            *curves,
            Section("Provenance", [Facts("Data, weights, settings and versions", own), *facts]),
        ],
    )


def table_of(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose estimates are drawn beside 0.5, or beside 0 if they are differences."""
    cells = [cell for row in rows for cell in row if isinstance(cell, Estimate)]
    if cells and all(isinstance(cell, Difference) for cell in cells):
        return Table(caption, header, rows, 0.0, "no difference")
    return Table(caption, header, rows, unmarked=(KAPPA,))


def roc_charts(runs: Mapping[str, Predictions], metrics: Mapping[str, Metrics]) -> list[Chart]:
    """ROC curves, one chart per label, with the AUROC of each run.

    Args:
        runs: predictions by the run's name, on the same labels and images.
        metrics: metrics by the run's name; they have the AUROC of each label.
    """
    first = next(iter(runs.values()))
    charts = []
    for number, label in enumerate(first.labels):
        lines = []
        for name, run in runs.items():
            false, true = roc(run.scores[:, number], run.targets[:, number])
            value = f"AUROC {metrics[name][label]}"
            lines.append(Line(name if len(runs) > 1 else "", false.tolist(), true.tolist(), value))
        charts.append(Chart(label, "1 − specificity", "sensitivity", lines, (0, 1), (0, 1), square=True))
    return charts
