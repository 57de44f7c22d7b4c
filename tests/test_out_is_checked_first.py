"""Every command checks `--out` before anything else: none computes for hours and then cannot write."""

import inspect
import shlex
import sys
from pathlib import Path

import pytest

from c2l_models import cli
from c2l_models.commands import COMMANDS
from c2l_models.optional_training import TRAINING_COMMANDS

pytestmark = pytest.mark.training

FILES = {
    "check-leakage": "none.csv --weights resnet18 --out",
    "embed": "none --out",
    "search": "none.png --in none.parquet --out",
    "convert": "none.pth --arch resnet18 --out",
    "export": "none.safetensors --format onnx --out",
    "atlas": "none.parquet --out",
    "benchmark": "step --recipe none --out",
}
"""Commands that write a file. All their inputs are missing, so an error about `--out` shows that it comes first."""
FOLDERS = {
    "download": "none --to",
    "publish": "none --dry-run --namespace NAME --out",
    "prepare": "--source folder=none --out",
    "join": "none --out",
    "pretrain": "smoke --store none --out",
    "slim": "none --out",
    "curves": "none --out",
    "average": "none --out",
    "release": "none --tag none --out",
    "probe": "none --store none --out",
    "compare": "none --store none --out",
    "few-shot": "none --store none --out",
    "finetune": "chestxray14 --store none --init none --out",
    "detect": "rsna --init none --data none --out",
    "look": "none --store none --out",
    "reproduce": "table1 --data none --out",
    "demo": "--images none --out",
}
"""Commands that write a folder."""
READ_ONLY = {"list", "info", "verify", "doctor"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a file and a folder with a file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("precious", encoding="utf-8")
    return tmp_path


def error_of(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that the command prints, after which nothing is changed or new."""
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(words))
    printed = capsys.readouterr()
    assert stop.value.code == 2, printed.err
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    return line


def test_every_command_is_listed() -> None:
    assert FILES.keys() | FOLDERS.keys() | READ_ONLY == COMMANDS.keys() | TRAINING_COMMANDS.keys()
    for name in READ_ONLY:
        assert not {"out", "to"} & inspect.signature(COMMANDS[name]).parameters.keys()


UNWRITABLE = [
    "file/below",
    pytest.param("/proc/none", marks=pytest.mark.skipif(sys.platform != "linux", reason="a file system of Linux")),
]


@pytest.mark.parametrize("out", ["full", "none/none", *UNWRITABLE])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str], name: str, out: str) -> None:
    line = error_of(f"{name} {FILES[name]} {out}", capsys)
    assert line.startswith(f"c2l: --out {out}: ")


@pytest.mark.parametrize("out", ["file", *UNWRITABLE])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str], name: str, out: str) -> None:
    line = error_of(f"{name} {FOLDERS[name]} {out}", capsys)
    option = FOLDERS[name].split()[-1]
    assert line.startswith(f"c2l: {option} {out}: ")
