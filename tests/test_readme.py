"""Every Python snippet of the README runs as it stands, in its order, in a folder of synthetic films."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from c2l_models.phantom import write_films


@pytest.mark.usefixtures("timm_reads_folders")
def test_python_snippets_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 4
    write_films(tmp_path / "films", 60)
    shutil.copy(repository / "hubconf.py", tmp_path)
    monkeypatch.chdir(tmp_path)

    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, snippet in enumerate(snippets, 1):
            exec(compile(snippet, f"README.md, snippet {number}", "exec"), names)

    losses = [float(value) for value in re.findall(r"loss (\d+\.\d+)", printed.getvalue())]
    assert len(losses) == 10
    assert losses[-1] < losses[0], "fine-tuning learns"


def test_files_that_the_readme_names_exist(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (repository / link).exists(), link
