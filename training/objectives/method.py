"""The interface of a pretraining method: its networks, loss, logged metrics, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..augment import Draws
from ..distributed import World
from ..networks import autocast, with_ghost_batch_norm
from ..recipe import Recipe


class Loss(Protocol):
    """A loss and its terms, as a named tuple."""

    @property
    def total(self) -> Tensor:
        """The scalar that is differentiated."""


class SingleLoss(NamedTuple):
    """A loss of one term, a scalar."""

    total: Tensor


class MethodStep(Protocol):
    """The result of one forward pass."""

    @property
    def loss(self) -> Loss: ...

    def metrics(self) -> dict[str, Tensor]:
        """The logged metrics: scalars, left on their device. One of them is "loss"."""


@dataclass(frozen=True)
class Panel:
    """One plot of curves.png.

    Attributes:
        title: the plot's title.
        curves: each curve's legend, by the metric's name in the log.
        limits: limits of the y axis; None: chosen from the values.
    """

    title: str
    curves: Mapping[str, str]
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Column:
    """One column of first_batch.png.

    Attributes:
        title: the kind of image.
        subtitle: where the images are, or the network that sees them.
        images: [B, 1, S, S], intensities in [0, 1].
        captions: a line below each image.
    """

    title: str
    subtitle: str
    images: Tensor
    captions: Sequence[str]

    def first(self, count: int) -> "Column":
        """The column's first images, on the CPU."""
        return Column(self.title, self.subtitle, self.images[:count].cpu(), self.captions[:count])


HEALTH_PANEL = Panel("gradient", {"gradient_norm": "norm of the student's gradient"})
"""The plot of `Method.health`."""


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, a scalar."""
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


class Method(nn.Module):
    """Networks and state of a method, the same on every process.

    Attributes:
        student: the network that learns; its `backbone` maps images [B, 1, S, S] to features [B, F].
        networks: the networks that `torch.compile` may compile.
        teacher_momentum: momentum θ of the next update of a teacher. The run sets it before each step.
        PANELS: the plots of the logged metrics.
        PROGRESS: the metrics on the progress line, each with its format.
    """

    student: Any
    networks: tuple[nn.Module, ...]
    PANELS: ClassVar[tuple[Panel, ...]]
    PROGRESS: ClassVar[Mapping[str, str]] = {"loss": "loss {:.3f}"}

    def __init__(self, recipe: Recipe, world: World) -> None:
        super().__init__()
        self.recipe, self.world = recipe, world
        self.teacher_momentum = recipe.teacher_momentum

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Copy a backbone's tensors into the student, and into a teacher if the method has one."""
        self.student.backbone.load_state_dict(state)

    @property
    def exported_backbone(self) -> nn.Module:
        """The backbone that is probed and exported: the student's or the teacher's, as the recipe's `exported` says."""
        backbone: nn.Module = getattr(self, self.recipe.exported).backbone
        return backbone

    @property
    def teacher_batches(self) -> int:
        """Number of forward passes of a teacher per step, each on one batch. 0: the method has no teacher."""
        return 0

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None) -> tuple[Tensor, ...]:
        """Make the views that `forward` takes; its last argument is the generator.

        Args:
            batch: uint8 [B, 1, S, S], this process's images.
            generator: on the batch's device, in the same state on every process.
            draws: the augmentation of the two views, if it was drawn before the loop.
        """
        raise NotImplementedError

    def after_step(self, step: Any) -> None:
        """Called after the optimizer step, for example to update a teacher. Does nothing by default."""

    def health(self, step: Any) -> dict[str, Tensor]:
        """Metrics of the last step that are too slow to compute after each: scalars, left on their device.

        Called after the optimizer step, for each line of the log. "gradient_norm" is the norm of the student's
        gradient.
        """
        return {"gradient_norm": norm([p.grad for p in self.student.parameters() if p.grad is not None])}

    def plausible(self, metrics: Mapping[str, Tensor]) -> Tensor:
        """Whether each step's logged values are plausible: bool [steps], from metrics [steps] by name."""
        return metrics["loss"].isfinite()

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """The columns of first_batch.png that show this method's views.

        Args:
            images: uint8 [B, 1, S, S], as in the store.
            views: the result of `views`.
            generator: in the same state as for `forward`.
        """
        raise NotImplementedError

    def column(self, title: str, subtitle: str, view: Tensor, captions: Sequence[str] = ()) -> Column:
        """A column of normalised views [B, 1, S, S]."""
        intensities = (view * self.recipe.std + self.recipe.mean).clamp(0, 1)
        return Column(title, subtitle, intensities, captions or [""] * len(view))

    def run_student(self, x: Tensor) -> Tensor:
        """The student's output on [B, …] with ghost batch norm, computed in the recipe's precision, float32."""
        group, checkpointed = self.recipe.batch_norm_group, self.recipe.gradient_checkpointing
        with autocast(x.device, self.recipe.precision):
            return with_ghost_batch_norm(self.student, x, group, checkpointed).float()
