"""The training loop: the order of Algorithm 1, a run folder, and errors."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from c2l_models.errors import DatasetError, RunError
from c2l_models.training.augment import two_views
from c2l_models.training.batches import epoch_order, training_rows
from c2l_models.training.distributed import ALONE
from c2l_models.training.objectives import build
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.pretrain import pretrain, train_step
from c2l_models.training.recipe import Objective
from c2l_models.training.run import Run
from c2l_models.training.run_files import checkpoint, log

pytestmark = pytest.mark.usefixtures("one_thread")


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
            assert off < 0.05, name  # small groups amplify float32's rounding in the backward pass


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
def test_fewer_images_than_a_batch(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(tiny_recipe, batch_size=64, queue_length=200)
    with pytest.raises(DatasetError, match=r"at least one batch of 64 images to train on, found 44;"):
        pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert not (tmp_path / "run").exists()
