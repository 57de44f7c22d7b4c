"""Report of a fine-tuning run, optionally beside another run."""

import json
from pathlib import Path

from c2l_models.hub.weight_file import FILE_NAME

from ..evaluation.predictions import Predictions, count_cases
from ..evaluation.report import Report, ReportColumn
from ..evaluation.report_page import report_page
from ..evaluation.result import Result
from ..evaluation.tasks import Task
from ..pages.charts import Chart, Line
from ..pages.report import Charts, Facts, Page, Section, Table
from ..store.store_format import file_sha256
from .finetuning_folder import LOG


def report_of(result: Result, predictions: Predictions, task: Task, other: Result | None = None) -> Report:
    """Make the report of a finished run.

    Args:
        result: the run's result.
        predictions: the run's predictions on the test images.
        task: the run's task; it names the main metric.
        other: result of another run on the same sample; the report shows the paired differences to it.

    Raises:
        C2LError: `other` was measured on another sample.
    """
    columns = [ReportColumn(result.initialization, result.metrics)]
    if other:
        result.metrics.minus(other.metrics, task.headline)  # raises C2LError if they cannot be paired
        same = other.initialization == result.initialization
        columns.append(ReportColumn(other.initialization + " (the other run)" * same, other.metrics))
    cases = count_cases(predictions.labels, predictions.targets)
    return Report("Fine-tuning", cases, tuple(columns), task.headline, result.facts, _notes(result))


def page_of(report: Report, folder: Path, versus: Path | None = None) -> Page:
    """The report as an HTML page, with ROC curves and training curves.

    Args:
        report: the report of `report_of`.
        folder: the run's folder.
        versus: folder of the run that the report compares with.
    """
    folders = [folder, *([versus] if versus else [])]
    runs = {column.name: Predictions.load(path) for column, path in zip(report.columns, folders, strict=True)}
    weights = Facts("Weights", {f"{FILE_NAME} sha256": file_sha256(folder / FILE_NAME)})
    return report_page(report, runs, [_training(folder, report.facts["epoch"])], [weights])


def _training(folder: Path, tested: int) -> Section:
    """The epochs of a run's log, as charts and as a table. `tested`: the epoch whose network was tested."""
    lines = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    names = {"loss": "training loss", "tuning_auroc": "AUROC of the tuning patients", "lr": "learning rate"}
    shown = {key: name for key, name in names.items() if key in lines[0]}
    epochs = [line["epoch"] for line in lines]
    charts = [
        Chart(name, "epoch", "", [Line("", epochs, [line[key] for line in lines])], points=True)
        for key, name in shown.items()
    ]
    rows = [[str(line["epoch"]), *(f"{line[key]:.4g}" for key in shown)] for line in lines]
    table = Table("Each epoch", ["epoch", *shown.values()], rows, folded=True)
    return Section("Training curves", [Charts(charts, f"Epoch {tested} was tested."), table])


def _notes(result: Result) -> str:
    """The notes below the table."""
    facts, settings = result.facts, result.facts["settings"]
    notes = f"Trained on {facts['fit_images']} images of {facts['fit_patients']} patients; epoch {facts['epoch']} of "
    if facts["tune_images"]:
        notes += (
            f"{settings['epochs']} was chosen on {facts['tune_images']} images of {facts['tune_patients']} other "
            "patients."
        )
    else:
        notes += f"{settings['epochs']} was tested, the {facts['epoch_rule']}."
    if facts["store_size"] < facts["size"]:
        notes += (
            f" The store's images are {facts['store_size']} pixels, enlarged to {facts['size']}, so the input has no "
            "more detail than the store."
        )
    if (seen := facts["test_patients_seen_in_pretraining"]) is None:
        notes += " The patients of pretraining are unknown, so test patients may be among them."
    elif seen:
        notes += (
            f" {seen} of the test patients were also in pretraining, without labels, so these metrics are not for "
            "unseen patients only."
        )
    return notes
