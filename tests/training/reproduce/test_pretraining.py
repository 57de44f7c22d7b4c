"""An existing pretraining is reused if it is the row's, resumed if interrupted, and refused if it is another run."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

from c2l_models.errors import DatasetError, RunError
from c2l_models.training import pretrain as loop
from c2l_models.training.recipe import Augment, Optimizer
from c2l_models.training.recipe_files import from_dict
from c2l_models.training.reproduce.pretraining import ensure_pretrained, store_of_run, training_seconds
from c2l_models.training.run_files.checkpoint import load, save
from c2l_models.training.run_files.identity import check_same_pretraining, pretraining_identity

run = partial(loop.pretrain, device="cpu", resume=True, progress=False)


def refuse(*_):
    pytest.fail("the run exists, but pretraining was called")


@pytest.fixture
def finished(small_run, tmp_path):
    """A copy of a run that the user started, so it has its recipe's own name."""
    return shutil.copytree(small_run, tmp_path / "row-seed0")


def test_a_finished_run_is_used(finished, tiny_recipe, tiny_store):
    row = replace(tiny_recipe, name="row", description="another", table="Table 9", probe_every=1, log_every=1)
    done = ensure_pretrained(row, tiny_store, finished, refuse)
    assert done.folder == finished
    assert (done.images, done.patients) == (44, 22)
    assert done.store_sha256 == tiny_store.sha256 == store_of_run(finished)
    assert done.seconds == training_seconds(finished, tiny_recipe) > 0


def test_a_run_on_more_processes_is_used(finished, tiny_recipe, tiny_store):
    """torchrun gives each process a block of mixup, which changes recipe.json."""
    written = json.loads((finished / "recipe.json").read_text()) | {"mixup_blocks": 4}
    (finished / "recipe.json").write_text(json.dumps(written))
    ensure_pretrained(tiny_recipe, tiny_store, finished, refuse)


@pytest.mark.parametrize("key", ["compile", "gradient_checkpointing"])
def test_a_run_that_only_rounds_otherwise_is_used_and_resumed(finished, tiny_recipe, tiny_store, key):
    """The options of docs/scale.md for speed and for memory."""
    written = json.loads((finished / "recipe.json").read_text())
    (finished / "recipe.json").write_text(json.dumps(written | {key: True}))
    ensure_pretrained(tiny_recipe, tiny_store, finished, refuse)
    earlier, now = (
        pretraining_identity(recipe, tiny_store, torch.device("cpu"))
        for recipe in (tiny_recipe, replace(tiny_recipe, **{key: True}))
    )
    check_same_pretraining(finished, earlier, now)


def test_an_older_runs_recipe_lacks_keys_that_have_their_defaults(finished, tiny_recipe, tiny_store):
    written = json.loads((finished / "recipe.json").read_text())
    del written["restoration"], written["method"]
    (finished / "recipe.json").write_text(json.dumps(written))
    ensure_pretrained(tiny_recipe, tiny_store, finished, refuse)


DIFFERENT = [
    ({"epochs": 3}, "epochs: began with 2, now 3"),
    ({"method": "moco"}, "method: began with 'c2l', now 'moco'"),
    ({"seed": 1}, "seed: began with 0, now 1"),
    ({"augment": Augment(rotation=3.0)}, "augment.rotation: began with 10.0, now 3.0"),
    ({"optimizer": Optimizer(lr=0.3, lr_milestones=(1,))}, "optimizer.lr_milestones: began with [1, 2], now [1]"),
]


@pytest.mark.parametrize(("changes", "difference"), DIFFERENT, ids=[next(iter(changes)) for changes, _ in DIFFERENT])
def test_another_run_in_the_way_is_told_key_by_key(finished, tiny_recipe, tiny_store, changes, difference):
    with pytest.raises(RunError) as error:
        ensure_pretrained(replace(tiny_recipe, **changes), tiny_store, finished, refuse)
    assert difference in str(error.value)
    assert str(finished) in str(error.value)
    assert str(error.value).count("began with") == 1  # nothing else is named


def test_a_run_that_was_resumed_to_export_its_teacher_is_told(finished, tiny_recipe, tiny_store):
    """recipe.json names the student still, but the teacher would be measured."""
    state = load(finished).state
    state["recipe"]["exported"] = "teacher"
    save(finished, state, state["step"], keep=1)
    with pytest.raises(RunError, match="exported: began with 'teacher', now 'student'"):
        ensure_pretrained(tiny_recipe, tiny_store, finished, refuse)


def test_a_run_on_other_images_is_told(finished, tiny_recipe, tiny_store):
    with pytest.raises(RunError, match="store_sha256"):
        ensure_pretrained(tiny_recipe, replace(tiny_store, sha256="0" * 64), finished, refuse)


def test_a_missing_run_is_begun_and_a_stopped_one_goes_on(small_networks, tiny_recipe, tiny_store, tmp_path):
    folder = tmp_path / "row-seed0"
    by_hand = replace(tiny_recipe, name="by-hand")
    loop.pretrain(by_hand, tiny_store, folder, "cpu", max_seconds=0, progress=False)
    assert load(folder).state["step"] < 10
    done = ensure_pretrained(tiny_recipe, tiny_store, folder, run)
    assert load(folder).state["step"] == 10
    assert done.images == 44
    assert from_dict(json.loads((folder / "recipe.json").read_text())).name == "by-hand"
    ensure_pretrained(tiny_recipe, tiny_store, folder, refuse)

    ensure_pretrained(tiny_recipe, tiny_store, tmp_path / "new-seed0", run)
    assert load(tmp_path / "new-seed0").state["step"] == 10


def test_damaged_folders_are_told(finished, tiny_recipe, tiny_store):
    (finished / "recipe.json").write_text("{")
    with pytest.raises(RunError, match=r"recipe\.json cannot be read"):
        ensure_pretrained(tiny_recipe, tiny_store, finished, refuse)


def test_too_few_images_are_told(small_networks, tiny_recipe, tiny_store, tmp_path):
    huge = replace(tiny_recipe, batch_size=64, queue_length=192)
    with pytest.raises(DatasetError, match="images to train on, found 44;"):
        ensure_pretrained(huge, tiny_store, tmp_path / "row", run)
