"""NaN and exploding weights: the run stops, names the step, and leaves a sound checkpoint."""

import json
from dataclasses import replace

import pytest
import torch

from c2l_models.training.batches import batch_rows, training_rows

REFUSED = 2
STEPS, PER_EPOCH = 40, 5


def assert_stopped_at(runs, step, recipe, store):
    """The error and failure.json name the step and its images, and all checkpoints are earlier and sound."""
    assert f"step {step}" in runs.stderr
    failure = json.loads((runs.folder / "failure.json").read_text())
    rows = batch_rows(training_rows(recipe, store), recipe, step - 1).tolist()
    assert failure["step"] == step
    assert failure["rows"] == rows
    assert failure["paths"] == store.index["path"].take(rows).to_pylist()
    for path in runs.files():
        state = torch.load(path, weights_only=True)
        assert state["step"] < step
        assert all(value.isfinite().all() for value in state["method"].values())
        assert all(
            value.isfinite().all()
            for parameter in state["optimizer"]["state"].values()
            for value in parameter.values()
            if isinstance(value, torch.Tensor)
        )
    assert runs.files()


def test_weights_that_turn_to_nan(make_runs, tmp_path, faults_recipe, tiny_store):
    runs = make_runs(tmp_path)
    assert runs(poison_weights={"step": 14}) == REFUSED
    assert_stopped_at(runs, 14, faults_recipe, tiny_store)
    assert runs.state()["step"] == 12


def test_an_image_that_turns_to_nan(make_runs, tmp_path, faults_recipe, tiny_store):
    """The image is among the listed images, at the step that the epoch's order predicts."""
    rows = training_rows(faults_recipe, tiny_store)
    step = next(step for step in range(STEPS) if rows[5] in batch_rows(rows, faults_recipe, step))
    runs = make_runs(tmp_path)
    assert runs(poison_image={"row": int(rows[5])}) == REFUSED
    assert_stopped_at(runs, step + 1, faults_recipe, tiny_store)


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_a_loss_that_explodes(make_runs, tmp_path, faults_recipe, tiny_store, log_every):
    """The run stops in the first epoch, whatever log_every is."""
    optimizer = replace(faults_recipe.optimizer, lr=1e30)
    keys = {"optimizer": optimizer, "log_every": log_every, "checkpoint_every": 100}
    runs = make_runs(tmp_path, **keys)
    assert runs() == REFUSED
    failure = json.loads((runs.folder / "failure.json").read_text())
    assert 1 <= failure["step"] <= PER_EPOCH
    assert_stopped_at(runs, failure["step"], replace(faults_recipe, **keys), tiny_store)
    assert "optimizer.lr" in runs.stderr
