"""The training loop: the order of Algorithm 1, bit-identical resuming, and errors."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import same

from c2l_models.errors import DatasetError, RunError
from c2l_models.training.augment import two_views
from c2l_models.training.batches import epoch_order, training_rows
from c2l_models.training.distributed import ALONE
from c2l_models.training.objectives import build
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.pretrain import pretrain, train_step
from c2l_models.training.probing.knn_monitor import KnnMonitor
from c2l_models.training.recipe import Objective, Optimizer
from c2l_models.training.run import Run
from c2l_models.training.run_files import checkpoint, log

TIMING = ("images_per_second", "data_wait")


@pytest.fixture(autouse=True)
def one_thread():
    """On one thread, sums are always in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# One step


def a_run(recipe, store, folder, device="cpu"):
    """A run on one process."""
    return Run(recipe, store, training_rows(recipe, store), folder, ALONE, torch.device(device))


@pytest.mark.usefixtures("small_networks")
def test_one_step_in_the_papers_order(tiny_recipe, tiny_store, tmp_path):
    """Lines 1 to 18 replayed: gradient, SGD, teacher from the new student, queue last."""
    run = pretrain(tiny_recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    state = checkpoint.load(run).state
    assert state["step"] == 1
    after = state["method"]

    def seed(kind, number):
        return int(np.random.SeedSequence((tiny_recipe.seed, kind, number, 0)).generate_state(1, np.uint64)[0])

    torch.manual_seed(seed(1, 0))
    c2l = C2L(tiny_recipe, torch.Generator().manual_seed(seed(1, 1))).to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(seed(0, 0))  # as for the first step
    before = {name: value.clone() for name, value in c2l.state_dict().items()}
    rows = epoch_order(training_rows(tiny_recipe, tiny_store), tiny_recipe, 0)[: tiny_recipe.batch_size]
    replay = c2l(*two_views(tiny_store[rows], tiny_recipe, generator), generator)
    replay.loss.total.backward()

    lr = 0.3 * 8 / 256
    for name, p in c2l.student.named_parameters():
        decayed = p.grad + 1e-4 * before[f"student.{name}"]
        student = before[f"student.{name}"] - lr * decayed  # line 16; the first step has no momentum yet
        teacher = 0.999 * before[f"teacher.{name}"] + 0.001 * student  # line 17
        torch.testing.assert_close(after[f"student.{name}"], student, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(after[f"teacher.{name}"], teacher, rtol=1e-5, atol=1e-7)
    for name, value in c2l.teacher.named_buffers():  # from the teacher's own forward passes
        torch.testing.assert_close(after[f"teacher.{name}"], value, msg=name)

    keys = after["queue.keys"]  # line 18: v_2^A, v_2^M, v_m; the other rows are unchanged
    torch.testing.assert_close(keys[:24], torch.cat(replay.keys), rtol=1e-5, atol=1e-6)
    assert torch.equal(keys[24:], before["queue.keys"][24:])
    assert after["queue.pointer"] == 24


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_step_waits_for_the_gpu(tiny_recipe, tiny_store, tmp_path):
    run = a_run(tiny_recipe, tiny_store, tmp_path / "run", "cuda")
    images = tiny_store.to("cuda")[torch.arange(tiny_recipe.batch_size, device="cuda")]
    for step in range(3):
        train_step(run.model, run.optimizer, images, run.seeded(step)).metrics()  # allocations of the first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(run.model, run.optimizer, images, run.seeded(3)).metrics()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": Objective(terms=("mixed",), mixup="separate")},
        {"method": "moco"},
        {"method": "model_genesis"},
        {"method": "model_genesis", "architecture": "densenet121"},
        {"architecture": "densenet121"},
    ],
    ids=str,
)
def test_a_checkpointed_step_ends_the_same(tiny_recipe, changes):
    """Networks with running statistics, queue and gradients are the same, to rounding."""
    ends = []
    for checkpointed in (False, True):
        recipe = replace(tiny_recipe, gradient_checkpointing=checkpointed, **changes)
        torch.manual_seed(0)
        method = build(recipe, generator=torch.Generator().manual_seed(1)).train()
        optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1)
        images = torch.randint(256, (8, 1, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
        train_step(method, optimizer, images, torch.Generator().manual_seed(3))
        gradients = {f"gradient of {name}": p.grad for name, p in method.student.named_parameters()}
        ends.append(dict(method.state_dict()) | gradients)
    for name, ours in ends[0].items():
        if ours.is_floating_point():
            off = (ours - ends[1][name]).norm() / ours.norm().clamp_min(1e-3)
            assert off < 0.03, name  # small groups amplify float32's rounding in the backward pass


def test_every_step_draws_from_a_seed_of_its_own(tiny_recipe, tiny_store, tmp_path):
    """So a run resumes without a saved random state, and processes need not exchange theirs."""
    run = a_run(tiny_recipe, tiny_store, tmp_path / "run")
    draws = [torch.rand(4, generator=run.seeded(step)).tolist() for step in (0, 1, 2, "views", 0)]
    assert draws[0] == draws[4]
    assert len({tuple(draw) for draw in draws}) == 4
    other = Run(
        replace(tiny_recipe, seed=1),
        tiny_store,
        training_rows(tiny_recipe, tiny_store),
        tmp_path / "other",
        ALONE,
        torch.device("cpu"),
    )
    assert torch.rand(4, generator=other.seeded(0)).tolist() != draws[0]


def test_compiled_networks_have_the_same_names_and_numbers(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(self))
    run = Run(
        replace(tiny_recipe, compile=True),
        tiny_store,
        training_rows(tiny_recipe, tiny_store),
        tmp_path / "run",
        ALONE,
        torch.device("cpu"),
    )
    assert compiled == [run.method.student, run.method.teacher]


# A whole run


def test_a_run_folder(tiny_run, tiny_recipe, tiny_store):
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "recipe.json",
        "initialization.json",
        "run.json",
        "log.jsonl",
        "tensorboard",
        "curves.png",
        "first_batch.png",
        "checkpoints",
    }
    assert json.loads((tiny_run / "recipe.json").read_text()) == tiny_recipe.to_dict()
    run = json.loads((tiny_run / "run.json").read_text())
    assert run["store_sha256"] == tiny_store.sha256
    assert run["versions"]["torch"] == torch.__version__.partition("+")[0]
    with Image.open(tiny_run / "curves.png") as picture:
        picture.verify()


def test_a_runs_log(tiny_run):
    lines = log.read(tiny_run)
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [3, 6, 9, 10]
    assert [line["epoch"] for line in train] == pytest.approx([0.6, 1.2, 1.8, 2.0])
    base = 0.3 * 8 / 256
    # Milestone 1: the second epoch is the first at the lower rate.
    assert [line["lr"] for line in train] == pytest.approx([base, base / 10, base / 10, base / 10])
    for line in train:
        assert line["loss"] == pytest.approx((line["loss_a"] + line["loss_m"]) / 3, rel=1e-5)
        assert 0 < line["loss_a"] < 2 * math.log(38) + 1 / 0.07
        assert 0 <= line["top1"] <= 1
        assert 0 < line["spread"] <= 1.01
    (probe,) = (line for line in lines if line["kind"] == "probe")
    assert (probe["step"], probe["epoch"]) == (10, 2)
    assert 0.7 < probe["folder"] <= 1  # images with the finding are brighter


def test_a_finished_checkpoint(tiny_run):
    state = checkpoint.load(tiny_run).state
    assert state["step"] == 10
    assert state["method"]["queue.pointer"] == 10 * 24 % 37
    torch.testing.assert_close(state["method"]["queue.keys"].norm(dim=1), torch.ones(37))
    moved = state["method"]["student.backbone.conv1.weight"] - state["method"]["teacher.backbone.conv1.weight"]
    assert moved.abs().max() > 0
    files = sorted(path.name[:14] for path in (tiny_run / "checkpoints").iterdir())
    assert files == ["best-step-0000", "step-000000000", "step-000000007", "step-000000010"]


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
@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_a_loss_that_is_not_finite_stops_the_run(tiny_recipe, tiny_store, tmp_path, log_every):
    """A broken network never replaces a sound checkpoint, whatever log_every is."""
    optimizer = replace(tiny_recipe.optimizer, lr=1e30)
    recipe = replace(tiny_recipe, optimizer=optimizer, log_every=log_every, checkpoint_every=3)
    with pytest.raises(RunError, match=r"step [12]: (weights are not finite|the loss is nan).*optimizer\.lr"):
        pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    state = checkpoint.load(tmp_path / "run").state
    assert state["step"] == 0
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    order = epoch_order(training_rows(tiny_recipe, tiny_store), tiny_recipe, 0)
    assert failure["rows"] == order[(failure["step"] - 1) * 8 : failure["step"] * 8].tolist()
    assert failure["paths"] == [tiny_store.index["path"][row].as_py() for row in failure["rows"]]
    assert all(torch.isfinite(value).all() for value in state["method"].values())


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


@pytest.mark.usefixtures("small_networks")
def test_fewer_images_than_a_batch(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(tiny_recipe, batch_size=64, queue_length=200)
    with pytest.raises(DatasetError, match=r"at least one batch of 64 images to train on, found 44;"):
        pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert not (tmp_path / "run").exists()
