"""The peer benchmark: the settings it passes to the peer's interpreter, its ratios, and its errors without one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from rich.console import Console

from c2l_models.errors import C2LError
from c2l_models.training.benchmark import peer_speed as module
from c2l_models.training.benchmark.peer_speed import PeerBenchmark, run_peer, time_peer
from c2l_models.training.benchmark.timing import Machine
from c2l_models.training.objectives import build
from c2l_models.training.recipe import Recipe

CPU = torch.device("cpu")
REPORT = {"seconds": 0.5, "threads": 2, "versions": {"lightly": "1.6.0"}}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))


def interpreter(folder: Path, lines: str) -> Path:
    """A fake interpreter for the peer."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{lines}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("python", [None, Path("peer/bin/python")])
def test_without_an_interpreter_it_says_what_to_do(tiny_recipe: Recipe, tiny_folder: Path, python: Path | None) -> None:
    with pytest.raises(C2LError, match="pip install lightly torch torchvision, then --peer-python"):
        time_peer(tiny_recipe, tiny_folder, python, 8, 32, progress=False)


def test_an_interpreter_without_lightly_is_told(tiny_recipe: Recipe, tiny_folder: Path) -> None:
    """The interpreter that runs the tests has no lightly."""
    if not subprocess.run([sys.executable, "-c", "import lightly"], capture_output=True, check=False).returncode:
        pytest.skip("lightly is installed beside the project")
    with pytest.raises(
        C2LError, match=r"cannot run Lightly: ModuleNotFoundError: No module named 'lightly'.*pip install lightly"
    ):
        run_peer(Path(sys.executable), tiny_recipe, tiny_folder, 1, 0, CPU)


def test_the_peer_gets_the_same_settings(tiny_recipe: Recipe, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"echo \"$@\" > {tmp_path}/options\necho a warning\necho '{json.dumps(REPORT)}'")
    assert run_peer(python, tiny_recipe, tmp_path, steps=5, workers=3, device=CPU) == REPORT
    isolated, script, *options = (tmp_path / "options").read_text().split()
    assert isolated == "-I"  # ignores this project and PYTHONPATH
    assert Path(script) == module.SCRIPT
    assert set(options) == {
        f"--images={tmp_path}",
        "--architecture=resnet18",
        "--first-conv=conv1",
        "--classifier=fc",
        "--precision=float32",
        "--device=cpu",
        "--size=32",
        "--batch-size=8",
        "--queue-length=37",
        "--workers=3",
        "--steps=5",
        "--warm-up=9",  # this pipeline's 3, and two batches that each worker prefetches
    }


@pytest.mark.usefixtures("small_networks")
def test_both_read_the_same_files_by_turns(tiny_recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    """The fake interpreter counts the files in its folder."""
    count = (
        'for option in "$@"; do case $option in --images=*) ls "${option#--images=}" | wc -l >> counted;; esac; done'
    )
    python = interpreter(tmp_path, f"cd {tmp_path}\n{count}\necho '{json.dumps(REPORT)}'")
    result = time_peer(
        tiny_recipe, tiny_folder, python, 8, 28, files=70, steps=2, repeats=2, device="cpu", progress=False
    )
    assert (tmp_path / "counted").read_text().split() == ["70", "70"]
    assert result.seconds["peer"] == (0.5, 0.5)
    assert all(len(times) == 2 and min(times) > 0 for times in result.seconds.values())
    assert (result.files, result.distinct_images, result.side, result.size) == (70, 64, 32, 28)
    assert result.prepare_seconds > 0
    result.save(tmp_path / "peer.json")
    assert json.loads((tmp_path / "peer.json").read_text())["ratios"] == result.ratios


def test_what_is_timed_here_is_moco_and_c2l(
    tiny_recipe: Recipe, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods: list[str] = []
    monkeypatch.setattr(module, "seconds_per_step", lambda recipe, *_: methods.append(recipe.method) or 1.0)
    python = interpreter(tmp_path, f"echo '{json.dumps(REPORT)}'")
    time_peer(tiny_recipe, tiny_folder, python, 8, 32, files=8, repeats=1, device="cpu", progress=False)
    assert methods == ["moco", "c2l"]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("name", ["moco", "c2l"])
def test_the_passes_are_as_many_as_the_networks_make(tiny_recipe: Recipe, name: Literal["moco", "c2l"]) -> None:
    recipe = replace(tiny_recipe, batch_norm_group=8, method=name)
    c2l = build(recipe).train()
    passes: list[int] = []  # number of batches of 8 images
    for network in (c2l.student, c2l.teacher):
        network.register_forward_hook(lambda _, inputs, output: passes.append(len(output) // 8))
    c2l.student.projection.register_full_backward_hook(lambda _, inputs, outputs: passes.append(len(outputs[0]) // 8))
    x = torch.randn(2, 8, 1, 32, 32)
    c2l(x[0], x[1], torch.Generator()).loss.total.backward()
    assert sum(passes) == module.PASSES[name]


def test_the_ratios_are_of_images_and_of_passes() -> None:
    seconds = {"peer": (1.0, 6.0, 4.0), "moco": (0.5, 2.0, 1.0), "c2l": (2.0, 4.0, 4.0)}
    machine = Machine("a machine", 2, 2, "2.6.0", (0.5, 1.5))
    report = {"workers": 2, "threads": 2, "versions": {"lightly": "1.6.0"}}
    result = PeerBenchmark(
        "made-up", "resnet18", "films", 100, 10, 64, 9.0, 56, 20, "float32", machine, report, seconds
    )  # fmt: skip
    assert result.ratios == {"peer": 1.0, "moco": 3.0, "c2l": 1.0}
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows[0][1:] == ["5.0", "1.00 (1.00 to 1.00)", "15", "1.00 (1.00 to 1.00)"]
    assert rows[1][1:] == ["20.0", "3.00 (2.00 to 4.00)", "60", "3.00 (2.00 to 4.00)"]
    assert rows[2][1:] == ["5.0", "1.00 (0.50 to 1.50)", "30", "2.00 (1.00 to 3.00)"]


def test_the_peers_own_script_runs(tiny_recipe: Recipe, tiny_folder: Path) -> None:
    python = os.environ.get("C2L_PEER_PYTHON")
    if not python:
        pytest.skip("no peer: set C2L_PEER_PYTHON to an interpreter that has lightly, torch and torchvision")
    films = tiny_folder  # its labels.csv is not an image
    report = run_peer(Path(python), tiny_recipe, films, steps=1, workers=0, device=CPU)
    assert report["seconds"] > 0
    assert set(report["versions"]) == {"lightly", "torch", "torchvision"}


def test_the_package_never_imports_the_peer(repository: Path) -> None:
    importing = [
        path.name
        for folder in ("c2l_models", "training")
        for path in (repository / folder).rglob("*.py")
        if any(line.startswith(("import lightly", "from lightly")) for line in path.read_text().splitlines())
    ]
    assert set(importing) == {module.SCRIPT.name}
