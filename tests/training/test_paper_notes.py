"""Choices where paper and released code differ or name no value: each is a recipe key that changes the run.

Three points have no key, because there is no choice: the queue wraps round and drops no row
(test_memory_queue.py), the teacher's buffers are its own (test_networks.py), and the authors' checkpoints are
imported whichever network they hold (test_convert.py).

Two choices are not keys of a recipe: a random ResNet is timm's (test_networks.py), and the epoch of a fine-tuning is
chosen on held-out patients (the last test).
"""

from dataclasses import fields, replace

import pytest
import timm
import torch
from torch import nn

from c2l_models.training import callbacks
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.finetuning.task_split import MIN_TUNING_IMAGES
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import SECTIONS, Augment, Recipe
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.backbone import load_run_backbone

POINTS = [
    # point, key, default, another value, for a run of five small steps
    ("schedule", "batch_size", 256, 12),
    ("schedule", "epochs", 240, 2),
    ("schedule", "optimizer.lr", 0.03, 0.2),
    ("schedule", "optimizer.lr_milestones", (120, 160, 200), ()),
    ("schedule", "optimizer.schedule", "steps", "cosine"),
    ("schedule", "optimizer.warmup", 0.0, 0.5),
    ("schedule", "optimizer.lr_decay", 0.1, 0.5),
    ("queue length", "queue_length", 32768, 41),
    ("optimizer", "optimizer.name", "sgd", "adamw"),
    ("optimizer", "optimizer.momentum", 0.9, 0.0),
    ("optimizer", "optimizer.weight_decay", 1e-4, 0.1),
    ("temperature, feature dimension", "temperature", 0.07, 0.2),
    ("temperature, feature dimension", "feature_dim", 128, 8),
    ("projection", "projection", "linear", "mlp"),
    ("loss", "objective.reduction", "mean", "sum"),
    ("λ", "mixup_alpha", 1.0, 0.2),
    ("λ", "objective.mixup_lambda", "beta", "max"),
    ("λ", "objective.mixup", "shared", "separate"),
    ("λ", "mixup_blocks", 1, 4),
    ("feature mixup", "objective.feature_mixup", "before_norm", "after_norm"),
    ("when Q is updated", "objective.queue_update", "after_step", "interleaved"),
    ("ShuffleBN", "objective.shuffle_bn", True, False),
    ("ShuffleBN", "batch_norm_group", 32, 2),
    ("teacher", "teacher_momentum", 0.999, 0.5),
    ("BN statistics of the student", "recalibrate", True, False),
    ("where views are drawn", "views", "each_step", "once"),
    ("augmentation", "augment.crop_scale", (0.2, 1.0), (0.5, 1.0)),
    ("augmentation", "augment.crop_ratio", (3 / 4, 4 / 3), (1.0, 1.0)),
    ("augmentation", "augment.crop_fit", "clamp", "redraw"),
    ("augmentation", "augment.rotation", 10.0, 0.0),
    ("augmentation", "augment.brightness", 0.4, 0.0),
    ("augmentation", "augment.contrast", 0.4, 0.0),
    ("augmentation", "augment.flip", 0.5, 0.0),
    ("augmentation", "augment.cutout_holes", 3, 0),
    ("augmentation", "augment.cutout_side", 32 / 224, 0.5),
    ("exported network", "exported", "student", "teacher"),
    ("ablations", "objective.terms", ("clean", "mixed", "feature"), ("clean",)),
    ("ablations", "augment.jigsaw", 0.0, 0.5),
    ("ablations", "projection_dropout", 0.0, 0.5),
]
KEYS = [key for _, key, _, _ in POINTS]


class Backbone(nn.Module):
    """A convolution with batch norm, in place of timm's networks."""

    head_hidden_size = 16

    def __init__(self, *arguments, **keywords):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4)

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 2).flatten(1)


def value_of(recipe, key):
    section, _, name = key.rpartition(".")
    return getattr(getattr(recipe, section) if section else recipe, name)


def with_value(recipe, key, value):
    section, _, name = key.rpartition(".")
    if section:
        return replace(recipe, **{section: replace(getattr(recipe, section), **{name: value})})
    return replace(recipe, **{name: value})


@pytest.fixture(scope="module")
def outcome(tiny_recipe, tiny_store, tmp_path_factory):
    """The state of the networks, and the exported weights, after a small run with one changed key."""
    usual = replace(tiny_recipe, epochs=1, probe_every=0, checkpoint_every=1000, log_every=1000)
    usual = replace(usual, optimizer=replace(usual.optimizer, lr_milestones=(0,)), augment=Augment())
    outcomes = {}

    def run(key=None, value=None):
        if key not in outcomes:
            recipe = with_value(usual, key, value) if key else usual
            folder = tmp_path_factory.mktemp("notes") / "run"
            pretrain(recipe, tiny_store, folder, "cpu", progress=False)
            state, (backbone, _) = checkpoint.load(folder).state["method"], load_run_backbone(folder, tiny_store)
            outcomes[key] = [flat(state.values()), flat(backbone.state_dict().values())]
        return outcomes[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", Backbone)
        patch.setattr(callbacks, "draw_curves", lambda *_: None)
        patch.setattr(callbacks, "draw_first_batch", lambda *_: None)
        yield run


def flat(tensors):
    return torch.cat([tensor.double().flatten() for tensor in tensors])


@pytest.mark.parametrize(("key", "default"), [(key, default) for _, key, default, _ in POINTS], ids=KEYS)
def test_the_default_is_what_was_chosen(key, default):
    assert value_of(Recipe("default"), key) == default


@pytest.mark.parametrize(("key", "other"), [(key, other) for _, key, _, other in POINTS], ids=KEYS)
def test_another_choice_computes_something_else(outcome, key, other):
    (run, exported), (other_run, other_exported) = outcome(), outcome(key, other)
    seen_in_the_export_alone = key in ("recalibrate", "exported")
    assert torch.equal(run, other_run) == seen_in_the_export_alone
    assert not torch.equal(exported, other_exported)


def test_a_run_is_its_recipes_alone(outcome):
    """The same recipe gives identical bits, so the differences above come from the keys."""
    again = outcome("seed", 0)
    assert all(map(torch.equal, outcome(), again))


def test_no_key_of_objective_augmentation_or_optimizer_is_forgotten():
    sections = {name: section for name, section in SECTIONS.items() if name not in ("restoration", "distillation")}
    keys = {f"{name}.{field.name}" for name, section in sections.items() for field in fields(section)}
    assert keys - {"optimizer.final_lr"} <= set(KEYS)  # final_lr has an effect on a cosine only: test_schedule.py


def test_a_fine_tuning_holds_patients_out_unless_the_papers_protocol_is_asked_for():
    """test_finetune.py and test_task_split.py show what 0 does: the paper's protocol, all labelled images."""
    assert Settings().hold_out == 0.2
    assert (Settings(hold_out=0).epochs, Settings(hold_out=0).size) == (50, 224)  # section 4
    assert MIN_TUNING_IMAGES == 100
