"""Roofline model: FLOPs and bytes of a workload, and the machine's highest rates for both.

FLOPs are counted exactly, by torch: matrix products and convolutions, two per multiply-add. Bytes are an estimate: each
operation reads and writes its tensors once, as if nothing were cached or fused. A machine that caches or fuses may
therefore be faster than the "memory" limit, but never faster than the "compute" limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .timing import Workload

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
CONVOLUTION = {"cpu": (32, 128, 32), "cuda": (256, 256, 56)}  # batch, channels, side
VECTOR_LENGTH = {"cpu": 2**25, "cuda": 2**28}  # float32 values: much larger than any cache

_aten = torch.ops.aten
_READS_ROWS = {_aten.index, _aten.index_select, _aten.gather}
_WRITES_ROWS = {_aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_ALLOCATIONS = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten._unsafe_view}


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of matrix products and convolutions, and bytes moved to and from memory."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Ceilings:
    """The machine's highest measured rates.

    Attributes:
        flops: FLOP/s of a large matrix product or convolution in the step's dtype.
        bytes: bytes/s of a triad, a = b + s c.
    """

    flops: float
    bytes: float

    def seconds(self, cost: Cost) -> float:
        """The shortest possible time: computing or moving data, whichever takes longer, because both can overlap."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)

    def bound(self, cost: Cost) -> str:
        """The limit that determines `seconds`: "compute" or "memory"."""
        return "compute" if cost.flops / self.flops >= cost.bytes / self.bytes else "memory"


def count_cost(workload: Workload) -> Cost:
    """Call a workload once and count its FLOPs and bytes. NumPy operations are not counted."""
    with FlopCounterMode(display=False) as flops, ByteCounter() as moved:
        workload()
    return Cost(flops.get_total_flops(), moved.total)


class ByteCounter(TorchDispatchMode):
    """Sums the bytes of the tensors that each operation reads and writes.

    A view moves no bytes. Indexing reads only the selected rows. An expanded tensor has the size of its storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += _moved_bytes(func, args, kwargs or {}, result)
        return result


def _moved_bytes(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes that an operation reads and writes. Its schema lists the arguments that it changes and its new results."""
    schema = func._schema
    returns = [value.alias_info for value in schema.returns]
    is_view = bool(returns) and all(alias is not None and not alias.is_write for alias in returns)
    asks = func.namespace == "prim"  # for a tensor's device, for example
    if is_view or asks or func.overloadpacket in _ALLOCATIONS:
        return 0
    if func.overloadpacket in _READS_ROWS:
        return 2 * _bytes(result)
    if func.overloadpacket in _WRITES_ROWS:
        return 2 * _bytes(args[2])
    results = result if isinstance(result, tuple) else (result,)
    moved = _bytes([value for value, alias in zip(results, returns, strict=False) if alias is None])
    for position, argument in enumerate(schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        is_output = argument.kwarg_only and argument.is_write  # out=: its old content is not read
        moved += _bytes(value) * (argument.is_write + (not is_output))
    return moved


def _bytes(values: Any) -> int:
    """Bytes of all tensors in nested values; an expanded tensor has the size of its storage."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def ceiling_workloads(device: torch.device, precision: str) -> dict[str, Workload]:
    """The workloads whose timings `ceilings` converts to rates; time them together with the others."""
    length, dtype = VECTOR_LENGTH[device.type], getattr(torch, precision)
    a, b = (torch.randn(*2 * [MATRIX_SIDE[device.type]], device=device, dtype=dtype) for _ in range(2))
    batch, channels, side = CONVOLUTION[device.type]
    images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    images, kernel = (tensor.to(memory_format=torch.channels_last) for tensor in (images, kernel))
    x, y, z = (torch.ones(length, device=device) for _ in range(3))

    def multiply() -> None:
        with _matmul_with_convolution_precision():
            torch.mm(a, b)

    return {
        "matmul": multiply,
        "convolution": lambda: functional.conv2d(images, kernel, padding=1),
        "triad": lambda: torch.add(x, y, alpha=2.0, out=z),
    }


def ceilings(workloads: Mapping[str, Workload], seconds: Mapping[str, Sequence[float]]) -> Ceilings:
    """The highest rates over rounds and kernels, from the seconds of `ceiling_workloads`, one value per round."""
    costs = {name: count_cost(workload) for name, workload in workloads.items()}
    best = {name: min(seconds[name]) for name in workloads}
    flops = max(costs[name].flops / best[name] for name in ("matmul", "convolution"))
    return Ceilings(flops, costs["triad"].bytes / best["triad"])


@contextmanager
def _matmul_with_convolution_precision() -> Iterator[None]:
    """Allow TF32 in matrix products if cuDNN's convolutions use it; otherwise a step could exceed the ceiling."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        products.allow_tf32 = before
