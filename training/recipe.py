"""A recipe: everything that decides what a pretraining run computes. The defaults are the paper's.

Where paper and released code differ, or the paper is silent, the field's comment says which was taken.
Recipes are TOML files in `recipes/`; a key that a file leaves out has the default here.
"""

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table

from c2l_models.architectures import list_models
from c2l_models.errors import RecipeError

from .constraints import Above, AnyNumber, Ascending, AtLeast, AtMost, Between, check, check_values
from .objectives import check_method

RECIPES = Path(__file__).parent / "recipes"

if TYPE_CHECKING:
    Architecture = str
else:
    Architecture = Literal[tuple(list_models())]  # Type checkers cannot evaluate it; the command line and `check` can.

Share = Annotated[float, Between(0, 1)]


@dataclass(frozen=True)
class Augment:
    """The two views' augmentation (section 4; ranges from the released code)."""

    crop_scale: Annotated[tuple[float, float], Above(0), AtMost(1), Ascending()] = (0.2, 1.0)
    """Area of the random crop, as a share of the image."""
    crop_ratio: Annotated[tuple[float, float], Above(0), Ascending()] = (3 / 4, 4 / 3)
    """Width over height of the random crop, drawn log-uniformly."""
    rotation: Annotated[float, AtLeast(0)] = 10.0
    """Largest rotation either way, degrees."""
    brightness: Share = 0.4
    """Brightness factor is drawn from [1 - b, 1 + b]."""
    contrast: Share = 0.4
    """Contrast factor is drawn from [1 - c, 1 + c]."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    jigsaw: Share = 0.0
    """Probability that a view's 3×3 tiles are permuted, before cutout (Table 2's "Jigsaw": 0.5)."""
    cutout_holes: Annotated[int, AtLeast(0)] = 3
    """Number of square holes."""
    cutout_side: Share = 32 / 224
    """A hole's side, as a share of the view's side (32 of 224 pixels)."""


@dataclass(frozen=True)
class Restoration:
    """What is done to the views that Model Genesis restores: Zhou et al., Models Genesis (MICCAI 2019).

    The values are those of its published code, which is for volumes, on two axes; where they cannot be, it is said.
    """

    shuffle: Share = 0.5
    """Probability of local pixel shuffling."""
    shuffle_windows: Annotated[int, AtLeast(1)] = 600
    """Windows that are shuffled in such a view. Ours: they cover it 1.6 to 1.8 times over; the published code's
    10,000 do so 1.9 times with its volumes."""
    shuffle_side: Share = 0.1
    """Longest side of a window, as a share of the view's; the shortest is one pixel."""
    bend: Share = 0.9
    """Probability that intensities go through a random Bézier curve, which rises or falls, each half of the time."""
    paint: Share = 0.9
    """Probability of in-painting or out-painting."""
    paint_inside: Share = 0.2
    """Probability of in-painting where there is either."""
    blocks: Annotated[int, AtLeast(1)] = 5
    """Blocks to paint in or to leave, at most."""
    another_block: Share = 0.95
    """Probability of each further block up to `blocks`, and of in-painting's first."""
    inside_side: Annotated[tuple[float, float], Between(0, 1), Ascending()] = (1 / 6, 1 / 3)
    """Shortest and longest side of a block to paint in, as shares of the view's. It may lie anywhere (the published
    code leaves three pixels at the border)."""
    outside_side: Annotated[tuple[float, float], Between(0, 1), Ascending()] = (3 / 7, 4 / 7)
    """The same of a block that out-painting leaves."""


@dataclass(frozen=True)
class Objective:
    """What is contrasted, and how: the defaults are the method, all else an ablation or a reading of the paper.

    "clean": the clean views' contrast, CE(v_1^A, v_2^A), loss_A; "mixed": CE(v_1^M, v_2^M) and "feature":
    CE(v_1^M, v_m), together loss_M (lines 12 and 13). A term's keys enter Q, those of an absent one do not.
    """

    terms: tuple[Literal["clean", "mixed", "feature"], ...] = ("clean", "mixed", "feature")
    """The terms of the loss; it is their mean."""
    mixup: Literal["shared", "separate"] = "shared"
    """shared: one λ and one permutation for both views (batch mixup); separate: a draw for each (traditional)."""
    mixup_lambda: Literal["beta", "max"] = "beta"
    """beta: λ ~ Beta(alpha, alpha) (equation 1); max: max(λ, 1 - λ), as the released code; the same but for order."""
    feature_mixup: Literal["before_norm", "after_norm"] = "before_norm"
    """Whether the teacher's features are mixed before or after their L2 norm. Not said in the paper; the released
    code's is before."""
    queue_update: Literal["after_step", "interleaved"] = "after_step"
    """after_step: line 18; interleaved: each term's keys enter Q before the next term, as in the released code, so
    that near-duplicates are among the negatives."""
    shuffle_bn: bool = True
    """Whether the teacher's batch is shuffled before it is normalised in groups. Not in the paper; in the released
    code."""
    reduction: Literal["mean", "sum"] = "mean"
    """mean: over batch and terms; sum: over both, as the paper prints it, which multiplies the rate by 3 B."""


@dataclass(frozen=True)
class Optimizer:
    """SGD and its steps (section 4)."""

    lr: Annotated[float, AtLeast(0)] = 0.03
    """Learning rate at batch 256; a run uses lr * batch_size / 256."""
    momentum: Share = 0.9
    """Not printed in the paper; the released code's."""
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    lr_milestones: Annotated[tuple[int, ...], AtLeast(0)] = (120, 160, 200)
    """Epochs after which the rate falls; with 120 the 121st epoch is the first at the lower rate."""
    lr_decay: Annotated[float, Above(0)] = 0.1
    """What the rate is multiplied by at each milestone."""


@dataclass(frozen=True)
class Recipe:
    """One pretraining run."""

    name: str
    description: str = ""
    table: str = ""
    """The table and row of the paper that it is for, as in "Table 1, Bat. Mix."."""
    method: str = "c2l"
    """A name in `objectives.METHODS`: c2l, moco, model_genesis. [objective] is C2L's, [restoration] Model Genesis'."""
    architecture: Architecture = "resnet18"
    sources: tuple[str, ...] = ()
    """What is trained on: "dataset:split"; "dataset", all of it but a split named "test"; "dataset:*", all of it.
    None: the whole store but splits named "test"."""
    hold_out: Share = 0.0
    """Share of the patients that are left out of training, chosen by the hash of their ids (section 5 keeps 16k of
    86k images for fine-tuning)."""

    size: Annotated[int, AtLeast(1)] = 224
    """Side of a view, pixels."""
    mean: Annotated[float, AnyNumber()] = 0.5
    """One scalar for the one channel, of intensities in [0, 1]: round numbers, so that no corpus is special."""
    std: Annotated[float, Above(0)] = 0.25
    batch_size: Annotated[int, AtLeast(1)] = 256
    epochs: Annotated[int, AtLeast(1)] = 240
    seed: Annotated[int, AtLeast(0)] = 0

    feature_dim: Annotated[int, AtLeast(1)] = 128
    """D. Not printed in the paper; the released code's."""
    projection: Literal["linear", "mlp"] = "linear"
    """From backbone to feature: one linear layer, or two with a ReLU between. Not printed in the paper; the released
    code's is linear."""
    projection_dropout: Share = 0.0
    """Dropout before the projection (Table 2's "Dropout": 0.5)."""
    temperature: Annotated[float, Above(0)] = 0.07
    """Not printed in the paper; the released code's."""
    queue_length: Annotated[int, AtLeast(1)] = 32768
    """N = 2^15 (section 4; the released code has 2^14)."""
    teacher_momentum: Share = 0.999
    """θ of equation 2."""
    mixup_alpha: Annotated[float, Above(0)] = 1.0
    """λ ~ Beta(alpha, alpha) (equation 1)."""
    mixup_blocks: Annotated[int, AtLeast(1)] = 1
    """Equal blocks of the batch that images are mixed within; at least as many as processes, so that no image travels
    for mixup. With 8, runs on 1, 2, 4 and 8 processes compute the same."""
    batch_norm_group: Annotated[int, AtLeast(1)] = 32
    """Images that share batch statistics (the released code: 4 GPUs of 32). A group as large as the batch would leave
    ShuffleBN nothing to shuffle."""

    views: Literal["each_step", "once"] = "each_step"
    """When an image's two views are drawn: at each step, as the released code, or once before the loop, as lines 1
    and 2 of Algorithm 1 read."""

    objective: Objective = field(default_factory=Objective)
    augment: Augment = field(default_factory=Augment)
    restoration: Restoration = field(default_factory=Restoration)
    optimizer: Optimizer = field(default_factory=Optimizer)

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast of the networks; losses, features and parameters stay float32."""
    compile: bool = False
    """Compile student and teacher with `torch.compile`: minutes at the start, for a gain that depends on the GPU."""
    gradient_checkpointing: bool = False
    """Keep no activations of the student, and compute them again in the backward pass, one batch-norm group at a time:
    the same gradients, to the rounding of sums, from the memory of one group, for one more forward pass."""
    recalibrate: bool = True
    """Whether batch norm's statistics are set anew on clean images before a probe and an export."""
    exported: Literal["student", "teacher"] = "student"
    """Whose weights an export takes."""
    log_every: Annotated[int, AtLeast(1)] = 20
    """Steps between two lines of the log."""
    checkpoint_every: Annotated[int, AtLeast(1)] = 500
    """Steps between two checkpoints; one is also written after each epoch."""
    keep_checkpoints: Annotated[int, AtLeast(1)] = 3
    """The last so many are kept, and the best by probe."""
    probe_every: Annotated[int, AtLeast(0)] = 5
    """Epochs between two k-NN probes; 0: none."""

    def __post_init__(self) -> None:
        check_values(self)
        terms = self.objective.terms
        check_method(self)
        check(0 < len(terms) == len(set(terms)), self.objective, "terms", "one or more, each once")
        check(self.batch_size % self.batch_norm_group == 0, self, "batch_size", "a multiple of batch_norm_group")
        check(self.batch_size % self.mixup_blocks == 0, self, "mixup_blocks", "a divisor of batch_size")

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        falls = sum(epoch >= milestone for milestone in self.optimizer.lr_milestones)
        return self.optimizer.lr * self.batch_size / 256 * self.optimizer.lr_decay**falls

    def to_dict(self) -> dict[str, Any]:
        """All keys and values, as JSON knows them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


SECTIONS = {"objective": Objective, "augment": Augment, "restoration": Restoration, "optimizer": Optimizer}


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
    for key, section in SECTIONS.items():
        if key in values:
            values[key] = _build(section, values[key], key)
    recipe: Recipe = _build(Recipe, values, "the recipe")
    return recipe


def _build(kind: Any, values: Any, where: str) -> Any:
    """Make a dataclass from a TOML table; lists become tuples.

    Raises:
        RecipeError: `values` is not a table, or a key is unknown or missing.
    """
    fields = dataclasses.fields(kind)
    names = ", ".join(field.name for field in fields)
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a table with keys among {names}, found {values!r}")
    if missing := [field.name for field in fields if _is_required(field) and field.name not in values]:
        raise RecipeError(f"{where} has no {', '.join(missing)}; add it")
    if unknown := sorted(set(values) - {field.name for field in fields}):
        raise RecipeError(f"unknown key {', '.join(unknown)} in {where}; expected keys among {names}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def recipe_table() -> Table:
    """What `list_recipes` names, to be printed: name, table and row of the paper, description."""
    table = Table("recipe", "paper", "what it is", box=None, pad_edge=False)
    for recipe in map(load_recipe, list_recipes()):
        table.add_row(recipe.name, recipe.table, recipe.description)
    return table
