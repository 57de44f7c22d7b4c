"""Student and teacher: a timm backbone, a projection, a momentum update, and batch norm that cannot cheat."""

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
        """`projection`: "linear", or "mlp", two layers with a ReLU; `projection_dropout`: of its input."""
        super().__init__()
        backbone: Any = timm.create_model(architecture, pretrained=False, in_chans=1, num_classes=0)
        self.backbone = backbone
        width = backbone.num_features
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
        seed: of the weights.
        zero_init_last: whether residual branches begin at zero; None: timm's default.
    """
    options: dict[str, Any] = {} if zero_init_last is None else {"zero_init_last": zero_init_last}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = timm.create_model(architecture, in_chans=1, num_classes=0, **options)
    return network.to(memory_format=torch.channels_last)


def in_groups(network: nn.Module, x: Tensor, group: int, checkpointed: bool = False) -> Tensor:
    """Run a batch [B, …] through the network, with batch statistics of their own for each `group` rows.

    Args:
        network: [B, …] -> [B, D].
        x: the batch.
        group: rows that share batch statistics.
        checkpointed: run one group after the other, keep nothing of it but its rows, and run it again in the backward
            pass, with the same dropout and precision. The gradients are the same to the rounding of sums; see
            `buffers_kept` for what is not.
    """
    if checkpointed:
        return torch.cat([checkpoint(network, rows, use_reentrant=False) for rows in x.split(group)])
    with _GroupStatistics(group):
        return network(x)


class _GroupStatistics(TorchFunctionMode):
    """Inside, batch norm in training mode takes the statistics of each `group` rows by themselves.

    The other layers see the whole batch: one large convolution is faster than many small ones.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    @torch.compiler.disable  # batch norm runs between compiled parts
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm and kwargs["training"]:
            x, *rest = args
            return torch.cat([func(rows, *rest, **kwargs) for rows in x.split(self.group)])
        return func(*args, **kwargs)


def in_shuffled_groups(
    network: nn.Module, x: Tensor, group: int, generator: torch.Generator, world: World = ALONE
) -> Tensor:
    """ShuffleBN: `in_groups` after a shuffle over all processes, undone in the output.

    A key is normalised with other images than its query is, so that batch statistics do not tell which key belongs
    to which query.

    Args:
        network: [B, …] -> [B, D], run without gradient.
        x: this process's images [B, …]; all W processes' are shuffled together, and each takes an equal part.
        group: images that share batch statistics.
        generator: in the same state on every process.
        world: the processes.

    Returns:
        Every process's outputs [W B, D], on each of them, in the order of `World.gather`.
    """
    everyone = world.gather(x)
    shuffle = torch.randperm(len(everyone), generator=generator, device=generator.device).to(x.device)
    shuffled = world.gather(in_groups(network, everyone[world.block(shuffle)], group))
    return shuffled[shuffle.argsort()]


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """net_t = θ net_t + (1 - θ) net_s (equation 2), on parameters only.

    Buffers are the teacher's own: batch norm's running statistics come from its own forward passes.
    """
    move = get_ema_multi_avg_fn(momentum)
    move(list(teacher.parameters()), list(student.parameters()), None)


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """What runs inside leaves the network's buffers, batch norm's running statistics, as they were.

    For a backward pass under gradient checkpointing, where each group is run again and would be counted again. No loss
    or gradient depends on that (batches are normalised with their own statistics), the teacher is not run again, and
    probe and export set the statistics anew. But where they do not (`recalibrate = false`) they take what training
    left: with this, that is the same with and without checkpointing.
    """
    kept = [buffer.clone() for buffer in network.buffers()]
    yield
    for buffer, before in zip(network.buffers(), kept, strict=True):
        buffer.copy_(before)


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch norm's running statistics to the average over normalised float batches [B, 1, S, S], by their sizes.

    Training leaves a blend of augmented and mixed batches in them; a probe, an export and a user see clean films.
    Each batch should be a random draw: a variance within batches misses what lies between them. The network's mode,
    momentum and parameters are as before.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
    seen = 0
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
