"""The direction of imports, as pyproject.toml states it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")


@pytest.mark.training
def test_no_module_imports_a_later_one(repository: Path) -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout
