"""Checkpoints: the old one or the new one, never a torn one; and only this run's."""

import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from c2l_models.errors import RunError
from c2l_models.training import checkpoint
from c2l_models.training.recipe import Augment, Recipe

STATE = {"step": 7, "c2l": {"weight": torch.arange(1000.0)}, "recipe": {"name": "x", "sources": ["a", "b"]}}


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path / checkpoint.NAME, STATE)
    state = checkpoint.load(tmp_path)
    assert torch.equal(state["c2l"].pop("weight"), torch.arange(1000.0))
    assert state == {"step": 7, "c2l": {}, "recipe": {"name": "x", "sources": ["a", "b"]}}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from c2l_models.training import checkpoint
path = Path(sys.argv[1])
checkpoint.save(path, {"step": 1, "x": torch.zeros(1000)})
def save_half(state, file):
    file.write(b"PK" + bytes(1000))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = save_half
checkpoint.save(path, {"step": 2, "x": torch.ones(1000)})
"""


def test_killed_while_it_saves(tmp_path):
    path = tmp_path / checkpoint.NAME
    child = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    state = checkpoint.load(tmp_path)
    assert state["step"] == 1
    assert torch.equal(state["x"], torch.zeros(1000))
    checkpoint.save(path, {"step": 3})  # what the killed one left is in nobody's way
    assert checkpoint.load(tmp_path) == {"step": 3}


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / checkpoint.NAME
    checkpoint.save(path, STATE)
    before = path.read_bytes()

    def disk_full(state, file):
        file.write(b"PK")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"step": 8})
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_torn(tmp_path, share):
    path = tmp_path / checkpoint.NAME
    checkpoint.save(path, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)  # the command prints one line


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"step": Trap()}, tmp_path / checkpoint.NAME, pickle_module=pickle)
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read") as caught:
        checkpoint.load(tmp_path)
    assert not (tmp_path / "sprung").exists()
    assert "\n" not in str(caught.value)


def test_none(tmp_path):
    with pytest.raises(RunError, match=r"holds no checkpoint\.pt"):
        checkpoint.load(tmp_path)
    with pytest.raises(RunError, match="absent"):
        checkpoint.load(tmp_path / "absent")


def identity(recipe, sha256="a" * 64, size=128, device="cpu"):
    return {"recipe": recipe.to_dict(), "store_sha256": sha256, "store_size": size, "device": device}


def test_the_same_run_goes_on():
    recipe = Recipe("mine")
    checkpoint.check_same_run(identity(recipe), identity(recipe))
    free = replace(recipe, description="again", log_every=1, checkpoint_every=3, probe_every=0)
    checkpoint.check_same_run(identity(recipe), identity(free))


def test_another_run_is_refused_key_by_key():
    recipe = Recipe("mine")
    other = replace(recipe, seed=3, temperature=0.5, log_every=7, augment=Augment(rotation=5.0))
    with pytest.raises(RunError) as caught:
        checkpoint.check_same_run(identity(recipe), identity(other, "b" * 64, 64, "cuda"))
    message = str(caught.value)
    for part in ("seed", "temperature", "0.07", "0.5", "rotation", "store_sha256", "bbbb", "store_size", "cuda"):
        assert part in message
    for part in ("log_every", "queue_length", "brightness"):
        assert part not in message


def test_every_other_key_is_held_to():
    recipe = Recipe("mine")
    for key, value in {
        "architecture": "densenet121",
        "sources": ("folder",),
        "size": 32,
        "batch_size": 512,
        "epochs": 3,
        "queue_length": 4096,
        "teacher_momentum": 0.5,
        "mixup_alpha": 2.0,
        "batch_norm_group": 64,
        "precision": "bfloat16",
    }.items():
        with pytest.raises(RunError, match=key):
            checkpoint.check_same_run(identity(recipe), identity(replace(recipe, **{key: value})))
