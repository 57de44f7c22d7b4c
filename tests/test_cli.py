"""The `c2l` command: help without heavy imports, and one-line errors."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from labelled_films import draw_films
from PIL import Image

import c2l_models
from c2l_models import cli
from c2l_models.commands import COMMANDS
from c2l_models.optional_training import TRAINING_COMMANDS
from c2l_models.overview import GROUPS

WATCHED = """
import sys
from c2l_models import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code or 0
else:
    status = 0
names = {name.partition(".")[0] for name in sys.modules} | {"c2l_models.training"} & sys.modules.keys()
print("status", status, "imported", *sorted(names))
"""


def c2l(*arguments):
    """Run the command in a new process."""
    return subprocess.run(
        [sys.executable, "-c", "from c2l_models.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


HEAVY = {"torch", "timm", "torchvision", "sklearn", "matplotlib"}
LIGHTER = {"huggingface_hub", "numpy", "PIL", "pyarrow", "safetensors"}


@pytest.mark.parametrize(
    ("arguments", "kept_out"),
    [
        (["--help"], HEAVY | LIGHTER),
        (["list"], HEAVY | LIGHTER),
        (["info", "resnet18.imagenet"], HEAVY | LIGHTER),
        (["download", "--help"], HEAVY | LIGHTER),
        (["embed", "--help"], HEAVY | LIGHTER),
        (["pretrain", "--help"], HEAVY),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_where_nothing_is_computed(arguments, kept_out):
    done = subprocess.run([sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True)
    last = done.stdout.splitlines()[-1].split()
    assert last[:3] == ["status", "0", "imported"], done.stdout + done.stderr
    assert kept_out & set(last) == set()


def test_embed_imports_only_what_it_uses(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    arguments = ["embed", str(tmp_path / "a.png"), "--out", str(tmp_path / "a.npz"), "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True)
    last = done.stdout.splitlines()[-1].split()
    assert last[:3] == ["status", "0", "imported"], done.stdout + done.stderr
    assert {"torch", "timm"} <= set(last)
    # timm itself imports torchvision, and with it torch._dynamo, sympy and triton.
    unused = {"sklearn", "scipy", "matplotlib", "pandas", "tensorboard", "torchmetrics", "jinja2", "pydicom", "onnx"}
    assert unused & set(last) == set()
    assert "c2l_models.training" not in last


def test_python_exits_without_a_search_for_garbage(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    # The function that is registered first runs last.
    last = "print(gc.isenabled(), len(gc.get_objects()), gc.get_freeze_count())"
    script = f"import atexit, gc; atexit.register(lambda: {last})\n{WATCHED}"
    arguments = ["embed", str(tmp_path / "a.png"), "--out", str(tmp_path / "a.npz"), "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    enabled, searched, skipped = done.stdout.split()[-3:]
    assert enabled == "True"
    assert int(searched) < 1000 < 100_000 < int(skipped)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    for name in COMMANDS | TRAINING_COMMANDS:
        assert re.search(rf"\b{name}\b", text), name


def test_every_command_is_in_one_group():
    assert sorted(name for names in GROUPS.values() for name in names.split()) == sorted(COMMANDS | TRAINING_COMMANDS)


def test_a_wrong_command_and_none(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["emebd"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert (
        error == "c2l: expected a command, found 'emebd'; did you mean `c2l embed`? `c2l --help` lists the commands\n"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "embed" in capsys.readouterr().out


def test_embed_and_search_of_files_and_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_films(tmp_path / "a")
    draw_films(tmp_path / "b")
    few = ["a/00.png", "a/01.png", "a/00.png"]
    for film in (tmp_path / "b").iterdir():
        if film.name > "02":
            film.unlink()
    cli.main(["embed", *few, "b", "--out", "features.parquet", "--model", "resnet18.c2l_open26k"])
    assert "4 films" in capsys.readouterr().out
    table = c2l_models.Embeddings.load("features.parquet")
    assert list(map(str, table.paths)) == ["a/00.png", "a/01.png", "b/00.png", "b/01.png"]
    cli.main(["search", "b", "a/02.png", "--in", "features.parquet", "-k", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == ["b/00.png", "b/01.png", "a/02.png"]
    assert lines[1] == "1.0000  a/00.png  (a copy of the query: same bytes)"
    for arguments, message in ((["embed"], "at least one FILM or FOLDER"), (["search", "--in", "f"], "one FILM")):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert message in capsys.readouterr().err


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"c2l-models {c2l_models.__version__}\n"


def test_pretrain_lists_recipes(capsys):
    cli.main(["pretrain", "--help"])
    text = capsys.readouterr().out
    assert "--resume" in text
    for name in ("paper-resnet18", "paper-densenet121", "open15k-resnet18", "smoke"):
        assert name in text


def test_list_and_info(capsys):
    weights = c2l_models.get_weights("resnet18.c2l_open26k")
    figure, value = next((name, metric["value"]) for name, metric in weights.metrics.items())
    cli.main(["list"])
    listed = capsys.readouterr().out
    assert f"resnet18.c2l_open26k: {weights.input_size[-1]} pixels, {weights.license}" in listed
    assert f"{figure}: {value:.4f} (" in listed
    assert all(source in listed for source in weights.trained_on)
    cli.main(["info", "resnet18.c2l_open26k"])
    printed = capsys.readouterr().out
    assert weights.sha256 in printed
    assert all(part in printed for part in ("store_sha256", "versions", "queue_length", "7,855 of chestxray14"))


def test_verify_of_all_releases_is_a_line_each(capsys, monkeypatch):
    from c2l_models import verification

    found = {
        "resnet18.a": verification.Verification("resnet18.a", True, 1e-7, 1.0, True),
        "resnet18.b": verification.Verification("resnet18.b", True, 0.5, 0.9, False),
        "resnet18.c": c2l_models.WeightsNotFound("no file"),
    }

    def check(name):
        if isinstance(found[name], Exception):
            raise found[name]
        return found[name]

    monkeypatch.setattr(verification, "verify", check)
    for names, good in ((["resnet18.a"], True), (["resnet18.a", "resnet18.b"], False), (["resnet18.c"], False)):
        monkeypatch.setattr(c2l_models, "list_weights", lambda names=names: names)
        if good:
            cli.main(["verify"])
        else:
            with pytest.raises(SystemExit) as stop:
                cli.main(["verify"])
            assert stop.value.code == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(":")[0] for line in lines] == names
        assert [line.endswith(": ok") for line in lines] == [name == "resnet18.a" for name in names]
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", "resnet18.c"])
    assert stop.value.code == 2


def test_check_leakage_counts_cleans_and_exits_with_one(tmp_path, capsys):
    weights = c2l_models.get_weights("resnet18.c2l_open26k")
    seen = json.loads(weights.path().with_suffix(".json").read_text())["patients"]["chestxray14"][0].partition(":")[2]
    (tmp_path / "list.txt").write_text(f"{seen}_000.png\n00030805_000.png\nsecret name 7\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(f"check-leakage {tmp_path}/list.txt --weights resnet18.c2l_open26k --out {tmp_path}/clean.txt".split())
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert re.search(r"seen +1 +1 +1\nnot seen +1 +1 +1\nunknown form +1 ", out)
    assert f"patients seen: chestxray14:{seen}" in out
    assert "unknown form: line 3" in out
    assert "secret" not in out
    assert (tmp_path / "clean.txt").read_text() == "00030805_000.png\n"
    cli.main(["check-leakage", str(tmp_path / "clean.txt"), "--weights", "resnet18.c2l_open26k"])  # none seen: status 0


def test_convert_tells_what_it_dropped(tmp_path, capsys):
    import timm
    import torch

    from c2l_models.publishing.safe_pickle import SAFE_TORCH

    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        pytest.skip("such a torch is refused")
    torch.manual_seed(0)  # some random networks' features move by more than is allowed
    torch.save({"model": timm.create_model("resnet18", num_classes=3).state_dict()}, tmp_path / "a.pth")
    cli.main(f"convert {tmp_path}/a.pth --arch resnet18 --out {tmp_path}/resnet18.b.safetensors --size 64".split())
    out = capsys.readouterr().out
    assert "found the student at model, 11,176,512 parameters\ndropped: model.fc (2)\n" in out
    assert "0.485 0.456 0.406 and std 0.229 0.224 0.225 folded into 0.449 and 0.226" in out
    weights = c2l_models.Weights.from_file(tmp_path / "resnet18.b.safetensors")
    assert (weights.name, weights.input_size) == ("resnet18.b", (3, 64, 64))


def test_search_prints_the_nearest_and_draws_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_films(tmp_path / "films")
    cli.main(["embed", "films", "--out", "features.parquet", "--model", "resnet18.c2l_open26k"])
    (tmp_path / "films" / "79.png").unlink()
    capsys.readouterr()
    cli.main(["search", "films/00.png", "--in", "features.parquet", "-k", "79", "--out", "sheet.png"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 80
    assert lines[-1] == "sheet.png; 1 file left out"
    assert "films/00.png" not in printed.out
    cosines = [float(line.split()[0]) for line in lines[:-1]]
    assert cosines == sorted(cosines, reverse=True)
    assert printed.err == "left out films/79.png: no such file\n"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


WRONG = {
    "unknown release": (["info", "resnet18.nothing"], "nothing"),
    "unknown recipe": (["pretrain", "nothing", "--store", "s", "--out", "o"], "paper-resnet18"),
    "no store": (["pretrain", "smoke", "--store", "absent-store", "--out", "o"], "absent-store"),
    "source without =": (["prepare", "--source", "films", "--out", "o"], "NAME=DIR"),
    "unknown data set": (["prepare", "--source", "mammograms=.", "--out", "o"], "mammograms"),
    "no list": (["check-leakage", "absent.csv", "--weights", "resnet18.c2l_open26k"], "absent.csv"),
    "no checkpoint": (["convert", "absent.pth", "--arch", "resnet18", "--out", "o.safetensors"], "absent.pth"),
    "no features": (["search", "a.png", "--in", "absent.parquet"], "absent.parquet"),
    "no run": (["export", "absent-run", "--out", "o.safetensors"], "absent-run"),
    "recipe out of range": (
        ["pretrain", "smoke", "--store", "s", "--out", "o", "--recipe.batch-size", "33"],
        "batch_size",
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.training] * (case == "no store")) for case in WRONG]
)
def test_an_error_is_one_line(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, named = WRONG[case]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2  # as for a wrong flag
    message = capsys.readouterr().err
    assert message.startswith("c2l: ")
    assert named in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_exit_status_of_an_error():
    done = c2l("info", "resnet18.nothing")
    assert done.returncode == 2  # as the docstring says, and as a wrong flag gives
    assert done.stderr.startswith("c2l: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/mine/log.jsonl")

    monkeypatch.setitem(COMMANDS, "list", full)
    with pytest.raises(SystemExit) as stop:
        cli.main(["list"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "c2l: runs/mine/log.jsonl: No space left on device; free some space, then run the same command again\n"
    )
