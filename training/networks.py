"""Encoder, momentum update, ghost batch norm, ShuffleBN, batch-norm recalibration, and autocast."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from .distributed import ALONE, World


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast for networks on a device, enabled if the precision is "bfloat16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class Encoder(nn.Module):
    """A one-channel backbone and a projection, one linear layer by default.

    Attributes:
        backbone: timm network, [B, 1, S, S] -> [B, F].
        projection: [B, F] -> [B, D], not normalised (feature mixup mixes before the L2 norm).
    """

    def __init__(
        self, architecture: str, feature_dim: int, projection: str = "linear", projection_dropout: float = 0.0
    ) -> None:
        """`projection`: "linear", or "mlp" for two layers with a ReLU; `projection_dropout`: dropout on its input."""
        super().__init__()
        backbone: Any = timm.create_model(architecture, pretrained=False, in_chans=1, num_classes=0)
        self.backbone = backbone
        width = backbone.head_hidden_size
        head: nn.Module = nn.Linear(width, feature_dim)
        if projection == "mlp":
            head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), head)
        self.projection = nn.Sequential(nn.Dropout(projection_dropout), head) if projection_dropout else head

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.backbone(x))


def random_network(architecture: str, seed: int, zero_init_last: bool | None = None) -> nn.Module:
    """timm's network with random weights, [B, 1, S, S] -> [B, F]. The global random state does not change.

    Args:
        architecture: a timm name.
        seed: seed of the weights.
        zero_init_last: whether residual branches begin at zero; None: timm's default.
    """
    options: dict[str, Any] = {} if zero_init_last is None else {"zero_init_last": zero_init_last}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = timm.create_model(architecture, in_chans=1, num_classes=0, **options)
    return network.to(memory_format=torch.channels_last)


def has_zero_init(architecture: str) -> bool:
    """Whether timm initializes the last batch norm of each residual branch to zero (`zero_init_last`)."""
    return isinstance(timm.create_model(architecture), timm.models.ResNet)


def with_ghost_batch_norm(network: nn.Module, x: Tensor, group: int, checkpointed: bool = False) -> Tensor:
    """Run a batch [B, …] through the network; batch norm takes the statistics of each `group` rows separately.

    Args:
        network: [B, …] -> [B, D].
        x: the batch.
        group: rows that share batch statistics.
        checkpointed: run one group after the other, keep only its output, and compute it again in the backward pass
            with the same dropout and precision. Gradients are the same to the rounding of sums; running statistics
            are not (see `buffers_kept`).
    """
    if checkpointed:
        return torch.cat([checkpoint(network, rows, use_reentrant=False) for rows in x.split(group)])
    with _GhostBatchNorm(group):
        return network(x)


class _GhostBatchNorm(TorchFunctionMode):
    """Context in which batch norm in training mode normalises each `group` rows by their own statistics.

    The other layers see the whole batch, because one large convolution is faster than many small ones. `torch.compile`
    traces this context as part of the network.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.batch_norm:
            return _ghost_batch_norm(self.group, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _ghost_batch_norm(
    group: int,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` of x [B, C, …], with statistics of each `group` rows if `training`.

    On a CPU the groups are normalised one after the other, because copying them into channels takes longer than
    starting an operation for each. Elsewhere, and in compiled networks, they are normalised in one call: outputs and
    the gradient of x are the same, the gradients of weight and bias to the rounding of sums.
    """
    settings = (running_mean, running_var, weight, bias, training, momentum, eps)
    if not training or len(x) <= group:
        return functional.batch_norm(x, *settings)
    if (x.device.type == "cpu" and not torch.compiler.is_compiling()) or len(x) % group:
        return torch.cat([functional.batch_norm(rows, *settings) for rows in x.split(group)])
    return batch_norm_in_one_call(group, x, running_mean, running_var, weight, bias, momentum, eps)


def batch_norm_in_one_call(
    group: int,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise each `group` rows of x [B, C, …] by their own statistics, in one batch norm of B / group · C channels.

    The other arguments are `functional.batch_norm`'s. The running statistics become those after one update per group,
    in the order of the rows.
    """
    groups = len(x) // group
    weights, biases = (None if values is None else values.repeat(groups) for values in (weight, bias))
    y = _groups_to_channels(x, groups)
    if running_mean is None or running_var is None:
        y = functional.batch_norm(y, None, None, weights, biases, True, momentum, eps)
    else:
        found = running_mean.new_zeros(2, groups * x.shape[1])  # each group's mean and variance
        y = functional.batch_norm(y, found[0], found[1], weights, biases, True, 1.0, eps)
        _update_running([running_mean, running_var], found.view(2, groups, -1), momentum)
    return _channels_to_groups(y, groups)


def _update_running(running: list[Tensor], found: Tensor, momentum: float) -> None:
    """r = (1 - m) r + m f for each f of `found` [2, G, C], in the order of G, as one weighted sum; changes `running`.

    No matrix product, which would be in bfloat16 or TF32.
    """
    keep, groups = 1 - momentum, found.shape[1]
    later = torch.logspace(groups - 1, 0, groups, base=keep, dtype=found.dtype, device=found.device)  # keep^(G - 1 - g)
    sums = (found * later.unsqueeze(1)).sum(dim=1)
    torch._foreach_mul_(running, keep**groups)
    torch._foreach_add_(running, list(sums.unbind()), alpha=momentum)


def _groups_to_channels(x: Tensor, groups: int) -> Tensor:
    """[G g, C, …] -> [g, G C, …], in the same memory layout, as are the gradients."""
    last = x.movedim(1, -1)
    if last.is_contiguous():  # channels-last
        return last.unflatten(0, (groups, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)
    return x.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)


def _channels_to_groups(y: Tensor, groups: int) -> Tensor:
    """The inverse of `_groups_to_channels`: [g, G C, …] -> [G g, C, …]."""
    last = y.movedim(1, -1)
    if last.is_contiguous():  # channels-last
        return last.unflatten(-1, (groups, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
    return y.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)


def with_shuffle_bn(
    network: nn.Module, x: Tensor, group: int, generator: torch.Generator, world: World = ALONE
) -> Tensor:
    """ShuffleBN: shuffle the images of all processes, run ghost batch norm, and undo the shuffle in the output.

    A key is then normalised with other images than its query, so batch statistics do not reveal which key belongs to
    which query.

    Args:
        network: [B, …] -> [B, D], run without gradient.
        x: this process's images [B, …]. The images of all W processes are shuffled together, and each process
            computes an equal part.
        group: images that share batch statistics.
        generator: in the same state on every process.
        world: the processes.

    Returns:
        Every process's outputs [W B, D], on each process, in the order of `World.gather`.
    """
    everyone = world.gather(x)  # [W B, …]
    shuffle = torch.randperm(len(everyone), generator=generator, device=generator.device).to(x.device)
    shuffled = world.gather(with_ghost_batch_norm(network, everyone[world.block(shuffle)], group))  # [W B, D]
    return shuffled[shuffle.argsort()]


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """net_t = θ net_t + (1 - θ) net_s (equation 2), on parameters only.

    Buffers are not averaged: the teacher's running statistics come from its own forward passes.
    """
    move = get_ema_multi_avg_fn(momentum)
    move(list(teacher.parameters()), list(student.parameters()), None)


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Restore the network's buffers, batch norm's running statistics, on exit.

    Needed for a backward pass with gradient checkpointing, because it runs each group again and would count its
    statistics twice. Losses and gradients do not depend on running statistics, but a probe or export does if the
    recipe has `recalibrate = false`; its result is then the same with and without checkpointing.
    """
    kept = [buffer.clone() for buffer in network.buffers()]
    yield
    for buffer, before in zip(network.buffers(), kept, strict=True):
        buffer.copy_(before)


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch norm's running statistics to the average over clean batches, weighted by their sizes.

    Training leaves the statistics of augmented and mixed batches, but probes, exports and users see clean images. The
    network's mode, momentum and parameters do not change.

    Args:
        network: on the batches' device.
        batches: normalised float [B, 1, S, S]. Each batch should be a random sample, because the variance within
            batches misses the variance between them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
    seen = 0  # images so far
    try:
        for batch in batches:
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # a running mean over images
            network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)
