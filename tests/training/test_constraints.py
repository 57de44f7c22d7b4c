"""Every numeric setting has a constraint, and the same values are accepted as when the rules were sets of names."""

import math
from copy import copy
from dataclasses import fields, is_dataclass, make_dataclass
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from c2l_models.errors import RecipeError
from c2l_models.training.constraints import Ascending, AtLeast, Between, Constraint, check_values
from c2l_models.training.detection.settings import Settings as DetectionSettings
from c2l_models.training.finetuning.settings import Settings as FinetuningSettings
from c2l_models.training.recipe import Augment, Distillation, Objective, Optimizer, Recipe, Restoration

SETTINGS = {
    "augment": Augment(),
    "restoration": Restoration(),
    "objective": Objective(),
    "distillation": Distillation(),
    "optimizer": Optimizer(),
    "recipe": Recipe("x"),
    "finetuning": FinetuningSettings(),
    "detection": DetectionSettings(),
}
POSITIVE, NOT_NEGATIVE, SHARE = "x > 0", "x >= 0", "0 <= x <= 1"
RULES = {
    "augment": {
        POSITIVE: "crop_ratio",
        NOT_NEGATIVE: "rotation cutout_holes",
        SHARE: "brightness contrast flip jigsaw cutout_side",
        "0 < x <= 1": "crop_scale",
    },
    "restoration": {
        POSITIVE: "shuffle_windows blocks",
        SHARE: "shuffle shuffle_side bend paint paint_inside another_block inside_side outside_side",
    },
    "objective": {},
    "distillation": {},
    "optimizer": {
        POSITIVE: "lr_decay",
        NOT_NEGATIVE: "lr final_lr weight_decay lr_milestones",
        SHARE: "momentum warmup",
    },
    "recipe": {
        POSITIVE: "size early_sizes early_shares std batch_size epochs feature_dim temperature queue_length "
        "mixup_alpha mixup_blocks batch_norm_group log_every keep_checkpoints",
        NOT_NEGATIVE: "seed steps probe_every checkpoint_every checkpoint_minutes",
        SHARE: "teacher_momentum teacher_momentum_final hold_out projection_dropout",
        "True": "mean",
    },
    "finetuning": {
        POSITIVE: "size epochs",
        "x >= 2": "batch_size",
        NOT_NEGATIVE: "lr weight_decay seed bootstrap",
        "0 < x <= 1": "fraction layer_decay",
        "0 <= x < 1": "hold_out",
    },
    "detection": {
        "x >= 128 and x % 32 == 0": "size",
        "x >= 1": "batch_size epochs max_steps",
        POSITIVE: "lr",
        NOT_NEGATIVE: "weight_decay seed bootstrap curve_every",
        "0 <= x < 1": "momentum warmup",
    },
}
"""The earlier rules, independent of the constraints: by dataclass, conditions and the fields that must meet them."""
ASCENDING = {"crop_scale", "crop_ratio", "inside_side", "outside_side"}
FLOATS = (-math.inf, -1.0, -1e-9, 0.0, 1e-9, 0.3, 1.0, 1.0 + 1e-9, 2.0, 150.0, math.inf, math.nan)
INTS = (-2, -1, 0, 1, 2, 3, 96, 127, 128, 130, 160, 500, 512)


def hints_of(settings):
    return get_type_hints(type(settings), include_extras=True)


def number_kind(hint):
    """int or float if the field holds such numbers, alone, in a tuple or in an Optional; otherwise None."""
    if get_origin(hint) is Annotated:
        return number_kind(get_args(hint)[0])
    kinds = {number_kind(part) for part in get_args(hint)} - {None}
    return hint if hint in (int, float) else next(iter(kinds), None)


def accepts(settings, name, value):
    """Whether the checker accepts the settings with this value. Relations between fields are not checked."""
    changed = copy(settings)
    object.__setattr__(changed, name, value)
    try:
        check_values(changed)
    except RecipeError:
        return False
    return True


NUMERIC_FIELDS = [
    (which, name, hint)
    for which, settings in SETTINGS.items()
    for name, hint in hints_of(settings).items()
    if number_kind(hint)
]


@pytest.mark.parametrize(("which", "name", "hint"), NUMERIC_FIELDS)
def test_every_numeric_field_has_a_constraint(which, name, hint):
    assert any(isinstance(extra, Constraint) for extra in get_args(hint)), f"{which}.{name} has no constraint"


def test_all_settings_are_walked():
    values = [getattr(settings, field.name) for settings in SETTINGS.values() for field in fields(settings)]
    assert {type(value) for value in values if is_dataclass(value)} <= set(map(type, SETTINGS.values()))


@pytest.mark.parametrize(("which", "name", "hint"), NUMERIC_FIELDS)
def test_the_same_values_are_accepted_as_by_the_earlier_rules(which, name, hint):
    [rule] = [rule for rule, names in RULES[which].items() if name in names.split()]
    settings, kind = SETTINGS[which], number_kind(hint)
    for number in INTS if kind is int else FLOATS:
        holds = math.isfinite(number) and eval(rule, {"x": number})
        default = getattr(settings, name)
        if not isinstance(default, tuple):
            assert accepts(settings, name, number) == holds, number
        elif name in ASCENDING:
            for other in FLOATS:
                both = holds and math.isfinite(other) and eval(rule, {"x": other}) and number <= other
                assert accepts(settings, name, (number, other)) == both, (number, other)
        else:
            assert accepts(settings, name, (number,)) == accepts(settings, name, (3, number)) == holds, number
            assert accepts(settings, name, ())


@pytest.mark.parametrize(
    ("which", "name", "value", "expected"),
    [
        ("recipe", "size", 1.5, "a whole number"),
        ("recipe", "size", True, "a whole number"),
        ("recipe", "std", "a", "a finite number"),
        ("recipe", "sources", "folder", "a list, each element text"),
        ("recipe", "compile", 1, "true or false"),
        ("recipe", "precision", "fp8", "one of float32, bfloat16"),
        ("recipe", "augment", 3, "a value of type Augment"),
        ("augment", "crop_scale", (0.2,), "a list of 2 values, each a finite number"),
        ("augment", "crop_scale", (0.9, 0.1), "ascending numbers"),
        ("objective", "terms", ("dirty",), "a list, each element one of clean, mixed, feature"),
        ("detection", "max_steps", 1.0, "a whole number or nothing"),
        ("detection", "size", 500, "a multiple of 32"),
        ("finetuning", "hold_out", 1.0, "below 1"),
    ],
)
def test_messages(which, name, value, expected):
    changed = copy(SETTINGS[which])
    object.__setattr__(changed, name, value)
    with pytest.raises(RecipeError) as caught:
        check_values(changed)
    assert str(caught.value) == f"{name}: expected {expected}, found {value!r}; change this setting"


def test_a_nested_setting_has_its_full_name():
    with pytest.raises(RecipeError, match=r"^augment\.flip: expected from 0 to 1, found 2; change this setting$"):
        FinetuningSettings(augment=Augment(flip=2))


def test_a_whole_number_is_a_float_and_nothing_meets_no_constraint():
    assert accepts(SETTINGS["recipe"], "temperature", 1)
    assert accepts(SETTINGS["detection"], "max_steps", None)


def test_constraints_compare_and_describe_themselves():
    assert AtLeast(0) == AtLeast(0) != AtLeast(1)
    assert str(Between(0, 1)) == "from 0 to 1"
    assert isinstance(Ascending(), Constraint)
    own = make_dataclass("Own", [("pair", Annotated[tuple[int, ...], Ascending()])])
    check_values(own((1, 1, 2)))
    with pytest.raises(RecipeError, match="ascending"):
        check_values(own((1, 3, 2)))
