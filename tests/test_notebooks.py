"""The notebooks of the documentation run from an empty folder, and show what they showed when they were stored."""

import runpy
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("sklearn")

NOTEBOOKS = ("few_labels", "fine_tuning", "search_and_look")


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each code cell printed."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output.text for output in cell.outputs if output.output_type == "stream") for cell in code]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def test_no_notebook_is_forgotten(repository: Path) -> None:
    assert sorted(path.stem for path in (repository / "docs" / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_what_it_showed(repository: Path, name: str) -> None:
    file = repository / "docs" / "notebooks" / f"{name}.ipynb"
    stored = nbformat.read(file, as_version=4)
    executed = runpy.run_path(str(repository / "docs" / "run_notebooks.py"))["execute"](file)
    assert printed(executed) == printed(stored)
    assert pictures(executed) == pictures(stored) >= 1
