"""What learns: a start with a new head, its loss, and how its parameters are stepped."""

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn import functional

from ..initialization import Initialization
from .settings import Settings


def with_head(start: Initialization, outputs: int, settings: Settings) -> nn.Module:
    """The start's own network with a new linear head: [B, 1, S, S] -> logits [B, outputs]; it is changed in place.

    Frozen, only the head has gradients; the global random state is left alone.
    """
    network: Any = start.network
    device = next(network.parameters()).device
    network.requires_grad_(not settings.frozen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network.reset_classifier(outputs)
    network.get_classifier().requires_grad_(True)
    result: nn.Module = network.to(device, memory_format=torch.channels_last)
    return result


def masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over known labels: logits [B, L], targets 0, 1 or NaN (unknown) [B, L].

    0 where none is known.
    """
    known = ~targets.isnan()
    each = functional.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def make_optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """timm's, over what has gradients; a stage's rate is `lr` times its group's `lr_scale`, which the schedule sets."""
    groups = param_groups_layer_decay(
        _by_stage(network), weight_decay=settings.weight_decay, layer_decay=settings.layer_decay
    )
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        groups,
        opt=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=0.9,
        fused=True,  # on a CPU core a third of the time, which was a sixth of a step's
    )
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> Scheduler:
    """The rate at each of so many steps: `step_update(step)` before it."""
    if settings.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=steps, t_in_epochs=False)
    return StepLRScheduler(optimizer, decay_t=-(-steps // 3), decay_rate=0.1, t_in_epochs=False)


def _by_stage(network: Any) -> nn.Module:
    """The network, its layers grouped by stage for timm.

    timm's finer groups are DenseNet-121's 58 dense layers: any decay would freeze all but the last of them.
    """
    matcher: Callable[..., Any] = network.group_matcher
    network.group_matcher = lambda coarse=False: matcher(coarse=True)
    grouped: nn.Module = network
    return grouped
