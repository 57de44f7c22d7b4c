"""A pretraining step without values: its operations and its peak memory, before a run and on any machine.

Fake tensors have shapes, dtypes and layouts, but no memory, and operations on them compute nothing else. A step of the
paper's size therefore takes seconds.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .networks import Encoder
from .objectives import build
from .objectives.distillation import Distillation
from .objectives.method import Method
from .recipe import Recipe
from .run import make_optimizer

TrainStep = Callable[[nn.Module, torch.optim.Optimizer, Tensor, torch.Generator], object]


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a process's tensors at the peak of a step.

    Attributes:
        networks: parameters of all networks, the student's gradients, and batch norm's statistics.
        optimizer: the optimizer's state.
        queue: the memory queue.
        activations: the rest: views, activations that the backward pass needs, and temporary tensors.
    """

    networks: int
    optimizer: int
    queue: int
    activations: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.networks + self.optimizer + self.queue + self.activations

    def __str__(self) -> str:
        parts = (("activations", self.activations), ("networks", self.networks), ("optimizer", self.optimizer))
        named = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in (*parts, ("queue", self.queue)))
        return f"{self.total / 1e9:.2f} GB ({named})"


def step_memory(recipe: Recipe, train_step: TrainStep, processes: int = 1) -> StepMemory | None:
    """Estimate the peak memory of a step; None if the method reads values of tensors, which a user's own may do.

    The store's images, the workspace of convolutions and the allocator's fragments are not counted.

    Args:
        recipe: the recipe. The largest side of its views counts.
        train_step: `pretrain.train_step`.
        processes: number of processes that share a batch.
    """
    try:
        with fake_step(recipe, train_step, processes) as (method, optimizer, step), TensorMemory() as memory:
            step()  # creates gradients and the optimizer's state
            memory.peak = memory.live
            step()
    except RuntimeError:  # an operation that fake tensors do not have
        return None
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    queue = _bytes([buffer for name, buffer in method.named_buffers() if name.startswith("queue.")])
    held = _bytes([*method.parameters(), *method.buffers()])  # made before the count
    networks, state = held + _bytes(gradients) - queue, _bytes(list(optimizer.state.values()))
    return StepMemory(networks, state, queue, held + memory.peak - networks - state - queue)


@contextmanager
def fake_step(
    recipe: Recipe, train_step: TrainStep, processes: int = 1
) -> Iterator[tuple[Method, torch.optim.Optimizer, Callable[[], object]]]:
    """Context in which calling the third value runs a step of the method and the optimizer without values.

    The arguments are `step_memory`'s. A distillation's source counts as a network of the student's architecture.
    """
    size, batch = max(recipe.size, *recipe.early_sizes, 1), recipe.batch_size // processes
    recipe = replace(recipe, size=size, early_sizes=(), early_shares=(), batch_size=batch, mixup_blocks=1)
    with torch.device("meta"):
        method = build(recipe).to(memory_format=torch.channels_last).train()
        if isinstance(method, Distillation):
            method.set_source(Encoder(recipe.architecture, recipe.feature_dim))
    with FakeTensorMode():
        for module in (method, *getattr(method, "_source", ())):
            replace_values(module, "cpu")
        optimizer = make_optimizer(recipe, method.student, 0.1)
        images = torch.empty(batch, 1, size, size, dtype=torch.uint8)
        yield method, optimizer, lambda: train_step(method, optimizer, images, torch.Generator())


def replace_values(network: nn.Module, device: str | torch.device) -> None:
    """In `FakeTensorMode`: replace parameters and buffers by fake ones on a device, which `Module.to` cannot do."""

    def fake(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)

    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(fake(value), value.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else fake(buffer)


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations create in this context.

    Attributes:
        live: bytes of the tensors that still exist.
        peak: the largest value of `live` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {leaf.untyped_storage() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            storage = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if storage is not None and storage not in before and storage not in self._known:
                self._known.add(storage)
                weakref.finalize(storage, self._free, storage.nbytes())
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


def _bytes(values: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
