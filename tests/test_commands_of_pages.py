"""Every shell command of the pages runs from an empty folder, in the order of its page, or says here what it needs.

Python snippets are run too, and the shapes that their comments state are compared (see `test_readme` for the others).
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from c2l_models import cli
from c2l_models.embedding import Embeddings
from c2l_models.radiographs.phantom import write_films

pytestmark = pytest.mark.training

NEEDS = {
    "the public data sets": r"data/|--data data|stores/(open128|open26k|both|hands|paper)|(runs|out)/open26k",
    "the hub": r"hf-hub:|c2l publish|hf auth login",
    "a checkpoint of others": r"ckpt_epoch_240\.pth|imagenet-resnet18\.safetensors",
    "the extra [export]": r"\.onnx",
    "several GPUs": r"torchrun",
    "another environment": r"pip (install|wheel)|make (demo|test)",
}
"""Commands that the test does not run, and why."""
QUICK = {
    "pretrain": ["--max-seconds", "1"],
    "probe": ["--no-floors"],
    "finetune": ["--epochs", "1"],
    "few-shot": ["--draws", "2"],
}
"""Arguments that are added, so that the test takes seconds: a few training steps, no random networks."""
STATUSES = {"check-leakage": {0, 1, 3}}
STATED = re.compile(r"^(\w+) = .*#.*?\[(\d+), (\d+)\]", re.MULTILINE)
"""A variable, and the shape that the comment on its line states."""
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("usage", "hub", "pretraining", "downstream", "comparison")))
MORE_PAGES = ("docs/architecture.md", "docs/index.md", "docs/reproduction.md", "MODEL_CARD.md")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films of the first snippet of README.md and docs/usage.md."""
    return write_films(tmp_path_factory.mktemp("made") / "films", 60)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of the page's blocks of shell commands and Python."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a shell block, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for text in lines if (line := re.sub(r"(^|\s+)#.*", "", text).strip())]


def needs(command: str) -> list[str]:
    return [need for need, pattern in NEEDS.items() if re.search(pattern, command)]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run `c2l …` in this process, with `QUICK`; other commands in a shell."""
    words = shlex.split(command)
    if words[0] != "c2l":
        subprocess.run(["bash", "-ec", command], check=True, capture_output=True)
        return
    status = 0
    try:
        cli.main([*words[1:], *QUICK.get(words[1], [])])
    except SystemExit as stop:
        status = int(stop.code or 0)
    printed = capsys.readouterr()
    assert status in STATUSES.get(words[1], {0}), f"{command}\n{printed.out[-2000:]}\n{printed.err[-2000:]}"


def test_every_command_runs_or_says_what_it_needs(repository: Path) -> None:
    found = [line for page in (*PAGES, *MORE_PAGES) for kind, block in blocks(repository / page) if kind == "bash"
             for line in commands(block)]  # fmt: skip
    assert len(found) > 50
    for need, pattern in NEEDS.items():
        assert any(re.search(pattern, command) for command in found), f"no command needs {need} any more"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run_in_order(
    repository: Path,
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    shutil.copytree(films, "films")
    for kind, block in blocks(repository / page):
        if kind == "bash":
            for command in commands(block):
                if not needs(command):
                    run(command, capsys)


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/index.md"])
def test_stated_shapes(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.chdir(tmp_path)
    stated: dict[str, tuple[int, int]] = {}
    names: dict[str, object] = {}
    for kind, block in blocks(repository / page):
        if kind == "python" and "torch.hub" not in block and "optimizer" not in block:  # `test_readme` runs these
            exec(compile(block, page, "exec"), names)
            stated |= {name: (int(rows), int(columns)) for name, rows, columns in STATED.findall(block)}
    for name, shape in stated.items():
        value = names[name]
        value = value.features if isinstance(value, Embeddings) else value
        assert isinstance(value, np.ndarray | torch.Tensor)
        assert tuple(value.shape) == shape, name
    assert stated or page == "docs/index.md"
