"""The HTML page of a probe."""

from contextlib import suppress
from pathlib import Path

from c2l_models.errors import C2LError
from c2l_models.releases.provenance import read_provenance
from c2l_models.releases.registry import resolve

from ..evaluation.predictions import Predictions
from ..evaluation.report import Report
from ..evaluation.report_page import report_page
from ..pages.report import Facts, Page
from ..run_files.run_section import run_facts, training_curves


def probe_page(report: Report, target: str, folder: Path) -> Page:
    """Make the page of a probe's report.

    Args:
        report: the report of `probe`.
        target: the network that was probed, as `probe` takes it. The page has the training curves and the recipe of a
            run folder, and the recipe of a release.
        folder: the probe's folder.
    """
    runs = {report.target.name: Predictions.load(folder)}
    if (Path(target) / "run.json").is_file():
        return report_page(report, runs, training_curves(Path(target)), run_facts(Path(target)))
    return report_page(report, runs, facts=release_recipe(target))


def release_recipe(target: str) -> list[Facts]:
    """The recipe of a release; none if its provenance has no recipe, or the target is no release."""
    with suppress(C2LError):
        return [Facts("Recipe", read_provenance(resolve(target), "recipe")["recipe"])]
    return []
