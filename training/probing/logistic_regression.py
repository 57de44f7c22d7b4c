"""L2-penalised logistic regression of many labels and penalties at once, by Newton's method in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

TOLERANCE = 1e-11
"""A fit ends when its preconditioned squared gradient has fallen by this factor."""
FORCING = 0.1
"""Relative residual at which the conjugate gradients of a Newton step end."""
MAX_STEPS, MAX_GRADIENTS, MAX_HALVINGS = 100, 100, 30
RANK = 1e-12
"""Principal components with a smaller share of the largest one's variance are left out: they are rounding errors."""
CHUNK = 20_000_000
"""Largest number of images x fits in memory at once: 160 MB for each array in float64."""


def fit_logistic_regressions(features: Tensor, labels: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Fit one logistic regression for each label and penalty.

    Minimizes C Σ_n log(1 + exp(-s_n (w · x_n + b))) + |w|²/2 with s_n = ±1, over the images whose label is known:
    scikit-learn's `LogisticRegression(C=C)`. The intercept b is not penalised.

    The features are rotated to their principal components, where the Hessian is nearly diagonal. Newton's equations
    are then solved by a few conjugate gradients with the diagonal as preconditioner, for all fits in one matrix
    product. Gradients are float64. Conjugate gradients are float32, because a Newton step need not be exact.

    Args:
        features: float64 [N, D], centred and of similar scales.
        labels: [N, L] on the same device; 0, 1 or NaN (unknown).
        penalties: P values of the inverse penalty C.

    Returns:
        Coefficients float64 [P, L, D] and intercepts [P, L]; NaN for a label with only one class.
    """
    labels = labels.to(features)
    weights = features.new_full((features.shape[1] + 1, labels.shape[1], len(penalties)), torch.nan)
    learned = torch.nonzero((labels == 1).any(dim=0) & (labels == 0).any(dim=0)).flatten()
    if len(learned):
        variances, axes = torch.linalg.eigh(features.T @ features)
        axes = axes[:, variances > RANK * variances[-1]]
        design = torch.cat([features @ axes, features.new_ones(len(features), 1)], dim=1)  # the last column: intercept
        inverse = 1 / features.new_tensor(penalties)
        for chunk in learned.split(max(1, CHUNK // (len(features) * len(penalties)))):
            targets = labels[:, chunk].repeat_interleave(len(penalties), dim=1)
            fitted = _newton(design, targets, inverse.repeat(len(chunk))).unflatten(1, (len(chunk), -1))
            weights[:, chunk] = torch.cat([torch.tensordot(axes, fitted[:-1], dims=1), fitted[-1:]])
    return weights[:-1].permute(2, 1, 0), weights[-1].T


def _newton(design: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Weights [R, K] of K fits: design [N, R] with a last column of ones, targets [N, K], penalty [K] of |w|²/2."""
    known, targets = (~targets.isnan()).to(design), targets.nan_to_num()
    weights = design.new_zeros(design.shape[1], targets.shape[1])
    weights[-1] = torch.logit((targets * known).sum(dim=0) / known.sum(dim=0))
    ridge = penalty.expand_as(weights).clone()
    ridge[-1] = 0
    result, left = weights.clone(), torch.arange(len(penalty), device=design.device)
    squares, single, limit = design.square(), design.float(), None
    for _ in range(MAX_STEPS):
        logits = design @ weights
        chances = torch.sigmoid(logits)
        gradient = design.T @ ((chances - targets) * known) + ridge * weights
        curvature = chances * (1 - chances) * known
        diagonal = squares.T @ curvature + ridge
        size = (gradient.square() / diagonal).sum(dim=0)
        limit = TOLERANCE * size if limit is None else limit
        result[:, left] = weights
        if not (going := size > limit).all():
            state = (weights, logits, gradient, curvature, diagonal, ridge, targets, known)
            weights, logits, gradient, curvature, diagonal, ridge, targets, known = (part[:, going] for part in state)
            left, limit = left[going], limit[going]
        if not len(left):
            break
        step = _newton_step(single, gradient.float(), curvature.float(), diagonal.float(), ridge.float()).to(weights)
        weights = weights + _step_size(design @ step, step, logits, weights, gradient, ridge, targets, known) * step
    return result


def _newton_step(design: Tensor, gradient: Tensor, curvature: Tensor, diagonal: Tensor, ridge: Tensor) -> Tensor:
    """Solve Hessian · step = -gradient for K fits by preconditioned conjugate gradients; all arguments float32."""
    step, residual = torch.zeros_like(gradient), -gradient
    scaled = residual / diagonal
    direction, size = scaled, (residual * scaled).sum(dim=0)
    limit = FORCING**2 * size
    for _ in range(MAX_GRADIENTS):
        product = design.T @ (curvature * (design @ direction)) + ridge * direction
        length = torch.where(size > limit, size / (direction * product).sum(dim=0), 0)
        step = step + length * direction
        residual = residual - length * product
        scaled = residual / diagonal
        before, size = size, (residual * scaled).sum(dim=0)
        if (size <= limit).all():
            break
        direction = scaled + size / before.clamp_min(torch.finfo(before.dtype).tiny) * direction
    return step


def _step_size(
    moved: Tensor,
    step: Tensor,
    logits: Tensor,
    weights: Tensor,
    gradient: Tensor,
    ridge: Tensor,
    targets: Tensor,
    known: Tensor,
) -> Tensor:
    """Step sizes [K]: 1, halved until the objective falls (Armijo's rule). `moved`: change [N, K] of the logits."""

    def objective(logits: Tensor, weights: Tensor) -> Tensor:
        loss = (known * (softplus(logits) - targets * logits)).sum(dim=0)
        return loss + (ridge * weights.square()).sum(dim=0) / 2

    start, slope = objective(logits, weights), (gradient * step).sum(dim=0)
    size = torch.ones_like(slope)
    for _ in range(MAX_HALVINGS):
        reached = objective(logits + size * moved, weights + size * step)
        too_far = reached > start + 1e-4 * size * slope + 1e-12 * start.abs()  # the last term: rounding errors
        if not too_far.any():
            break
        size = torch.where(too_far, size / 2, size)
    return size
