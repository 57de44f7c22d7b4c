"""Recipe files: bases, keys, and refused values."""

import json
from dataclasses import replace

import pytest

from c2l_models.errors import RecipeError
from c2l_models.training.recipe import Augment, Objective, Optimizer, Recipe
from c2l_models.training.recipe_files import from_dict, load_recipe, recipe_keys


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)


def test_a_base_passes_on_all_but_what_describes_it(tmp_path):
    write(
        tmp_path,
        first='description = "d"\ntable = "t"\nsize = 64\nepochs = 3\n[augment]\nflip = 0.0\njigsaw = 0.5\n',
        second='base = "first.toml"\nepochs = 4\n[augment]\njigsaw = 0.25\n[optimizer]\nlr = 1.0\n',
        third='base = "second.toml"\nsources = ["folder"]\n',
    )
    recipe = load_recipe(tmp_path / "third.toml")
    assert recipe == replace(
        Recipe("third", size=64, epochs=4, sources=("folder",)),
        augment=Augment(flip=0.0, jigsaw=0.25),
        optimizer=Optimizer(lr=1.0),
    )
    assert "base" not in recipe.to_dict()
    assert recipe_keys(tmp_path / "third.toml") == {
        "size": 64,
        "epochs": 4,
        "sources": ["folder"],
        "augment": {"flip": 0.0, "jigsaw": 0.25},
        "optimizer": {"lr": 1.0},
    }
    write(tmp_path, named='base = "smoke"\nseed = 1\n')
    expected = replace(load_recipe("smoke"), name="named", description="", seed=1)
    assert load_recipe(tmp_path / "named.toml") == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine": 'base = "mine.toml"'}, r"mine\.toml: .*found the circle mine -> mine;"),
        (
            {"mine": 'base = "a.toml"', "a": 'base = "b.toml"', "b": 'base = "a.toml"'},
            r"mine\.toml: .*found the circle mine -> a -> b -> a;",
        ),
        ({"mine": 'base = "nothing"'}, r"base of mine: no recipe 'nothing': expected a \.toml file or one of .*smoke"),
        ({"mine": 'base = "a.toml"', "a": 'base = "gone.toml"'}, r"base of a: no recipe 'gone\.toml'"),
        ({"mine": "base = 3"}, r"base: expected the name of a recipe or a \.toml file, found 3"),
        ({"mine": 'base = "a.toml"', "a": "size = = 3"}, r"mine\.toml: .*a\.toml is not valid TOML"),
        ({"mine": 'base = "a.toml"', "a": "augment = 3"}, r"mine\.toml: augment: expected a table"),
        ({"mine": 'base = "a.toml"', "a": "foo = 3"}, r"mine\.toml: unknown key foo"),
    ],
)
def test_a_base_that_does_not_resolve_is_named(tmp_path, files, message):
    write(tmp_path, **files)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "mine.toml")


def test_base_is_no_key_of_a_recipe():
    with pytest.raises(RecipeError, match="unknown key base"):
        from_dict({"name": "x", "base": "smoke"})


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(
        RecipeError, match=r"architecture: expected one of densenet121, resnet18, or another .* of timm .*, found 'vit'"
    ):
        Recipe("x", architecture="vit")


def test_round_trip_through_json():
    recipe = replace(
        Recipe("mine"),
        sources=("folder:train",),
        augment=Augment(rotation=3.0, crop_scale=(0.5, 0.9)),
        optimizer=Optimizer(lr=0.5, lr_milestones=(2, 4)),
        objective=Objective(terms=("mixed", "clean"), shuffle_bn=False),
    )
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('size = 64\nsources = ["folder"]\n[optimizer]\nlr = 1\nlr_milestones = [3]\n')
    assert load_recipe(file) == replace(
        Recipe("mine"), size=64, sources=("folder",), optimizer=Optimizer(lr=1.0, lr_milestones=(3,))
    )


REFUSED = [
    ("foo = 1", "foo"),
    ("[augment]\nfoo = 1", "foo"),
    ("[optimizer]\nfoo = 1", "foo"),
    ('size = "a"', "size"),
    ("size = 1.5", "size"),
    ('sources = "folder"', "sources"),
    ("[augment]\nrotation = 'x'", "rotation"),
    ("architecture = 'vit'", "architecture"),
    ("architecture = 3", "architecture"),
    ("precision = 'fp8'", "precision"),
    ("batch_size = 100", "batch_size"),
    ("queue_length = 767", "queue_length"),
    ("teacher_momentum = 1.5", "teacher_momentum"),
    ("temperature = 0.0", "temperature"),
    ("temperature = -1.0", "temperature"),
    ("std = 0.0", "std"),
    ("size = 0", "size"),
    ("epochs = 0", "epochs"),
    ("mixup_alpha = 0.0", "mixup_alpha"),
    ("log_every = 0", "log_every"),
    # not a table, not of these elements
    ("augment = 3", "augment"),
    ("sources = [1]", "sources"),
    ("epochs = true", "epochs"),
    ("[augment]\ncrop_scale = ['a', 'b']", "crop_scale"),
    ("[augment]\ncrop_scale = [0.2]", "crop_scale"),
    ("[optimizer]\nlr_milestones = ['a']", "lr_milestones"),
    # out of range
    ("batch_norm_group = 0", "batch_norm_group"),
    ("batch_size = 0", "batch_size"),
    ("batch_size = -32", "batch_size"),
    ("early_sizes = [64]", "early_shares: expected 1 numbers, one for each early size"),
    ("early_sizes = [64]\nearly_shares = [0.5]\nviews = 'once'", "views: expected each_step"),
    ("early_sizes = [64, 96]\nearly_shares = [0.5, 0.5]", "early_shares: expected a sum below 1"),
    ("checkpoint_every = -1", "checkpoint_every"),
    ("probe_every = -1", "probe_every"),
    ("feature_dim = 0", "feature_dim"),
    ("seed = -1", "seed"),
    ("temperature = inf", "temperature"),
    ("[augment]\ncrop_scale = [0.2, 7.0]", "crop_scale"),
    ("[augment]\ncrop_scale = [0.9, 0.1]", "crop_scale"),
    ("[augment]\nflip = 3.0", "flip"),
    ("[augment]\ncutout_side = -1.0", "cutout_side"),
    ("[augment]\njigsaw = 1.5", "jigsaw"),
    ("hold_out = -0.1", "hold_out"),
    ("projection_dropout = 2.0", "projection_dropout"),
    ("method = 'distillation'\nprojection = 'mlp'", "projection: expected linear, because distillation has no"),
    ("method = 'model_genesis'\nprojection_dropout = 0.5", "projection_dropout: expected 0"),
    ("keep_checkpoints = 0", "keep_checkpoints"),
    ("mixup_blocks = 0", "mixup_blocks"),
    ("mixup_blocks = 3", "mixup_blocks"),
    ("[restoration]\nfoo = 1", "foo"),
    ("[restoration]\nshuffle = 1.5", "shuffle"),
    ("[restoration]\nshuffle_windows = 0", "shuffle_windows"),
    ("[restoration]\nshuffle_side = -0.1", "shuffle_side"),
    ("[restoration]\nbend = 2.0", "bend"),
    ("[restoration]\npaint = -1.0", "paint"),
    ("[restoration]\npaint_inside = 1.1", "paint_inside"),
    ("[restoration]\nblocks = 0", "blocks"),
    ("[restoration]\nanother_block = 1.1", "another_block"),
    ("[restoration]\ninside_side = [0.5, 0.2]", "inside_side"),
    ("[restoration]\noutside_side = [0.5, 1.2]", "outside_side"),
    ("[objective]\nfoo = 1", "foo"),
    ("[objective]\nterms = []", "terms"),
    ("[objective]\nterms = ['clean', 'clean']", "terms"),
    ("[objective]\nterms = ['dirty']", "terms"),
    ("[objective]\nmixup = 'none'", "mixup"),
    ("[objective]\nshuffle_bn = 1", "shuffle_bn"),
    ("[optimizer]\nlr = -1.0", "lr"),
    ("[optimizer]\nlr = nan", "lr"),
    ("[optimizer]\nmomentum = -1.0", "momentum"),
]


@pytest.mark.parametrize(("text", "key"), REFUSED, ids=[text.replace("\n", " ") for text, _ in REFUSED])
def test_what_is_wrong_is_named(tmp_path, text, key):
    file = tmp_path / "wrong.toml"
    file.write_text(text + "\n")
    with pytest.raises(RecipeError, match=rf"wrong\.toml.*\b{key}\b"):
        load_recipe(file)


def test_an_unknown_key_says_which_there_are():
    with pytest.raises(RecipeError, match=r"unknown key sizes .*\bsize\b"):
        from_dict({"name": "x", "sizes": 3})


def test_broken_toml_and_unknown_names(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("size = = 3")
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        load_recipe(file)
    with pytest.raises(RecipeError, match=r"nothing.*paper-resnet18"):
        load_recipe("nothing")
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "absent.toml")


def test_a_recipe_made_in_code_is_checked_too():
    with pytest.raises(RecipeError, match="queue_length"):
        replace(Recipe("x"), queue_length=100)


def test_a_recipe_has_a_name():
    with pytest.raises(RecipeError, match="has no name"):
        from_dict({})


def test_recipe_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.toml").write_text('\ufeffbase = "smoke"\nsteps = 7\n', encoding="utf-8")
    assert load_recipe(tmp_path / "a.toml").steps == 7


def test_recipe_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.toml").write_bytes('base = "smoke"\ndescription = "für Röntgenbilder"\n'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"a\.toml: expected UTF-8, .*save the file as UTF-8"):
        load_recipe(tmp_path / "a.toml")
