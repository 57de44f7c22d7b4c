"""Every Python snippet of the README runs as it stands, in its order, in a folder of synthetic films.

The section on the hub runs in processes of its own, the lines of its `c2l` too: its hub is the stand-in.
"""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from hub_clients import C2L, python
from hub_stand_in import HubStandIn

from c2l_models.radiographs.phantom import write_films

HUB = "From the hub"

AGREE = """
import torch
films = torch.rand(2, 1, 64, 64)
models = c2l_models.resnet18(pretrained=True, in_chans=1), by_timm, by_name, by_folder
with torch.inference_mode():
    features, *others = (model.eval()(films) for model in models)
for other in others:
    torch.testing.assert_close(other, features, rtol=1e-5, atol=1e-5)
"""


def sections(repository: Path) -> dict[str, str]:
    """The README's text under each of its titles."""
    _, *parts = re.split(r"^## (.+)$", (repository / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("timm_reads_folders")
def test_python_snippets_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = blocks("python", "".join(text for title, text in sections(repository).items() if title != HUB))
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


def test_the_hub_gives_back_what_was_published(repository: Path, tmp_path: Path) -> None:
    text = sections(repository)[HUB]
    lines = [line for block in blocks("bash", text) for line in block.splitlines() if line.startswith("c2l ")]
    assert [line.split()[1] for line in lines] == ["publish", "download"]
    with HubStandIn() as hub:
        for line in lines:
            _, *arguments = shlex.split(line, comments=True)
            done = python(C2L, *arguments, cwd=tmp_path, endpoint=hub.endpoint)
            assert done.returncode == 0, done.stderr
        done = python("\n".join([*blocks("python", text), AGREE]), cwd=tmp_path, endpoint=hub.endpoint, token=None)
        assert done.returncode == 0, done.stderr
        assert list(hub.repositories) == ["NAME/resnet18.c2l_open15k"]


def test_files_that_the_readme_names_exist(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (repository / link).exists(), link
