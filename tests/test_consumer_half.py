"""Without the training pipeline, the commands of `commands/` work and the others print how to install it."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from c2l_models import get_weights
from c2l_models.commands import COMMANDS
from c2l_models.optional_training import TRAINING_COMMANDS
from c2l_models.publishing.safe_pickle import SAFE_TORCH
from c2l_models.radiographs.phantom import write_films

RELEASE = "resnet18.c2l_open26k"
DRIVER = Path(__file__).with_name("drivers") / "consumer_half.py"


@pytest.fixture(scope="module", params=["blocked", "a small file"])
def run(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory):
    """Run command lines in a folder with six films, without `c2l_models.training`, and return their results.

    "blocked": the import fails. "a small file": a copy of the repository in which the symbolic link
    `c2l_models/training` is a text file, as in a zip download; the folder `training` is beside it.
    """
    folder = tmp_path_factory.mktemp("consumer")
    root, mode = repository, "blocked"
    if request.param == "a small file":
        root, mode = folder / "copy", "present"
        shutil.copytree(repository / "c2l_models", root / "c2l_models", ignore=shutil.ignore_patterns("training"))
        (root / "c2l_models" / "training").write_text("../training")
        shutil.copytree(repository / "training", root / "training", ignore=shutil.ignore_patterns("__pycache__"))
    write_films(folder / "films", 6, size=64)
    (folder / "run").mkdir()

    def run_all(command_lines: list[list[str]]) -> list[dict[str, object]]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, "-P", str(DRIVER), str(root), mode],
            cwd=folder,
            env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            input="".join(json.dumps(line) + "\n" for line in command_lines),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    run_all.folder = folder  # type: ignore[attr-defined]
    return run_all


@pytest.mark.parametrize("run", ["blocked"], indirect=True)
def test_consumer_commands_run(run) -> None:
    seen = get_weights(RELEASE).provenance_path()
    patient = json.loads(seen.read_text())["patients"]["chestxray14"][0]
    (run.folder / "list.txt").write_text(f"{patient}\n00030805_000.png\n")
    film = next((run.folder / "films").glob("*.png")).relative_to(run.folder)
    lines = {
        "list": (["list"], 0, RELEASE),
        "info": (["info", RELEASE], 0, "store_sha256"),
        "verify": (["verify", RELEASE], 0, ": ok"),
        "doctor": (["doctor", "--device", "cpu"], 0, "no problem found"),
        "download": (["download", RELEASE, "--to", "downloaded"], 0, "model.safetensors"),
        "publish": (["publish", RELEASE, "--namespace", "owner", "--dry-run"], 0, "model.safetensors"),
        "check-leakage": (["check-leakage", "list.txt", "--weights", RELEASE], 1, f"patients seen: {patient}"),
        "embed": (["embed", "films", "--out", "features.parquet"], 0, "6 films, 512 features each"),
        "search": (["search", str(film), "--in", "features.parquet", "-k", "3", "--out", "sheet.png"], 0, "sheet.png"),
        "export": (["export", RELEASE, "--out", "a.pt2"], 0, "a.pt2"),
    }
    if tuple(map(int, torch.__version__.split(".")[:2])) >= SAFE_TORCH:
        weights = get_weights(RELEASE).state_dict()
        torch.save(weights, run.folder / "a.pth")
        command = ["convert", "a.pth", "--arch", "resnet18", "--out", "resnet18.b.safetensors", "--size", "64"]
        lines["convert"] = (command, 0, "resnet18.b.safetensors")
        assert lines.keys() == COMMANDS.keys()
    results = run([command for command, _, _ in lines.values()])
    for (name, (_, status, text)), result in zip(lines.items(), results, strict=True):
        assert result["status"] == status, (name, result)
        assert text in result["out"], (name, result)
    assert {path.name for path in run.folder.iterdir()} >= {"downloaded", "published", "features.parquet", "a.pt2"}


@pytest.mark.parametrize("run", ["a small file"], indirect=True)
def test_a_zip_download_embeds(run) -> None:
    (embedded,) = run([["embed", "films", "--out", "features.npz"]])
    assert embedded["status"] == 0, embedded
    assert "6 films, 512 features each" in embedded["out"]


def test_training_commands_are_listed_and_say_how_to_get_them(run) -> None:
    commands = [[name, "--store", "s"] for name in TRAINING_COMMANDS] + [["export", "run", "--out", "b.safetensors"]]
    listing, *results = run([["--help"], *commands])
    assert listing["status"] == 0
    text = " ".join(listing["out"].split())
    assert "need the training pipeline, which is not installed" in text
    assert "pip install '.[train]'" in text
    assert all(f" {name} " in text for name in COMMANDS | TRAINING_COMMANDS)
    for command, result in zip(commands, results, strict=True):
        feature = "exporting a run folder" if command[0] == "export" else f"`c2l {command[0]}`"
        assert result["status"] == 2, (command, result)
        assert result["err"].startswith(f"c2l: {feature} needs the training pipeline, which is not installed. Clone")
        assert "git clone -c core.symlinks=true" in result["err"]
        assert result["err"].endswith("pip install '.[train]'\n")
        assert result["err"].count("\n") == 1
        assert not result["out"]


def test_the_listed_help_is_the_commands_own() -> None:
    from c2l_models.training import commands

    own = {name: inspect.getdoc(function).splitlines()[0] for name, function in commands.COMMANDS.items()}
    assert own == TRAINING_COMMANDS
    assert set(commands.PARSE_OWN_ARGUMENTS) <= own.keys()
