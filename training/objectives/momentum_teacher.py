"""A student and a momentum teacher: Algorithm 1, lines 1, 3, 7, 8 and 17.

In MoCo's words the student is the query encoder and the teacher the key encoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..augment import Draws, two_views
from ..distributed import ALONE, World
from ..networks import Encoder, autocast, update_teacher, with_shuffle_bn
from ..recipe import Recipe
from .method import HEALTH_PANEL, Column, Method, Panel, norm

TEACHER_PANELS = (
    HEALTH_PANEL,
    Panel("distance of the teacher", {"teacher_distance": "relative to the student's norm"}),
)


class MomentumTeacher(Method):
    """Two networks of one architecture. The teacher's weights are a moving average of the student's.

    Attributes:
        student: net_s, trained by the optimizer.
        teacher: net_t, moved by `update_teacher`; it gets no gradient.
    """

    def __init__(self, recipe: Recipe, world: World = ALONE) -> None:
        super().__init__(recipe, world)
        projection = (recipe.feature_dim, recipe.projection, recipe.projection_dropout)
        self.student = Encoder(recipe.architecture, *projection)  # line 3
        self.teacher = Encoder(recipe.architecture, *projection)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.networks = (self.student, self.teacher)

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Copy a backbone's tensors into student and teacher."""
        super().load_backbone(state)
        self.teacher.load_state_dict(self.student.state_dict())

    @property
    def teacher_batches(self) -> int:
        """One batch per step: X_2^A."""
        return 1

    def views(self, batch: Tensor, generator: torch.Generator, draws: Draws | None = None) -> tuple[Tensor, ...]:
        """X_1^A for the student and X_2^A for the teacher (line 1); see `Method.views`."""
        return two_views(batch, self.recipe, generator, self.world, draws)

    def student_features(self, x: Tensor) -> Tensor:
        """net_s(x) (line 7): images [B, 1, S, S] -> float32 [B, D], not normalised."""
        return self.run_student(x)

    @torch.no_grad()
    def teacher_features(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """net_t(x) of every process (line 8): images [B, 1, S, S] on each -> float32 [W B, D], not normalised."""
        if self.recipe.precision == "bfloat16":
            x = x.bfloat16()  # the first layer would do it; done here, half as many bytes go to other processes
        with autocast(x.device, self.recipe.precision):
            return self.run_teacher(x, generator).float()

    def run_teacher(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The teacher's forward pass with ShuffleBN: [B, 1, S, S] on each process -> [W B, D]."""
        return with_shuffle_bn(self.teacher, x, self.recipe.batch_norm_group, generator, self.world)

    def after_step(self, step: Any) -> None:
        """Update the teacher (line 17)."""
        update_teacher(self.teacher, self.student, self.teacher_momentum)

    def health(self, step: Any) -> dict[str, Tensor]:
        """As `Method.health`; with the distance of the teacher's weights from the student's, relative to the latter."""
        student: list[Tensor] = [*self.student.parameters()]
        teacher: list[Tensor] = [*self.teacher.parameters()]
        with torch.no_grad():
            distance = norm(torch._foreach_sub(teacher, student)) / norm(student)
        return super().health(step) | {"teacher_distance": distance}

    def columns(self, images: Tensor, views: Sequence[Tensor], generator: torch.Generator) -> list[Column]:
        """The two augmented views."""
        x1_a, x2_a = views
        return [self.column("view 1", "for the student", x1_a), self.column("view 2", "for the teacher", x2_a)]
