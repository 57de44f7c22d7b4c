"""A folder in which a process was killed while it wrote its first file."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from c2l_models.errors import RunError
from c2l_models.files import is_temporary
from c2l_models.training.detection.detect import _open_folder
from c2l_models.training.detection.settings import Settings as DetectionSettings
from c2l_models.training.finetuning.finetuning_folder import open_folder
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.run_files.run_folder import RANDOM_INITIALIZATION, create_run_folder
from c2l_models.training.run_files.run_lock import LOCK

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
