"""A run's state: implausible metrics, and the error that reports them."""

import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from c2l_models.errors import RunError
from c2l_models.training.batches import batch_rows, training_rows
from c2l_models.training.callbacks import RunCallbacks
from c2l_models.training.distributed import ALONE
from c2l_models.training.pretrain import train
from c2l_models.training.run import Run
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.interruption import StopRequest
from c2l_models.training.run_files.log import RunLog

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture
def run(tiny_recipe, tiny_store, tmp_path):
    made = a_run(tiny_recipe, tiny_store, tmp_path / "run")
    made.start_or_resume(resume=False)
    return made


def a_run(recipe, store, folder, device="cpu"):
    """A run on one process."""
    return Run(recipe, store, training_rows(recipe, store), folder, ALONE, torch.device(device))


def check_metrics(run):
    """Check the metrics as between two steps, and return them."""
    with RunLog(run.folder, 10, progress=False) as log:
        RunCallbacks(run, log, StopRequest(), math.inf).check_metrics()
    return run.group.read()


def add(run, total=3.0, loss_a=3.0, loss_m=6.0):
    run.step += 1
    names = {"loss": total, "loss_a": loss_a, "loss_m": loss_m, "top1": 0.5, "spread": 1.0}
    run.group.add(8, 0.0, {name: torch.tensor(value) for name, value in names.items()})


def test_the_setting_up_of_a_run_is_not_its_steps_time(run):
    """A distillation's targets, a plan of the memory and a store's copy to a GPU take minutes before the first step."""
    run.group.began -= 3600
    train(run, SimpleNamespace(before_step=lambda *_: None, after_step=lambda *_: True))
    assert time.perf_counter() - run.group.began < 1800


# The cross entropy of a key at a right angle to the query, if all 37 rows of the queue equal the query.
HIGHEST = math.log(1 + 37 * math.exp(1 / 0.07))


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"total": math.nan}, "the loss is nan"),
        ({"loss_a": math.inf}, "the loss is 3"),
        ({"total": 12.0, "loss_a": HIGHEST + 0.1}, "the loss is 12"),
        ({"total": 15.0, "loss_m": 2 * HIGHEST + 0.1}, "the loss is 15"),
    ],
)
def test_a_broken_step_is_named_with_its_images(run, tiny_recipe, tiny_store, broken, problem):
    rows = training_rows(tiny_recipe, tiny_store)
    for step in range(7):
        add(run, **(broken if step == 4 else {}))
    with pytest.raises(RunError, match=f"step 5: {problem}"):
        check_metrics(run)
    failure = json.loads((run.folder / "failure.json").read_text())
    expected = batch_rows(rows, tiny_recipe, 4)
    assert (failure["step"], failure["rows"]) == (5, expected.tolist())
    assert failure["paths"] == [tiny_store.index["path"][int(row)].as_py() for row in expected]


def test_the_worst_that_a_sane_run_can_have_is_let_pass(run, tiny_recipe, tiny_store):
    add(run, loss_a=HIGHEST - 1e-3, loss_m=2 * HIGHEST - 1e-3)
    add(run)
    metrics = check_metrics(run)
    assert metrics.shape == (2, 5)


def test_weights_that_are_not_finite_are_noticed_where_the_loss_is(run, tiny_recipe, tiny_store):
    add(run)
    with torch.no_grad():
        next(run.method.student.parameters())[0] = math.inf
    with pytest.raises(RunError, match="step 1: weights are not finite"):
        check_metrics(run)


def test_a_run_goes_on_where_its_checkpoint_is(run, tiny_recipe, tiny_store):
    add(run)
    run.record_probe({"folder": 0.75})
    run.group.read()
    assert run.save() == ""
    again = a_run(tiny_recipe, tiny_store, run.folder)
    assert again.start_or_resume(resume=True) == ()
    assert (again.step, again.best, again.best_step) == (1, 0.75, 1)
    assert torch.equal(again.group.read(), run.group.read())
    with pytest.raises(RunError, match="exists"):
        a_run(tiny_recipe, tiny_store, run.folder).start_or_resume(resume=False)
    other = Run(
        replace(tiny_recipe, seed=1),
        tiny_store,
        training_rows(tiny_recipe, tiny_store),
        run.folder,
        ALONE,
        torch.device("cpu"),
    )
    with pytest.raises(RunError, match="seed: began with 0, now 1"):
        other.start_or_resume(resume=True)


def test_a_run_from_before_a_key_or_a_section_was_there_goes_on(run, tiny_recipe, tiny_store):
    state = checkpoint.load(run.folder).state
    del state["recipe"]["restoration"], state["recipe"]["method"], state["recipe"]["objective"]["shuffle_bn"]
    checkpoint.save(run.folder, state, 0, keep=1)
    assert a_run(tiny_recipe, tiny_store, run.folder).start_or_resume(resume=True) == ()
    with pytest.raises(RunError, match="method: began with 'c2l', now 'moco'"):
        a_run(replace(tiny_recipe, method="moco"), tiny_store, run.folder).start_or_resume(resume=True)


def test_only_a_higher_probe_is_the_best(run):
    for step, score, best in ((1, 0.6, 0.6), (2, 0.5, 0.6), (3, 0.7, 0.7)):
        run.step = step
        run.record_probe({"one": score, "two": score})
        run.save()
        assert run.best == pytest.approx(best)
        names = [path.name for path in (run.folder / "checkpoints").glob("best-*")]
        assert len(names) == 1
        assert f"step-{1 if step < 3 else 3:09d}" in names[0]
