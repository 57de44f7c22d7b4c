"""A run that was stopped or killed resumes to the same bits; a folder of a run is never overwritten."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import same

from c2l_models.errors import RunError
from c2l_models.training.pretrain import pretrain
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.recipe import Optimizer
from c2l_models.training.run_files import checkpoint, log

pytestmark = pytest.mark.usefixtures("one_thread")
TIMING = ("images_per_second", "data_wait")


@pytest.mark.usefixtures("small_networks")
def test_checkpoints_by_time(tiny_recipe, tiny_store, tmp_path):
    """After 0 minutes one is due with each line of the log (steps 3, 6, 9, 10) and at the end of an epoch (5)."""
    recipe = replace(tiny_recipe, checkpoint_minutes=0, checkpoint_every=0, keep_checkpoints=99, probe_every=0)
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert sorted(int(path.name[5:14]) for path in (run / "checkpoints").iterdir()) == [0, 3, 5, 6, 9, 10]


@pytest.mark.usefixtures("small_networks")
def test_stopped_by_the_clock_and_resumed_again_and_again(tiny_recipe, tiny_store, tmp_path):
    """Stop after each step, within and between epochs, and compare with a run that never stopped."""
    recipe = replace(tiny_recipe, log_every=1)
    whole = pretrain(recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
    stopped = tmp_path / "stopped"
    for step in range(1, 11):
        pretrain(recipe, tiny_store, stopped, "cpu", resume=step > 1, max_seconds=0, progress=False)
        assert checkpoint.load(stopped).state["step"] == step
    same(checkpoint.load(stopped).state, checkpoint.load(whole).state)
    assert without_timing(stopped) == without_timing(whole)


def without_timing(run):
    return [{key: value for key, value in line.items() if key not in TIMING} for line in log.read(run)]


@pytest.mark.usefixtures("small_networks")
def test_the_seed_decides(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(tiny_recipe, epochs=1)
    one, again = (pretrain(recipe, tiny_store, tmp_path / n, "cpu", progress=False) for n in ("one", "again"))
    other = pretrain(replace(recipe, seed=1), tiny_store, tmp_path / "other", "cpu", progress=False)
    same(checkpoint.load(one).state, checkpoint.load(again).state)
    assert without_timing(one)[0]["loss"] != without_timing(other)[0]["loss"]


# Killed and resumed

KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from c2l_models.training import pretrain
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.objectives import momentum_teacher
from c2l_models.training.recipe_files import from_dict

torch.set_num_threads(1)
store, run, recipe, steps = sys.argv[1:]
draw, drawn = momentum_teacher.two_views, -1  # one draw is for the picture of the first batch

def two_views(*arguments):
    global drawn
    if drawn == int(steps):
        os.kill(os.getpid(), signal.SIGKILL)
    drawn += 1
    return draw(*arguments)

momentum_teacher.two_views = two_views
pretrain.pretrain(from_dict(json.loads(recipe)), ImageStore.open(store), Path(run), "cpu", progress=False)
"""


@pytest.fixture(scope="module")
def killed_run(tiny_recipe, tiny_store, tiny_run, tmp_path_factory):
    """Killed after 9 of 10 steps, in the second epoch, two steps after the checkpoint of step 7; then resumed."""
    run = tmp_path_factory.mktemp("killed") / "run"
    arguments = [str(tiny_store.path), str(run), json.dumps(tiny_recipe.to_dict()), "9"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, env=environment)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert checkpoint.load(run).state["step"] == 7  # in mid-epoch
    assert [line["step"] for line in log.read(run)] == [3, 6, 9]  # the log is ahead of the checkpoint
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(tiny_recipe, tiny_store, run, "cpu", resume=True, progress=False)
    torch.set_num_threads(threads)
    return run


def test_a_killed_run_goes_on_to_the_same_bits(killed_run, tiny_run):
    killed, whole = checkpoint.load(killed_run).state, checkpoint.load(tiny_run).state
    assert {"method", "optimizer", "group", "step", "best"} <= killed.keys()
    assert any(name.startswith("student.") for name in killed["method"])
    assert any(name.startswith("teacher.") for name in killed["method"])
    assert {"queue.keys", "queue.pointer"} <= killed["method"].keys()
    same(killed, whole)


def test_a_killed_runs_log_is_that_of_a_whole_run(killed_run, tiny_run):
    assert without_timing(killed_run) == without_timing(tiny_run)


def test_a_finished_run_stays_as_it_is(killed_run, tiny_recipe, tiny_store):
    before = checkpoint.load(killed_run).state
    pretrain(tiny_recipe, tiny_store, killed_run, "cpu", resume=True, progress=False)
    same(checkpoint.load(killed_run).state, before)


@pytest.mark.usefixtures("small_networks")
def test_a_kill_in_a_probe_loses_no_probe(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    """A run that was killed during a probe repeats the probe."""
    recipe = replace(tiny_recipe, probe_every=1, epochs=2, checkpoint_every=2)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KnnMonitor, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    monkeypatch.setattr(KnnMonitor, "__call__", lambda self, backbone: {"folder": 0.5})
    pretrain(recipe, tiny_store, tmp_path / "run", "cpu", resume=True, progress=False)
    assert [line["epoch"] for line in log.read(tmp_path / "run") if line["kind"] == "probe"] == [1, 2]


# Errors


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_networks")
def test_an_existing_folder_is_never_written_over(tiny_recipe, tiny_store, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"run exists.*--resume"):
        pretrain(tiny_recipe, tiny_store, run, "cpu", progress=False)
    assert contents(run) == {Path("notes.txt"): b"mine"}


def test_a_resumed_run_is_the_same_run(tiny_run, tiny_recipe, tiny_store):
    before = contents(tiny_run)
    other = replace(tiny_recipe, temperature=0.3, optimizer=Optimizer(lr=0.1, lr_milestones=(1, 2)))
    with pytest.raises(RunError, match=r"(?s)lr.*temperature: began with 0\.07, now 0\.3"):
        pretrain(other, tiny_store, tiny_run, "cpu", resume=True, progress=False)
    with pytest.raises(RunError, match="store_sha256"):
        pretrain(tiny_recipe, replace(tiny_store, sha256="0" * 64), tiny_run, "cpu", resume=True, progress=False)
    assert contents(tiny_run) == before


@pytest.mark.usefixtures("small_networks")
def test_a_run_without_its_checkpoints_is_not_begun_again(small_run, tiny_recipe, tiny_store, tmp_path):
    """They are large, and may have been removed; its recipe, log and weights must stay."""
    run = shutil.copytree(small_run, tmp_path / "run")
    checkpoint.remove(run)
    before = contents(run)
    with pytest.raises(RunError, match=r"expected checkpoints to resume from, found none beside log\.jsonl"):
        pretrain(replace(tiny_recipe, temperature=0.3), tiny_store, run, "cpu", resume=True, progress=False)
    assert contents(run) == before


@pytest.mark.usefixtures("small_networks")
def test_nothing_to_resume_is_a_beginning(tiny_recipe, tiny_store, tmp_path):
    """A scheduler can restart a job by the same command, no matter when it was stopped."""
    begun = pretrain(tiny_recipe, tiny_store, tmp_path / "begun", "cpu", resume=True, progress=False)
    whole = pretrain(tiny_recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
    same(checkpoint.load(begun).state, checkpoint.load(whole).state)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="mine exists"):  # but a folder that is not a run's is not overwritten
        pretrain(tiny_recipe, tiny_store, tmp_path / "mine", "cpu", resume=True, progress=False)
    assert contents(tmp_path / "mine") == {Path("notes.txt"): b"mine"}


@pytest.mark.usefixtures("small_networks")
def test_a_run_killed_before_its_first_step_can_go_on(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("c2l_models.training.objectives.momentum_teacher.two_views", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    resumed = pretrain(tiny_recipe, tiny_store, tmp_path / "run", "cpu", resume=True, progress=False)
    whole = pretrain(tiny_recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
    same(checkpoint.load(resumed).state, checkpoint.load(whole).state)
