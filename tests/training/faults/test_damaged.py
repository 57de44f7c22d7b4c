"""A damaged checkpoint is detected, and the previous one is used. Another run's checkpoint is refused."""

import os
from dataclasses import replace

import pytest

from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.run_folder import read_run
from c2l_models.training.run_files.run_lock import LOCK

REFUSED = 2


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "header": lambda path, size: flip(path, 2),
    "quarter": lambda path, size: flip(path, size // 4),
    "middle": lambda path, size: flip(path, size // 2),
    "last byte": lambda path, size: flip(path, -1),
    "empty": lambda path, size: os.truncate(path, 0),
    "torn early": lambda path, size: os.truncate(path, 100),
    "torn at a block": lambda path, size: os.truncate(path, 4096),
    "torn late": lambda path, size: os.truncate(path, size - 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint(half, whole, tmp_path, damage):
    """The damage is reported. The run resumes from the previous checkpoint, and ends with the same bits."""
    runs = half.copied_to(tmp_path)
    newest, before = runs.files()[-1], runs.files()[-2]
    DAMAGE[damage](newest, newest.stat().st_size)
    found = checkpoint.load(runs.folder)
    assert found.path.name.removeprefix("best-") == before.name
    assert found.passed_over[0].startswith(newest.name)
    assert runs() == 0, runs.stderr
    assert runs.events("began")[-1]["began"] == found.state["step"] == 18
    assert newest.name in runs.notes()[-1]
    runs.assert_nothing_lost(whole)


def test_all_checkpoints_damaged(half, tmp_path):
    runs = half.copied_to(tmp_path)
    files = list((runs.folder / "checkpoints").iterdir())
    for n, path in enumerate(files):
        os.truncate(path, 1000 - n)
    (runs.folder / LOCK).unlink()  # of the killed process; the next call would remove it
    before = {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()}
    assert runs() == REFUSED
    message = " ".join(runs.stderr.split())
    assert "is sound" in message
    assert all(path.name in message for path in files)
    assert {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()} == before


def test_another_recipe_is_refused(half, make_runs, tmp_path, faults_recipe):
    runs = half.copied_to(tmp_path)
    objective = replace(faults_recipe.objective, mixup="separate")
    other = make_runs(tmp_path, temperature=0.3, objective=objective, keep_checkpoints=1).recipe
    (runs.folder / LOCK).unlink()  # of the killed process; the next call would remove it
    before = {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()}
    assert runs(recipe=other) == REFUSED
    message = " ".join(runs.stderr.split())
    assert "objective.mixup: began with 'shared', now 'separate'; temperature: began with 0.07, now 0.3" in message
    assert "keep_checkpoints" not in message
    assert {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()} == before
    assert read_run(runs.folder)
