"""Tables, initializations and scales: every printed row has the right recipe, and a scale changes only its own keys."""

import pytest

from c2l_models import list_weights
from c2l_models.errors import C2LError
from c2l_models.training.datasets.adapters import ADAPTERS, described_data_sets
from c2l_models.training.recipe import Recipe
from c2l_models.training.recipe_files import from_dict, list_recipes, load_recipe
from c2l_models.training.reproduce.data import usual_folders
from c2l_models.training.reproduce.paper_tables import paper_tables
from c2l_models.training.reproduce.plan import (
    Measurement,
    load_initialization_plan,
    load_scale,
    load_table,
    recipe_of,
    table_names,
)
from c2l_models.training.run_files.identity import flatten
from c2l_models.training.schedule import Schedule

PAPER, OPEN = load_scale("paper"), load_scale("open")


@pytest.mark.parametrize("name", paper_tables())
def test_every_row_that_is_printed_is_run(name):
    plan = load_table(name)
    assert {row for _, row in plan.rows if row} == set(paper_tables()[name].metrics)
    assert len({init.name for init, _ in plan.rows}) == len(plan.rows)
    for init, row in plan.rows:
        if "ResNet-18" in row:
            assert init.architecture == "resnet18"
        if "DenseNet-121" in row:
            assert init.architecture == "densenet121"


@pytest.mark.parametrize("name", table_names())
def test_rows_of_ours_stand_beside_the_papers(name):
    names = {init.name for init, _ in load_table(name).rows}
    architectures = {init.architecture for init, _ in load_table(name).rows}
    assert {f"{architecture}-random" for architecture in architectures} <= names
    if name in ("table3", "table4", "table5", "open"):
        assert {f"{architecture}-moco-equal-passes" for architecture in architectures} <= names


METHODS = {"MG": "model_genesis", "MoCo": "moco", "C2L": "c2l"}


@pytest.mark.parametrize("name", ["table3", "table4", "table5"])
def test_a_row_is_pretrained_by_the_method_that_it_names(name):
    for init, row in load_table(name).rows:
        method = row.partition(",")[0]
        if method in METHODS:
            assert load_recipe(init.recipe).method == METHODS[method]
        elif method:
            assert (method, init.weights) == ("ImageNet", "imagenet")


def test_the_ablations_rows_are_the_recipes_that_say_so():
    for number in (1, 2):
        for init, row in load_table(f"table{number}").rows:
            if init.recipe:
                assert load_recipe(init.recipe).table == f"Table {number}, {row}"
    for init, _ in load_table("theta").rows:
        assert init.recipe in ("", init.name)
    used = {init.recipe for number in (1, 2) for init, _ in load_table(f"table{number}").rows}
    assert {name for name in list_recipes() if name.startswith("table")} == used - {""}


@pytest.mark.parametrize("name", ["moco", "model-genesis"])
@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_the_rivals_recipes_are_the_papers_but_for_the_method_and_its_rate(name, architecture):
    rival, ours = load_recipe(f"{name}-{architecture}").to_dict(), load_recipe(f"paper-{architecture}").to_dict()
    free = {"name", "description", "table"}
    rate = rival["optimizer"].pop("lr"), ours["optimizer"].pop("lr")
    assert rate == ((1.0 if name == "model-genesis" else 0.03), 0.03)
    assert {key for key in ours if rival[key] != ours[key]} - free == {"method"}


def test_at_the_papers_scale_a_recipe_is_as_it_ships():
    for init in ("resnet18-c2l", "densenet121-moco", "table1-mix"):
        plan = load_initialization_plan(init)
        assert recipe_of(plan, PAPER, 0) == load_recipe(plan.recipe)
    assert recipe_of(load_initialization_plan("resnet18-c2l"), PAPER, 2).seed == 2


@pytest.mark.parametrize("scale", [PAPER, OPEN, load_scale("open", smoke=True)])
@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_equal_passes_are_twice_the_epochs_and_nothing_else(scale, architecture):
    once = recipe_of(load_initialization_plan(f"{architecture}-moco"), scale, 0).to_dict()
    twice = recipe_of(load_initialization_plan(f"{architecture}-moco-equal-passes"), scale, 0).to_dict()
    assert twice.pop("epochs") == 2 * once.pop("epochs")
    milestones = [values["optimizer"].pop("lr_milestones") for values in (once, twice)]
    assert milestones[1] == [2 * epoch for epoch in milestones[0]]
    for key in ("name", "description"):
        once.pop(key), twice.pop(key)
    assert twice == once


def test_the_open_scale_is_the_open_releases_recipe():
    ours, released = recipe_of(load_initialization_plan("resnet18-c2l"), OPEN, 0), load_recipe("open15k-resnet18")
    free = {"name", "description", "table"}
    assert {key for key, value in released.to_dict().items() if ours.to_dict()[key] != value} <= free
    densenet = recipe_of(load_initialization_plan("densenet121-c2l"), OPEN, 0)
    assert (densenet.architecture, densenet.size, densenet.epochs) == ("densenet121", released.size, released.epochs)
    ablation = recipe_of(load_initialization_plan("table1-mix"), OPEN, 0)
    assert ablation.sources == load_recipe("table1-mix").sources


def test_queue_lengths_of_table_2_stay_apart_at_another_scale():
    lengths = {
        init.name: recipe_of(init, OPEN, 0).queue_length
        for init, _ in load_table("table2").rows
        if "queue" in init.name
    }
    assert lengths == {
        "table2-crop-queue-2048": 256,
        "table2-crop-queue-8192": 1024,
        "table2-crop-queue-32768": 4096,
        "table2-crop-queue-131072": 16384,
    }


@pytest.mark.parametrize("scale", ["paper", "open", "search"])
def test_rows_of_the_ablation_of_theta_differ_in_theta_alone_at_every_scale(scale):
    rows = [init for init, _ in load_table("theta").rows if init.recipe]
    recipes = [recipe_of(init, load_scale(scale), 0).to_dict() for init in rows]
    assert [recipe.pop("teacher_momentum") for recipe in recipes] == [0, 0.9, 0.99, 0.999]
    own_keys = ("name", "description", "table")
    rest = [{key: value for key, value in recipe.items() if key not in own_keys} for recipe in recipes]
    assert all(recipe == rest[0] for recipe in rest)
    assert rest[0]["teacher_momentum_final"] == 0
    whole_method = recipe_of(load_initialization_plan("table1-c2l"), load_scale(scale), 0).to_dict()
    assert {key for key, value in rest[0].items() if whole_method[key] != value} == set()


def test_ablations_keep_to_chestxray14_and_hold_patients_out():
    recipe = recipe_of(load_initialization_plan("table1-mix"), OPEN, 0)
    assert recipe.sources == ("chestxray14:train_val",)
    assert recipe.hold_out == 0.19
    for table in ("table1", "table2"):
        assert load_table(table).measurements == (Measurement("finetune", "chestxray14", held_out=recipe.hold_out),)


@pytest.mark.parametrize("table", table_names())
@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("scale", ["paper", "open", "search"])
def test_every_row_has_a_recipe_at_every_scale(table, scale, smoke):
    for init, _ in load_table(table).rows:
        if init.recipe:
            recipe = recipe_of(init, load_scale(scale, smoke), 1)
            assert isinstance(from_dict(recipe.to_dict()), Recipe)
            assert recipe.architecture == init.architecture
        else:
            assert init.weights in ("random", "imagenet", *list_weights(init.architecture))


def test_settings_of_measurements():
    assert PAPER.settings(Measurement("finetune", "chestxray14")) == {
        "fraction": 1.0,
        "uncertain": "ignore",
    }  # all others keep the defaults, the paper's
    few, all_labels = (OPEN.settings(Measurement("finetune", "chestxray14", fraction)) for fraction in (0.01, 1.0))
    assert few["size"] == all_labels["size"] == 64
    assert few["epochs"] > all_labels["epochs"]
    assert OPEN.settings(Measurement("detect", "rsna"))["size"] == 256
    assert "fraction" not in OPEN.settings(Measurement("probe", "knee_kl"))


def test_two_rows_that_are_one_run_are_equal_key_by_key():
    one, two = (load_recipe(name).to_dict() for name in ("table1-c2l", "table2-rotation-cutout-mix"))
    assert {key for key in one if one[key] != two[key]} <= {"name", "description", "table"}
    assert (
        load_initialization_plan("table2-rotation-cutout-mix").folder == load_initialization_plan("table1-c2l").folder
    )


def test_only_some_rows():
    plan = load_table("table3").only(["resnet18-random", "resnet18-c2l"])
    assert [init.name for init, _ in plan.rows] == ["resnet18-random", "resnet18-c2l"]
    with pytest.raises(C2LError, match=r"resnet18-c2m.*did you mean.*resnet18-c2l"):
        load_table("table3").only(["resnet18-c2m"])


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(C2LError, match=r"table33.*did you mean.*table3"):
        load_table("table33")
    with pytest.raises(C2LError, match="choose from: paper, open, search"):
        load_scale("huge")


def test_folders_are_of_data_sets_that_can_be_read():
    assert set(usual_folders()) <= {*ADAPTERS, *described_data_sets()}
    names = [name for names in usual_folders().values() for name in names]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


def test_a_trial_changes_its_base_and_nothing_else():
    base = recipe_of(load_initialization_plan("search-base"), load_scale("search"), 0).to_dict()
    trials = [init for init, _ in load_table("search").rows if init.changes]
    assert len(trials) == len(load_table("search").rows) - 2  # the base and a random network
    for init in trials:
        tried = recipe_of(init, load_scale("search"), 0).to_dict()
        assert {key for key in base if tried[key] != base[key]} == set(init.changes)
    crop = recipe_of(load_initialization_plan("search-crop-0.5"), load_scale("search"), 0).to_dict()
    assert crop["augment"] == base["augment"] | {"crop_scale": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("search-lr-0.24-size-64", {"size": 64, "optimizer.lr": 0.24}),
        (
            "search-chest-alone",
            {"sources": ["chestxray14:train_val"], "steps": 519, "optimizer.lr_milestones": [3.64]},
        ),
        ("long-base", {}),
        ("long-moco-crop-0.5", {"method": "moco", "augment.crop_scale": [0.5, 1.0]}),
        (
            "long-moco-crop-0.5-size-32",
            {"method": "moco", "size": 32, "epochs": 24, "augment.crop_scale": [0.5, 1.0]}
            | {"optimizer.lr": 0.12, "optimizer.lr_milestones": [16, 20, 22]},
        ),
    ],
)
def test_a_trials_recipe_key_by_key(name, differing):
    init = load_initialization_plan(name)
    base = flatten(load_recipe(f"search{'-long' * name.startswith('long')}-resnet18").to_dict())
    found = flatten(recipe_of(init, load_scale("search"), 3).to_dict())
    assert found == base | differing | {"seed": 3}


IMAGES = {
    # sources and hold_out: images of the open corpus that a run trains on, as results/comparisons/search says
    (("chestxray14:train_val", "knee_kl:train", "knee_kl:val"), 0.25): 11_099,
    (("chestxray14:train_val",), 0.25): 6_119,
    (("chestxray14:train_val", "knee_kl:train", "knee_kl:val"), 0.0): 15_112,
}


@pytest.mark.parametrize("table", ["search", "search-long"])
def test_a_trial_shows_as_many_images_as_its_base_at_the_same_rates(table):
    """Pixels count for trials that change the views' size. The rate falls at the same share of the steps."""
    plans = [init for init, _ in load_table(table).rows if init.recipe]
    budgets, falls = {}, {}
    for init in plans:
        recipe = recipe_of(init, load_scale("search"), 0)
        schedule = Schedule(recipe, IMAGES[recipe.sources, recipe.hold_out])
        rates = [schedule.learning_rate(step) for step in range(schedule.total_steps)]
        budgets[init.name] = schedule.total_steps * recipe.batch_size
        falls[init.name] = [n / len(rates) for n in range(1, len(rates)) if rates[n] < rates[n - 1]]
    base = plans[0].name
    for name, budget in budgets.items():
        twice = 2 if "size-32" in name else 1
        assert budget == pytest.approx(twice * budgets[base], rel=0.01), name
        assert falls[name] == pytest.approx(falls[base], abs=0.01), name


def test_a_trial_is_judged_by_patients_that_it_did_not_see():
    table = load_table("search")
    held_out = {recipe_of(init, load_scale(table.scale), 0).hold_out for init, _ in table.rows if init.recipe}
    assert {(measurement.held_out, measurement.held_out_for) for measurement in table.measurements} == {
        (share, "testing") for share in held_out
    }


def test_rows_can_be_told_apart_by_their_hash():
    assert len({init for init, _ in load_table("search").rows}) == len(load_table("search").rows)
