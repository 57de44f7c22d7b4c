"""A fine-tuning run's metrics as the house reports them, beside another run's where there is one."""

import numpy as np

from c2l_models.errors import C2LError

from ..evaluation.predictions import Predictions
from ..evaluation.report import Report, ReportColumn
from ..evaluation.result import Result
from ..evaluation.tasks import Task


def report_of(result: Result, predictions: Predictions, task: Task, other: Result | None = None) -> Report:
    """The report of a run that was measured.

    Args:
        result: the run's.
        predictions: what it was measured on.
        task: says which figure stands for it.
        other: a run on the same sample: paired differences to it are shown beside.

    Raises:
        C2LError: `other` was measured on another task, or on another sample.
    """
    columns = [ReportColumn(result.initialization, result.metrics)]
    if other:
        if result.task != other.task:
            raise C2LError(f"this run is on {result.task}, the other on {other.task}; wanted two runs on one task")
        result.metrics.minus(other.metrics, task.headline)  # raises where they cannot be paired
        columns.append(
            ReportColumn(
                other.initialization + " (the other run)" * (other.initialization == result.initialization),
                other.metrics,
            )
        )
    positives = np.nansum(predictions.targets, axis=0).astype(int).tolist()
    counts = dict(zip(predictions.labels, positives, strict=True))
    return Report("Fine-tuning", counts, tuple(columns), task.headline, result.facts, _notes(result))


def _notes(result: Result) -> str:
    """What a reader of the table has to know."""
    facts, settings = result.facts, result.facts["settings"]
    notes = (
        f"Fitted on {facts['fit_images']} images of {facts['fit_patients']} patients; epoch {facts['epoch']} of "
        f"{settings['epochs']} was chosen on {facts['tune_images']} images of {facts['tune_patients']} other patients."
    )
    if facts["store_size"] < facts["size"]:
        notes += (
            f" The store's images are {facts['store_size']} pixels, enlarged to {facts['size']}: the input holds no "
            "more detail than the store."
        )
    if (seen := facts["test_patients_seen_in_pretraining"]) is None:
        notes += " Nothing tells which patients the start was pretrained on: test patients may be among them."
    elif seen:
        notes += (
            f" {seen} of the test patients were among those that the start was pretrained on, without labels: these "
            "are not metrics of patients never seen."
        )
    return notes
