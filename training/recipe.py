"""A recipe: everything that decides what a pretraining run computes. The defaults are the paper's.

Where paper and released code differ, or the paper is silent, the field's comment says which was taken.
Recipes are TOML files in `recipes/`; a key that a file leaves out has the default here.
"""

import dataclasses
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from c2l_models.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Augment:
    """The two views' augmentation (section 4; ranges from the released code)."""

    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Area of the random crop, as a share of the image."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the random crop, drawn log-uniformly."""
    rotation: float = 10.0
    """Largest rotation either way, degrees."""
    brightness: float = 0.4
    """Brightness factor is drawn from [1 - b, 1 + b]."""
    contrast: float = 0.4
    """Contrast factor is drawn from [1 - c, 1 + c]."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    cutout_holes: int = 3
    """Number of square holes."""
    cutout_side: float = 32 / 224
    """A hole's side, as a share of the view's side (32 of 224 pixels)."""


@dataclass(frozen=True)
class Optimizer:
    """SGD and its steps (section 4)."""

    lr: float = 0.03
    """Learning rate at batch 256; a run uses lr * batch_size / 256."""
    momentum: float = 0.9
    """Not printed in the paper; the released code's."""
    weight_decay: float = 1e-4
    lr_milestones: tuple[int, ...] = (120, 160, 200)
    """Epochs after which the rate falls; with 120 the 121st epoch is the first at the lower rate."""
    lr_decay: float = 0.1
    """What the rate is multiplied by at each milestone."""


@dataclass(frozen=True)
class Recipe:
    """One pretraining run."""

    name: str
    description: str = ""
    architecture: Literal["resnet18", "densenet121"] = "resnet18"
    sources: tuple[str, ...] = ()
    """What is trained on: "dataset:split"; "dataset", all of it but a split named "test"; "dataset:*", all of it.
    None: the whole store but splits named "test"."""

    size: int = 224
    """Side of a view, pixels."""
    mean: float = 0.5
    """One scalar for the one channel, of intensities in [0, 1]: round figures, so that no corpus is special."""
    std: float = 0.25
    batch_size: int = 256
    epochs: int = 240
    seed: int = 0

    feature_dim: int = 128
    """D. Not printed in the paper; the released code's."""
    temperature: float = 0.07
    """Not printed in the paper; the released code's."""
    queue_length: int = 32768
    """N = 2^15 (section 4; the released code has 2^14)."""
    teacher_momentum: float = 0.999
    """θ of equation 2."""
    mixup_alpha: float = 1.0
    """λ ~ Beta(alpha, alpha) (equation 1)."""
    batch_norm_group: int = 32
    """Images that share batch statistics (the released code: 4 GPUs of 32). A group as large as the batch would leave
    ShuffleBN nothing to shuffle."""

    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast of the networks; losses, features and parameters stay float32."""
    log_every: int = 20
    """Steps between two lines of the log."""
    checkpoint_every: int = 200
    """Steps between two checkpoints; one is also written after each epoch."""
    probe_every: int = 5
    """Epochs between two k-NN probes; 0: none."""

    def __post_init__(self) -> None:
        for part in (self, self.augment, self.optimizer):
            _check_values(part)
        _check(self.batch_size % self.batch_norm_group == 0, self, "batch_size", "a multiple of batch_norm_group")
        _check(self.queue_length >= 3 * self.batch_size, self, "queue_length", "at least 3 * batch_size")

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        falls = sum(epoch >= milestone for milestone in self.optimizer.lr_milestones)
        return self.optimizer.lr * self.batch_size / 256 * self.optimizer.lr_decay**falls

    def to_dict(self) -> dict[str, Any]:
        """All keys and values, as JSON knows them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


# What a value may be, beside its type; for pairs, each of the two.
_POSITIVE = {
    *("size", "std", "batch_size", "epochs", "feature_dim", "temperature", "queue_length", "mixup_alpha"),
    *("batch_norm_group", "log_every", "checkpoint_every", "crop_scale", "crop_ratio", "lr_decay"),
}
_NOT_NEGATIVE = {"seed", "probe_every", "rotation", "cutout_holes", "lr", "weight_decay", "lr_milestones"}
_SHARE = {"crop_scale", "brightness", "contrast", "flip", "cutout_side", "teacher_momentum", "momentum"}
_ASCENDING = {"crop_scale", "crop_ratio"}


def list_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by its name, or from a TOML file.

    Raises:
        RecipeError: no such recipe, an unknown key, or a value of the wrong type or outside its range.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        raise RecipeError(f"no recipe {str(name_or_path)!r}; there are {', '.join(list_recipes())}, or a .toml file")
    try:
        return from_dict(tomllib.loads(path.read_text()) | {"name": path.stem})
    except (tomllib.TOMLDecodeError, RecipeError) as error:
        raise RecipeError(f"{path}: {error}") from error


def from_dict(values: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`, strict: see `load_recipe` for what is raised."""
    values = dict(values)
    for key, section in (("augment", Augment), ("optimizer", Optimizer)):
        if key in values:
            values[key] = _build(section, values[key], key)
    recipe: Recipe = _build(Recipe, values, "the recipe")
    return recipe


def _build(kind: Any, values: Any, where: str) -> Any:
    """A dataclass from a table: lists become tuples; unknown keys are refused."""
    names = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(values, dict):
        raise RecipeError(f"{where} = {values!r}; wanted a table of {', '.join(names)}")
    if missing := [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in values]:
        raise RecipeError(f"{where} has no {', '.join(missing)}")
    if unknown := sorted(set(values) - set(names)):
        raise RecipeError(f"unknown key {', '.join(unknown)} in {where}; there are {', '.join(names)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check_values(part: Any) -> None:
    """Raise RecipeError for a value of the wrong type or outside its range."""
    for key, hint in get_type_hints(type(part)).items():
        value = getattr(part, key)
        _check(_fits(value, hint), part, key, getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint))
        numbers = value if isinstance(value, tuple) else (value,)
        _check(key not in _POSITIVE or min(numbers) > 0, part, key, "above 0")
        _check(key not in _NOT_NEGATIVE or min(numbers, default=0) >= 0, part, key, "0 or above")
        _check(key not in _SHARE or 0 <= min(numbers) <= max(numbers) <= 1, part, key, "in [0, 1]")
        _check(key not in _ASCENDING or numbers[0] <= numbers[1], part, key, "the lower one first")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; a float may be written as an int, and has to be finite."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return value in arguments
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _check(holds: bool, part: Any, key: str, wanted: str) -> None:
    if not holds:
        raise RecipeError(f"{key} = {getattr(part, key)!r}; wanted {wanted}")
