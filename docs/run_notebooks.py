"""Execute the notebooks of docs/notebooks and store their outputs: `make notebooks`."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SECONDS = 600
"""Limit of one cell."""


def execute(notebook: Path) -> nbformat.NotebookNode:
    """Execute a notebook in an empty folder, and return it with its outputs. Raises if a cell fails."""
    book = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in book.cells:
        cell.metadata.clear()  # times of execution
        if "outputs" in cell:
            cell.outputs = [
                output for output in cell.outputs if output.get("name") != "stderr"
            ]  # paths of this machine
    return book


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    for path in sorted(Path(__file__).with_name("notebooks").glob("*.ipynb")):
        print(path, file=sys.stderr)
        nbformat.write(execute(path), path)
