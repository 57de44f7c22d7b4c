"""A recipe: all settings of a pretraining run. The defaults are the paper's, except that of `augment.crop_fit`.

The paper's recipes set `crop_fit`; its default keeps the crops of recipes from before the key. If the paper and its
released code differ, or the paper names no value, the field's docstring says which value was taken. `recipes/` holds
recipes as TOML files. A key that a file leaves out has the value of the file's `base`, if the file names one, and
otherwise the default below.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from c2l_models.architectures import find_architecture, list_models
from c2l_models.errors import WeightsNotFound

from .constraints import Above, AnyNumber, Ascending, AtLeast, AtMost, Between, check, check_values
from .methods import check_method

Share = Annotated[float, Between(0, 1)]


@dataclass(frozen=True)
class Augment:
    """Augmentation of the views: section 4 of the paper; ranges from the released code."""

    crop_scale: Annotated[tuple[float, float], Above(0), AtMost(1), Ascending()] = (0.2, 1.0)
    """Smallest and largest area of the random crop, as a share of the image."""
    crop_ratio: Annotated[tuple[float, float], Above(0), Ascending()] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the random crop, which is drawn log-uniformly."""
    crop_fit: Literal["clamp", "redraw"] = "clamp"
    """Treatment of a crop with a side longer than the image's. redraw: it is drawn again, as in torchvision's
    RandomResizedCrop, which the released code uses; the paper's recipes take it. clamp: the side is shortened, as in
    versions without this key. Clamped crops are larger: at the default scale and ratio, the median area is 0.60 of the
    image instead of 0.53."""
    rotation: Annotated[float, AtLeast(0)] = 10.0
    """Largest rotation in either direction, in degrees."""
    brightness: Share = 0.4
    """The brightness factor is drawn from [1 - brightness, 1 + brightness]."""
    contrast: Share = 0.4
    """The contrast factor is drawn from [1 - contrast, 1 + contrast]."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    jigsaw: Share = 0.0
    """Probability that the 3×3 tiles of a view are permuted, before cutout. "Jigsaw" in Table 2 is 0.5; the paper
    names no value."""
    cutout_holes: Annotated[int, AtLeast(0)] = 3
    """Number of square holes."""
    cutout_side: Share = 32 / 224
    """Side of a hole, as a share of the view's side. The default is 32 of 224 pixels."""


@dataclass(frozen=True)
class Restoration:
    """Corruption of the images that Model Genesis restores (Zhou et al., Models Genesis, MICCAI 2019).

    The values are those of the published code, which corrupts volumes, applied to two axes. A field's docstring says
    if its value differs.
    """

    shuffle: Share = 0.5
    """Probability of local pixel shuffling."""
    shuffle_windows: Annotated[int, AtLeast(1)] = 600
    """Number of shuffled windows in such a view. Our value: the windows cover the view 1.6 to 1.8 times. The published
    code's 10,000 cover its volumes 1.9 times."""
    shuffle_side: Share = 0.1
    """Longest side of a window, as a share of the view's side. The shortest is one pixel."""
    bend: Share = 0.9
    """Probability that a random Bézier curve maps the intensities. The curve rises or falls with equal probability."""
    paint: Share = 0.9
    """Probability of in-painting or out-painting."""
    paint_inside: Share = 0.2
    """Probability of in-painting, if a view is painted. Otherwise it is out-painted."""
    blocks: Annotated[int, AtLeast(1)] = 5
    """Largest number of blocks that in-painting fills or out-painting keeps."""
    another_block: Share = 0.95
    """Probability of each further block, up to `blocks`, and of the first block of in-painting."""
    inside_side: Annotated[tuple[float, float], Between(0, 1), Ascending()] = (1 / 6, 1 / 3)
    """Shortest and longest side of a block that in-painting fills, as shares of the view's side. A block may touch the
    border; the published code leaves three pixels free."""
    outside_side: Annotated[tuple[float, float], Between(0, 1), Ascending()] = (3 / 7, 4 / 7)
    """Shortest and longest side of a block that out-painting keeps, as shares of the view's side."""


@dataclass(frozen=True)
class Objective:
    """The contrastive loss of C2L. The defaults are the method; other values are ablations or readings of the paper.

    The loss has three terms. "clean" contrasts the clean views: CE(v_1^A, v_2^A), the paper's loss_A. "mixed" and
    "feature" are the paper's loss_M (lines 12 and 13): CE(v_1^M, v_2^M) and CE(v_1^M, v_m). The keys of each term in
    use enter the queue Q.
    """

    terms: tuple[Literal["clean", "mixed", "feature"], ...] = ("clean", "mixed", "feature")
    """Terms of the loss, which is their mean unless `reduction` is sum."""
    mixup: Literal["shared", "separate"] = "shared"
    """shared: both views have the same λ and permutation (batch mixup). separate: each view has its own (traditional
    mixup)."""
    mixup_lambda: Literal["beta", "max"] = "beta"
    """beta: λ ~ Beta(alpha, alpha) (equation 1). max: max(λ, 1 - λ), as in the released code; this only swaps the
    weights of the two images."""
    feature_mixup: Literal["before_norm", "after_norm"] = "before_norm"
    """Mix the teacher's features before or after their L2 norm. The paper does not say which; the released code mixes
    before."""
    queue_update: Literal["after_step", "interleaved"] = "after_step"
    """after_step: all keys enter Q after the step (line 18). interleaved: the keys of each term enter Q before the next
    term, as in the released code, so that near-duplicates are among the negatives."""
    shuffle_bn: bool = True
    """Shuffle the teacher's batch before batch norm divides it into groups (ShuffleBN). Not in the paper; in the
    released code."""
    reduction: Literal["mean", "sum"] = "mean"
    """mean: over batch and terms. sum: over both, as printed in the paper; it multiplies the learning rate by 3 B for a
    batch of B."""


@dataclass(frozen=True)
class Distillation:
    """The network whose features the method "distillation" learns."""

    source: str = "resnet18.imagenet"
    """A release, a .safetensors file or a run folder, as for `initialization`. `feature_dim` is the number of its
    features, and `mean` and `std` are its own."""


@dataclass(frozen=True)
class Optimizer:
    """The optimizer and its learning rate (section 4: SGD)."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: as in the paper, with `momentum`. adamw: torch's, with its default betas."""

    lr: Annotated[float, AtLeast(0)] = 0.03
    """Learning rate at a batch size of 256. A run uses lr * batch_size / 256."""
    momentum: Share = 0.9
    """Momentum of SGD. The paper names none; this is the released code's. AdamW does not use it."""
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    """Weight decay."""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: the rate falls at each milestone (section 4). cosine: it falls along half a cosine to `final_lr`, and the
    milestones are not used."""
    warmup: Share = 0.0
    """Share of the run's steps during which the rate rises linearly to `lr`."""
    final_lr: Annotated[float, AtLeast(0)] = 0.0
    """Learning rate at the end of a cosine, at a batch size of 256."""
    lr_milestones: Annotated[tuple[float, ...], AtLeast(0)] = (120, 160, 200)
    """Numbers of epochs after which the learning rate falls. With 120, epoch 121 is the first at the lower rate. A
    fraction of an epoch is rounded to a step."""
    lr_decay: Annotated[float, Above(0)] = 0.1
    """Factor of the learning rate at each milestone."""


@dataclass(frozen=True)
class Recipe:
    """All settings of one pretraining run."""

    name: str
    """Name of the recipe: its file name without .toml."""
    description: str = ""
    """One line for the list of recipes."""
    table: str = ""
    """Table and row of the paper that the recipe reproduces, such as "Table 1, Bat. Mix."."""
    method: str = "c2l"
    """Pretraining method, a name in `methods.METHODS`: c2l, moco, model_genesis or distillation. The table [objective]
    is for c2l only, [restoration] for model_genesis only, [distillation] for distillation only."""
    architecture: str = "resnet18"
    """Backbone: resnet18, densenet121, or another architecture's name in timm, such as mobilenetv3_large_100."""
    initialization: str = "random"
    """Weights with which student and teacher begin: "random", a release such as "resnet18.imagenet", "imagenet"
    (torchvision's, from the hub), a .safetensors file, or a run folder. The projection always begins random."""
    sources: tuple[str, ...] = ()
    """Training images in the store. "dataset:split" takes one split, "dataset" all splits except "test", and
    "dataset:*" all splits. An empty list takes all data sets without their "test" splits."""
    hold_out: Share = 0.0
    """Share of the patients to leave out, chosen by a hash of their ids. (The paper keeps 16k of 86k images for
    fine-tuning: section 3.1.)"""
    balance: Literal["natural", "source"] = "natural"
    """Proportions of the sources in a batch. natural: as in the training images; an epoch uses each image once. source:
    each batch has equally many images of every source (the column `source` of the store's index); an epoch has as many
    steps as with natural, repeats the images of small sources and leaves out a random part of large ones."""

    size: Annotated[int, AtLeast(1)] = 224
    """Side of a view, in pixels."""
    early_sizes: Annotated[tuple[int, ...], AtLeast(1)] = ()
    """Sides of the views in the first phases of the run, in pixels; the last phase has `size`. Small views first show
    more images in the same time. The batch size stays the same."""
    early_shares: Annotated[tuple[float, ...], Above(0)] = ()
    """Share of the run's steps of each phase in `early_sizes`."""
    mean: Annotated[float, AnyNumber()] = 0.5
    """Mean for the normalisation of intensities, which lie in [0, 1]. A round number that favours no data set."""
    std: Annotated[float, Above(0)] = 0.25
    """Standard deviation for the normalisation of intensities. A round number that favours no data set."""
    batch_size: Annotated[int, AtLeast(1)] = 256
    """Images per step, over all processes. A multiple of `batch_norm_group` and of `mixup_blocks`."""
    epochs: Annotated[int, AtLeast(1)] = 240
    """Passes over the training images, if `steps` is 0."""
    steps: Annotated[int, AtLeast(0)] = 0
    """Number of steps. 0: the number follows from `epochs`."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of all random numbers of the run."""

    feature_dim: Annotated[int, AtLeast(1)] = 128
    """Length D of the projected features. The paper names none; this is the released code's."""
    projection: Literal["linear", "mlp"] = "linear"
    """Projection from backbone to feature. linear: one layer. mlp: two layers with a ReLU between. The paper names
    none; the released code's is linear."""
    projection_dropout: Share = 0.0
    """Dropout before the projection. "Dropout" in Table 2 is 0.5; the paper names no value."""
    temperature: Annotated[float, Above(0)] = 0.07
    """Temperature of the contrastive loss. The paper names none; this is the released code's."""
    queue_length: Annotated[int, AtLeast(1)] = 32768
    """Length N of the memory queue, at least 3 * `batch_size`. The paper's is 2^15 (section 4), the released code's
    2^14."""
    teacher_momentum: Share = 0.999
    """Momentum θ of the teacher's update (equation 2)."""
    teacher_momentum_final: Share = 0.0
    """Momentum at the end of the run, which θ approaches along half a cosine. 0: θ is constant, as in the paper."""
    mixup_alpha: Annotated[float, Above(0)] = 1.0
    """Parameter of the mixup weight λ ~ Beta(alpha, alpha) (equation 1)."""
    mixup_blocks: Annotated[int, AtLeast(1)] = 1
    """Number of equal blocks of the batch; images are mixed within their block. With at least as many blocks as
    processes, mixup sends no image between processes. With 8, runs on 1, 2, 4 and 8 processes compute the same."""
    batch_norm_group: Annotated[int, AtLeast(1)] = 32
    """Images that share batch statistics (ghost batch norm; the released code: 4 GPUs of 32 images). ShuffleBN has no
    effect if a group is the whole batch."""

    views: Literal["each_step", "once"] = "each_step"
    """When the augmentation of an image's two views is drawn. each_step: anew at each step, as in the released code.
    once: before the loop, as line 1 of Algorithm 1 is printed. λ and the shuffle (line 2) are drawn at each step."""

    objective: Objective = field(default_factory=Objective)
    augment: Augment = field(default_factory=Augment)
    restoration: Restoration = field(default_factory=Restoration)
    distillation: Distillation = field(default_factory=Distillation)
    optimizer: Optimizer = field(default_factory=Optimizer)

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks. bfloat16 uses autocast; losses, features and parameters stay float32."""
    compile: bool = False
    """Compile each network with `torch.compile`, as one graph for each side of the views. It takes minutes at the
    beginning and needs a C++ compiler on a CPU. Losses are the same to the rounding of sums."""
    gradient_checkpointing: bool = False
    """Save memory: discard the student's activations and recompute them in the backward pass, one batch-norm group at a
    time. It needs the memory of one group, costs one more forward pass, and changes gradients by rounding only."""
    recalibrate: bool = True
    """Recompute the statistics of batch norm on clean images before a probe and an export."""
    exported: Literal["student", "teacher"] = "student"
    """Network that is exported."""
    log_every: Annotated[int, AtLeast(1)] = 20
    """Steps between two lines of the log."""
    checkpoint_minutes: Annotated[float, AtLeast(0)] = 10.0
    """Minutes between two checkpoints, which are written with a line of the log or at the end of an epoch. One is also
    written when a probe is the best so far, and at the end."""
    checkpoint_every: Annotated[int, AtLeast(0)] = 0
    """Steps between two further checkpoints. 0: none."""
    keep_checkpoints: Annotated[int, AtLeast(1)] = 3
    """Number of newest checkpoints to keep. The best one by probe is kept too."""
    probe_every: Annotated[int, AtLeast(0)] = 5
    """Epochs between two k-NN probes. 0: no probes."""

    def __post_init__(self) -> None:
        """Check all settings. Raises RecipeError."""
        check_values(self)
        known = f"one of {', '.join(list_models())}, or another architecture of timm with one first convolution"
        check(_is_architecture(self.architecture), self, "architecture", known)
        check_method(self)
        terms = self.objective.terms
        check(0 < len(terms) == len(set(terms)), self.objective, "terms", "one or more terms, each once")
        check(self.batch_size % self.batch_norm_group == 0, self, "batch_size", "a multiple of batch_norm_group")
        check(self.batch_size % self.mixup_blocks == 0, self, "mixup_blocks", "a divisor of batch_size")
        phases = len(self.early_sizes)
        check(len(self.early_shares) == phases, self, "early_shares", f"{phases} numbers, one for each early size")
        check(sum(self.early_shares) < 1, self, "early_shares", "a sum below 1, so that the last phase has steps too")
        each_step = not phases or self.views == "each_step"
        check(each_step, self, "views", "each_step, because views of several sizes cannot be drawn once")

    def to_dict(self) -> dict[str, Any]:
        """All keys and their values, as JSON represents them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def _is_architecture(name: str) -> bool:
    try:
        find_architecture(name)
    except WeightsNotFound:
        return False
    return True


SECTIONS = {
    "objective": Objective,
    "augment": Augment,
    "restoration": Restoration,
    "distillation": Distillation,
    "optimizer": Optimizer,
}
