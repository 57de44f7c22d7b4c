"""The shipped recipes hold the paper's values, and the values that releases were trained with."""

import inspect
import io
import tomllib
from dataclasses import replace

import pytest
from rich.console import Console

from c2l_models.training.recipe import SECTIONS, Recipe
from c2l_models.training.recipe_files import RECIPES, from_dict, list_recipes, load_recipe, recipe_table
from c2l_models.training.schedule import Schedule

PAPERS_CORPUS = (
    *("paper-resnet18", "paper-densenet121", "released-code-resnet18"),
    *("moco-resnet18", "moco-densenet121", "model-genesis-resnet18", "model-genesis-densenet121"),
)
PAPER = {
    # Section 4, and the released code where it is silent (projection, temperature, momentum).
    "batch_size": 256,
    "size": 224,
    "epochs": 240,
    "teacher_momentum": 0.999,
    "queue_length": 32768,
    "mixup_alpha": 1.0,
    "temperature": 0.07,
    "feature_dim": 128,
    "batch_norm_group": 32,
}
PAPER_OPTIMIZER = {
    "lr": 0.03,
    "weight_decay": 1e-4,
    "lr_milestones": (120, 160, 200),
    "lr_decay": 0.1,
    "momentum": 0.9,
}
PAPER_AUGMENT = {
    "rotation": 10.0,
    "crop_scale": (0.2, 1.0),
    "crop_fit": "redraw",
    "brightness": 0.4,
    "contrast": 0.4,
    "cutout_holes": 3,
}


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_the_paper_recipes_hold_the_papers_values(architecture):
    recipe = load_recipe(f"paper-{architecture}")
    assert recipe.architecture == architecture
    assert {key: getattr(recipe, key) for key in PAPER} == PAPER
    assert {key: getattr(recipe.optimizer, key) for key in PAPER_OPTIMIZER} == PAPER_OPTIMIZER
    assert {key: getattr(recipe.augment, key) for key in PAPER_AUGMENT} == PAPER_AUGMENT
    assert round(recipe.augment.cutout_side * 224) == 32
    assert {source.partition(":")[0] for source in recipe.sources} == {
        "chestxray14",
        "chexpert",
        "mimic_cxr",
        "mura",
    }


def test_the_defaults_are_the_papers_but_for_the_key_that_their_page_names():
    default = Recipe("")
    pairs = ((default, PAPER), (default.optimizer, PAPER_OPTIMIZER), (default.augment, PAPER_AUGMENT))
    others = {key for settings, paper in pairs for key, value in paper.items() if getattr(settings, key) != value}
    assert others == {"crop_fit"}
    assert "paper's, except that of `augment.crop_fit`" in inspect.getdoc(inspect.getmodule(Recipe))


def test_the_recipes_of_the_two_architectures_differ_in_nothing_else():
    resnet, densenet = load_recipe("paper-resnet18"), load_recipe("paper-densenet121")
    own_keys = {"name": "", "description": "", "table": ""}
    assert replace(densenet, **own_keys, architecture="resnet18") == replace(resnet, **own_keys)


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_loads(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert from_dict(recipe.to_dict()) == recipe
    milestones = recipe.optimizer.lr_milestones
    assert list(milestones) == sorted(milestones)
    assert recipe.optimizer.schedule == "cosine" or milestones[-1] < recipe.epochs


def test_what_ships():
    both = {f"{name}-{architecture}" for name in ("paper", "open15k") for architecture in ("resnet18", "densenet121")}
    assert both | {"released-code-resnet18", "smoke"} | set(ABLATIONS) <= set(list_recipes())


def test_the_open_recipes_are_for_the_same_images():
    resnet, densenet = load_recipe("open15k-resnet18"), load_recipe("open15k-densenet121")
    assert (densenet.architecture, densenet.sources) == ("densenet121", resnet.sources)


CROPS = {"augment.rotation": 0, "augment.cutout_holes": 0, "objective.terms": ["clean"]}
PLAIN = {"augment.cutout_holes": 0, "objective.terms": ["clean"]}
ABLATIONS = {
    # name: (table and row in the paper, all keys that differ from the defaults)
    "table1-mix": ("Table 1, Mix.", {"objective.terms": ["mixed"], "objective.mixup": "separate"}),
    "table1-batch-mix": ("Table 1, Bat. Mix.", {"objective.terms": ["mixed"]}),
    "table1-batch-mix-loss-m": ("Table 1, Bat. Mix. + loss_M", {"objective.terms": ["clean", "mixed"]}),
    "table1-c2l": ("Table 1, Bat. + Feat. Mix. + loss_M", {}),
    "table2-crop-queue-2048": ("Table 2, RandCrop, queue 2^11", CROPS | {"queue_length": 2**11}),
    "table2-crop-queue-8192": ("Table 2, RandCrop, queue 2^13", CROPS | {"queue_length": 2**13}),
    "table2-crop-queue-131072": ("Table 2, RandCrop, queue 2^17", CROPS | {"queue_length": 2**17}),
    "table2-crop-queue-32768": ("Table 2, RandCrop, queue 2^15", CROPS),
    "table2-rotation": ("Table 2, + Rotation", PLAIN),
    "table2-rotation-jigsaw": ("Table 2, + Rotation + Jigsaw", PLAIN | {"augment.jigsaw": 0.5}),
    "table2-rotation-dropout": ("Table 2, + Rotation + Dropout", PLAIN | {"projection_dropout": 0.5}),
    "table2-rotation-cutout": ("Table 2, + Rotation + cutout", {"objective.terms": ["clean"]}),
    "table2-rotation-cutout-mix": ("Table 2, + Rotation + cutout + Mix.", {}),
}
COMMON = {
    "sources": ["chestxray14:train_val"],
    "hold_out": 0.19,
    "precision": "bfloat16",
    "augment.crop_fit": "redraw",
}


def departures(recipe):
    """The keys of a recipe that differ from the defaults, except those that describe it."""
    given, default = recipe.to_dict(), Recipe("").to_dict()
    flat = {key: (value, default[key]) for key, value in given.items() if key not in SECTIONS}
    flat |= {f"{name}.{key}": (value, default[name][key]) for name in SECTIONS for key, value in given[name].items()}
    descriptive = ("name", "description", "table")
    return {key: value for key, (value, usual) in flat.items() if value != usual and key not in descriptive}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_method_in_what_its_row_names(name):
    recipe, (table, differing) = load_recipe(name), ABLATIONS[name]
    assert recipe.table == table
    assert departures(recipe) == COMMON | differing


def test_the_ablations_are_all_there_are():
    assert {name for name in list_recipes() if name.startswith("table")} == set(ABLATIONS)


def test_the_ablations_train_on_the_papers_70k_of_86k():
    assert 86_524 * (1 - load_recipe("table1-c2l").hold_out) == pytest.approx(70_000, rel=0.005)


def test_the_released_codes_choices():
    recipe = load_recipe("released-code-resnet18")
    assert departures(recipe) == {
        "sources": list(load_recipe("paper-resnet18").sources),
        "precision": "bfloat16",
        "augment.crop_fit": "redraw",
        "batch_size": 128,
        "epochs": 120,
        "queue_length": 16384,
        "objective.mixup_lambda": "max",
        "objective.queue_update": "interleaved",
        "optimizer.lr": 0.06,
        "optimizer.lr_milestones": [60, 80, 100],
    }
    schedule = Schedule(recipe, images=3 * 128)
    rates = [schedule.learning_rate(3 * epoch) for epoch in (0, 60, 80, 100)]
    assert rates == pytest.approx([0.03, 3e-3, 3e-4, 3e-5])


OPEN = {
    "sources": ["chestxray14:train_val", "knee_kl:train", "knee_kl:val"],
    "precision": "bfloat16",
    "size": 64,
    "batch_size": 64,
    "epochs": 12,
    "queue_length": 4096,
    "teacher_momentum": 0.996,
    "temperature": 0.1,
    "probe_every": 4,
    "optimizer.lr": 0.24,
    "optimizer.lr_milestones": [8, 10, 11],
}
OPEN26K = {
    "initialization": "resnet18.imagenet",
    "sources": [*OPEN["sources"], "fracatlas:train", "shoulder_implants:train"],
    "precision": "bfloat16",
    "size": 128,
    "batch_size": 64,
    "epochs": 24,
    "queue_length": 8192,
    "teacher_momentum": 0.99,
    "temperature": 0.1,
    "probe_every": 4,
    "augment.crop_scale": [0.3, 1.0],
    "optimizer.lr": 0.12,
    "optimizer.schedule": "cosine",
    "optimizer.warmup": 0.05,
}
CORPUS = {
    "sources": ["chestxray14:train_val", "chexpert:train", "mimic_cxr:*", "mura:*"],
    "precision": "bfloat16",
    "augment.crop_fit": "redraw",
}
DENSENET, CROP = {"architecture": "densenet121"}, {"augment.crop_scale": [0.5, 1.0]}
GENESIS = {"method": "model_genesis", "optimizer.lr": 1.0}
RESOLVED = {
    "paper-resnet18": CORPUS,
    "paper-densenet121": CORPUS | DENSENET,
    "moco-resnet18": CORPUS | {"method": "moco"},
    "moco-densenet121": CORPUS | DENSENET | {"method": "moco"},
    "model-genesis-resnet18": CORPUS | GENESIS,
    "model-genesis-densenet121": CORPUS | DENSENET | GENESIS,
    "open15k-resnet18": OPEN | CROP,
    "open15k-densenet121": OPEN | CROP | DENSENET,
    "search-long-resnet18": OPEN,
    "search-resnet18": OPEN
    | {"hold_out": 0.25, "size": 32, "epochs": 3, "teacher_momentum": 0.99, "probe_every": 0}
    | {"optimizer.lr": 0.12, "optimizer.lr_milestones": [2]},
    "open26k-resnet18": OPEN26K,
    "open26k-resnet18-scratch": {key: value for key, value in OPEN26K.items() if key != "initialization"},
    "moco26k-resnet18": OPEN26K | {"method": "moco", "epochs": 48},
    "open26k-densenet121": OPEN26K
    | DENSENET
    | {"initialization": "runs/distill26k-densenet121", "epochs": 3, "probe_every": 1},
    "distill26k-densenet121": {key: value for key, value in OPEN26K.items() if key != "initialization"}
    | DENSENET
    | {"method": "distillation", "feature_dim": 512, "epochs": 10, "early_sizes": [64], "early_shares": [0.8]}
    | {"distillation.source": "resnet18.c2l_open26k"}
    | {"optimizer.name": "adamw", "optimizer.lr": 0.008, "optimizer.weight_decay": 0.02},
    "search-open26k-resnet18": OPEN26K
    | {"steps": 413, "probe_every": 0, "optimizer.lr": 0.06, "augment.brightness": 0.2, "augment.contrast": 0.2},
    "theta-0": COMMON | {"teacher_momentum": 0.0},
    "theta-0.9": COMMON | {"teacher_momentum": 0.9},
    "theta-0.99": COMMON | {"teacher_momentum": 0.99},
    "theta-0.999": COMMON,  # the paper's
    "smoke": {
        "size": 64,
        "batch_size": 32,
        "batch_norm_group": 8,
        "epochs": 12,
        "queue_length": 512,
        "teacher_momentum": 0.99,
        "temperature": 0.2,
        "log_every": 2,
        "checkpoint_every": 50,
        "probe_every": 4,
        "optimizer.lr": 0.24,
        "optimizer.lr_milestones": [6, 8, 10],
    },
}


@pytest.mark.parametrize("name", RESOLVED)
def test_bases_resolve_to_these_values(name):
    assert departures(load_recipe(name)) == RESOLVED[name]


def test_every_shipped_recipe_is_pinned_by_a_test():
    assert set(list_recipes()) == set(RESOLVED) | set(ABLATIONS) | {"released-code-resnet18"}


def test_the_papers_recipes_have_no_base():
    for name in ("paper-resnet18", "paper-densenet121"):
        assert "base" not in tomllib.loads((RECIPES / f"{name}.toml").read_text())


def test_the_table_of_recipes():
    text = io.StringIO()
    Console(file=text, width=200).print(recipe_table())
    lines = text.getvalue().splitlines()
    for name in list_recipes():
        recipe = load_recipe(name)
        assert any(name in line and recipe.table in line and recipe.description in line for line in lines), name


@pytest.mark.parametrize("name", [name for name in list_recipes() if name not in PAPERS_CORPUS])
def test_open_recipes_name_no_test_split(name):
    for source in load_recipe(name).sources:
        dataset, _, split = source.partition(":")
        assert dataset in ("chestxray14", "knee_kl", "fracatlas", "shoulder_implants")
        assert split in ("train", "val", "train_val")  # named: without a split, all of them would be taken
