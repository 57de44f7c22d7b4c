"""The learning rate over a run, a pure function of recipe and epoch."""

from .recipe import Recipe

LR_BATCH_SIZE = 256
"""The batch size that `Optimizer.lr` is stated for. The rate is proportional to the batch size."""


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0. It falls at each milestone (section 4 of the paper)."""
    optimizer = recipe.optimizer
    falls = sum(epoch >= milestone for milestone in optimizer.lr_milestones)
    return optimizer.lr * recipe.batch_size / LR_BATCH_SIZE * optimizer.lr_decay**falls
