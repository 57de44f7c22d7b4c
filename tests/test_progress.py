"""Progress: shown at once on a terminal, with the time that is left; hidden elsewhere, and by --quiet."""

import os
import subprocess
import sys

import pytest

from c2l_models import progress
from c2l_models.optional_training import TRAINING_COMMANDS
from c2l_models.progress import new_display, report, seconds_left, stage

FIRST_LINE = """
import importlib.abc, os, sys
from c2l_models import cli

class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "timm", "sklearn", "matplotlib", "huggingface_hub", "pyarrow"):
            sys.stderr.flush()
            os.write(2, f"BEFORE {name}".encode())
            os._exit(0)

sys.meta_path.insert(0, Stop())
cli.main(sys.argv[1:])
"""
"""Run a command up to its first import of a large library."""


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "_quiet", False)


SLOW = {
    "embed": "embed films",
    "search": "search films --in x.parquet",
    "convert": "convert a.pth --arch resnet18 --out resnet18.a.safetensors",
    "export": "export resnet18.c2l_open26k --out x.pt2",
    "publish": "publish resnet18.c2l_open26k --namespace owner",
    "verify": "verify",
    "prepare": "prepare --source folder=films --out store",
    "pretrain": "pretrain smoke --store store --out run",
    "average": "average shares.toml --out run",
    "curves": "curves run --out curves",
    "release": "release run --tag t --out probes",
    "probe": "probe random --store store --out probe",
    "compare": "compare random --store store --out comparison",
    "few-shot": "few-shot random --store store --out few",
    "finetune": "finetune folder --init random --store store --out run",
    "detect": "detect rsna --init random --data data --out run",
    "look": "look random --store store --out look",
    "atlas": "atlas x.parquet --out atlas.html",
    "reproduce": "reproduce table1 --data . --out tables",
    "demo": "demo",
}


def started(line, folder, *options, **environment):
    (folder / "films").mkdir()
    (folder / "films" / "a.png").touch()
    (folder / "x.parquet").touch()
    command = [sys.executable, "-c", FIRST_LINE, *line.split(), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, env=os.environ | environment)
    return done.stderr.decode()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.training] * (name in TRAINING_COMMANDS)) for name in SLOW]
)
def test_a_line_is_shown_before_the_first_large_import(tmp_path, name):
    shown, _, library = started(SLOW[name], tmp_path, FORCE_COLOR="1").partition("BEFORE ")
    assert library, shown
    assert ("loading" if name == "demo" else name) in shown


def test_quiet_and_no_terminal(tmp_path):
    for folder, options, environment in (("a", ["--quiet"], {"FORCE_COLOR": "1"}), ("b", [], {})):
        (tmp_path / folder).mkdir()
        assert started(SLOW["embed"], tmp_path / folder, *options, **environment) == "BEFORE timm"


@pytest.mark.parametrize(
    ("elapsed", "before", "completed", "total", "left"),
    [
        (10, 0, 1, 5, 40),  # 10 s for each of 4 more
        (10, 100, 105, 200, 190),  # a resumed run: 5 of the 105 took 10 s
        (10, 0, 5, 5, 0),
        (10, 0, 0, 5, None),  # nothing is done yet
        (10, 100, 100, 200, None),
        (10, 0, 3, None, None),  # the amount of work is unknown
    ],
)
def test_seconds_left(elapsed, before, completed, total, left):
    assert seconds_left(elapsed, before, completed, total) == left


def test_a_line_shows_count_unit_and_time_left(terminal):
    clock = [0.0]
    display = new_display(get_time=lambda: clock[0])
    task = display.add_task("[x] films", total=2000, completed=1000, unit="images", before=1000, note="loss [0.5]")
    clock[0] = 60.0
    display.advance(task, 250)
    with display.console.capture() as capture:
        display.console.print(display.get_renderable())
    assert "[x] films" in capture.get()
    assert "1,250/2,000 images" in capture.get()
    assert "0:03:00 left" in capture.get()  # 250 took 60 s, 750 are left
    assert "loss [0.5]" in capture.get()


def test_stages_within_stages(terminal, capsys):
    with stage("outer", show=True), stage("inner", 3, "images") as line:
        line.advance()
    shown = capsys.readouterr().err
    assert "outer" in shown
    assert "inner" in shown
    with stage("outer", show=False), stage("inner", show=True):
        report("a network is done")
    with stage("alone"):
        pass
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="stop"), stage("outer", show=True):
        raise ValueError("stop")
    assert progress._display._progress is None  # the terminal is restored


def test_reports(terminal, capsys):
    report("a network is done")
    assert capsys.readouterr().err == "a network is done\n"
    progress.be_quiet()
    with stage("outer", show=True):
        report("a network is done")
    assert capsys.readouterr().err == ""


def test_results_reach_stdout_while_a_stage_is_shown():
    code = "from c2l_models.progress import stage\nwith stage('x', show=True): print('result')"
    environment = os.environ | {"FORCE_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout == b"result\n"


def test_only_the_first_process_of_torchrun_shows_progress(terminal, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with stage("pretrain", show=True):
        pass
    assert capsys.readouterr().err == ""
