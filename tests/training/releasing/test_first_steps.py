"""A recipe's first steps: same as in `pretrain`, on one thread, without a run folder."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from c2l_models.errors import DatasetError
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe_files import load_recipe
from c2l_models.training.releasing.first_steps import first_steps, one_thread, usual_steps
from c2l_models.training.run_files import log


def logged(recipe, store, folder):
    """The loss of each step, from the log of a complete run on one thread."""
    with one_thread():
        pretrain(replace(recipe, log_every=1, probe_every=1), store, folder, "cpu", progress=False)
    return [line["loss"] for line in log.read(folder) if line["kind"] == "train"]


def test_they_are_the_runs_own(tiny_recipe, tiny_store, tiny_run):
    """ResNet-18, across the end of an epoch. Each line of the run's log has the mean of three steps."""
    losses = first_steps(tiny_recipe, tiny_store, 6, progress=False).losses
    means = [line["loss"] for line in log.read(tiny_run) if line["kind"] == "train"]
    assert means[:2] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-6)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    "other",
    [{}, {"precision": "bfloat16"}, {"views": "once"}, {"method": "moco"}],
    ids=lambda other: next(iter(other), "c2l"),
)
def test_they_are_to_the_bit_what_pretrain_logs(tiny_recipe, tiny_store, tmp_path, other):
    recipe = replace(tiny_recipe, **other)
    found = first_steps(recipe, tiny_store, progress=False)
    assert list(found.losses) == logged(recipe, tiny_store, tmp_path / "run")
    assert len(found.losses) == 10, "a recipe with fewer steps runs to its end"
    assert len(set(found.losses)) == 10


@pytest.mark.usefixtures("small_networks")
def test_they_are_made_on_one_thread_of_several(tiny_recipe, tiny_store):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert first_steps(tiny_recipe, tiny_store, 1, progress=False).threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("small_networks")
def test_another_seed_gives_others(tiny_recipe, tiny_store):
    one, other = (first_steps(replace(tiny_recipe, seed=seed), tiny_store, 3, progress=False) for seed in (0, 1))
    assert all(a != b for a, b in zip(one.losses, other.losses, strict=True))
    assert one.images != other.images


@pytest.mark.usefixtures("small_networks")
def test_the_images_are_hashed_in_their_order(tiny_recipe, tiny_store):
    rows = np.flatnonzero(tiny_store.index["split"].to_numpy() == "train")
    order = np.random.default_rng((tiny_recipe.seed, 0)).permutation(rows)[:24]
    expected = hashlib.sha256(b"".join(tiny_store.images[row].tobytes() for row in order)).hexdigest()
    assert first_steps(tiny_recipe, tiny_store, 3, progress=False).images == expected


@pytest.mark.usefixtures("small_networks")
def test_nothing_is_written_or_compiled(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: pytest.fail("compiled"))
    first_steps(replace(tiny_recipe, compile=True), tiny_store, 1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_batch_is_told(tiny_recipe, tiny_store):
    with pytest.raises(DatasetError, match=r"expected at least one batch of .* images to train on, found"):
        first_steps(replace(tiny_recipe, batch_size=64, queue_length=192), tiny_store, progress=False)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 24), ({"size": 32}, 24), ({"size": 128}, 6), ({"batch_size": 256}, 6), ({"size": 224, "batch_size": 256}, 2)],
)
def test_fewer_steps_of_what_costs_more(changes, steps):
    """24 steps of 64 images of 64 pixels; a quarter of the steps for 4 times the pixels."""
    assert usual_steps(replace(load_recipe("open15k-resnet18"), **changes)) == steps
