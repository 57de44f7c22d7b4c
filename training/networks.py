"""Encoder of student and teacher, momentum update, ghost batch norm, ShuffleBN and batch-norm recalibration."""

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

    The other layers see the whole batch, because one large convolution is faster than many small ones.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    @torch.compiler.disable  # batch norm runs between the compiled parts
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm and kwargs["training"]:
            x, *rest = args
            return torch.cat([func(rows, *rest, **kwargs) for rows in x.split(self.group)])
        return func(*args, **kwargs)


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
