"""Resuming an earlier run: the same settings are accepted, others are refused key by key."""

from dataclasses import replace
from pathlib import Path

import pytest

from c2l_models.errors import RunError
from c2l_models.training.recipe import Augment, Objective, Optimizer, Recipe
from c2l_models.training.run_files.identity import check_same_pretraining, check_same_settings, flatten

FOLDER = Path("runs/first")


def test_nested_tables_become_dotted_keys():
    assert flatten({"seed": 1, "optimizer": {"lr": 0.1, "schedule": {"kind": "step"}}, "empty": {}}) == {
        "seed": 1,
        "optimizer.lr": 0.1,
        "optimizer.schedule.kind": "step",
    }


def test_settings_that_differ_are_named_with_both_values():
    began = {"seed": 0, "optimizer": {"lr": 0.1}, "only_then": 1}
    now = {"seed": 0, "optimizer": {"lr": 0.2}, "only_now": [2]}
    with pytest.raises(RunError) as caught:
        check_same_settings(FOLDER, began, now, advice="Take another folder")
    assert str(caught.value) == (
        "runs/first holds another run. These settings differ: only_now: began with None, now [2]; "
        "only_then: began with 1, now None; optimizer.lr: began with 0.1, now 0.2. Take another folder"
    )
    check_same_settings(FOLDER, began, now, free={"only_now", "only_then", "optimizer.lr"})


def identity(recipe, sha256="a" * 64, size=128, device="cpu"):
    return {"recipe": recipe.to_dict(), "store_sha256": sha256, "store_size": size, "device": device}


def test_the_same_run_goes_on():
    recipe = Recipe("mine")
    check_same_pretraining(FOLDER, identity(recipe), identity(recipe))
    free = {"description": "again", "log_every": 1, "checkpoint_every": 3, "probe_every": 0, "keep_checkpoints": 9}
    for key, value in (free | {"recalibrate": False, "exported": "teacher", "table": "2"}).items():
        if hasattr(recipe, key):
            check_same_pretraining(FOLDER, identity(recipe), identity(replace(recipe, **{key: value})))


def test_another_run_is_refused_key_by_key():
    recipe = Recipe("mine")
    sections = {"augment": Augment(rotation=5.0), "objective": Objective(mixup="separate")}
    other = replace(recipe, seed=3, temperature=0.5, log_every=7, **sections)
    with pytest.raises(RunError) as caught:
        check_same_pretraining(FOLDER, identity(recipe), identity(other, "b" * 64, 64, "cuda"))
    message = str(caught.value)
    assert "objective.mixup: began with 'shared', now 'separate'" in message
    assert "temperature: began with 0.07, now 0.5" in message
    for part in ("seed", "augment.rotation", "store_sha256", "bbbb", "store_size", "cuda"):
        assert part in message
    for part in ("log_every", "queue_length", "brightness"):
        assert part not in message
    assert message.count("began with") == 7


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "densenet121"),
        ("sources", ("folder",)),
        ("size", 32),
        ("batch_size", 512),
        ("epochs", 3),
        ("queue_length", 4096),
        ("teacher_momentum", 0.5),
        ("mixup_alpha", 2.0),
        ("mixup_blocks", 2),
        ("batch_norm_group", 64),
        ("precision", "bfloat16"),
        ("optimizer", Optimizer(lr=0.1)),
        ("objective", Objective(terms=("clean",))),
        ("augment", Augment(flip=0.0)),
    ],
)
def test_every_other_key_is_held_to(key, value):
    recipe = Recipe("mine")
    with pytest.raises(RunError, match=key):
        check_same_pretraining(FOLDER, identity(recipe), identity(replace(recipe, **{key: value})))
