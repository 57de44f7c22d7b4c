"""A run's folder: one in which a process was killed while it wrote its first file, and a recipe that cannot be read."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from c2l_models.errors import RunError
from c2l_models.files import is_temporary
from c2l_models.training.detection.detect import _open_folder
from c2l_models.training.detection.settings import Settings as DetectionSettings
from c2l_models.training.finetuning.finetuning_folder import open_folder
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.reproduce.pretraining import began_with
from c2l_models.training.run_files.compared_curves import monitored
from c2l_models.training.run_files.run_folder import RANDOM_INITIALIZATION, create_run_folder
from c2l_models.training.run_files.run_lock import LOCK
from c2l_models.training.run_files.run_section import run_facts, training_curves
from c2l_models.training.run_plan import fit_steps

KILLED = """
import os, signal, sys
from pathlib import Path
from c2l_models.files import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"{")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path):
    """Kill a process within `atomic_file`; the lock of its folder stays."""
    (path.parent / LOCK).touch()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = {file for file in path.parent.iterdir() if file.name != LOCK}
    return left


@pytest.mark.parametrize("kind", ["pretrain", "finetune", "detect"])
def test_a_run_that_was_killed_in_its_first_write_resumes(tiny_recipe, tiny_store, tmp_path, kind):
    def begin():
        if kind == "pretrain":
            device = torch.device("cpu")
            create_run_folder(tmp_path, tiny_recipe, RANDOM_INITIALIZATION, tiny_store, device, again=True)
        elif kind == "finetune":
            open_folder(tmp_path, {"settings": Settings().to_dict()})
        else:
            _open_folder(tmp_path, {"settings": DetectionSettings().to_dict()})

    left = kill_while_writing(tmp_path / ("recipe.json" if kind == "pretrain" else "settings.json"))
    assert is_temporary(left)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError):  # of somebody else
        begin()
    (tmp_path / "notes.txt").unlink()
    begin()
    assert not left.exists()


@pytest.mark.parametrize("name", [".notes.txt", "recipe.json.host-12.part", ".part", ".a.part", "recipe.json"])
def test_other_names_are_not_temporary(tmp_path, name):
    assert not is_temporary(tmp_path / name)


@pytest.mark.parametrize("content", [None, "{"])
def test_every_reader_of_a_recipe_says_that_it_is_missing_or_damaged(tiny_run, tiny_recipe, tmp_path, content):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "recipe.json").unlink()
    readers = [monitored, run_facts, training_curves, began_with]
    if content:
        (run / "recipe.json").write_text(content)
        cosine = replace(tiny_recipe, optimizer=replace(tiny_recipe.optimizer, schedule="cosine"))
        readers.append(lambda folder: fit_steps(cosine, None, torch.device("cpu"), 60, folder))
    for read in readers:
        with pytest.raises(RunError, match=r"recipe\.json cannot be read: .*; restore it, or move .*run away"):
            read(run)
