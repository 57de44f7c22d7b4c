"""What a work computes and moves, and how fast this machine can do either: the roofline.

FLOPs are counted exactly, as torch counts them: matrix products and convolutions, two for a multiply-add. Bytes are an
estimate: each operation's tensors, read once and written once, as if nothing stayed in a cache and nothing were
fused. A machine that caches or fuses well may therefore do better than "memory" says, never better than "compute".
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

from .timing import Work

MATRIX = {"cpu": 2048, "cuda": 8192}
IMAGES = {"cpu": (32, 128, 32), "cuda": (256, 256, 56)}  # batch, channels, side
VECTOR = {"cpu": 2**25, "cuda": 2**28}  # float32 numbers: far more than any cache holds

_aten = torch.ops.aten
_PICKS_ROWS = {_aten.index, _aten.index_select, _aten.gather}
_PUTS_ROWS = {_aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_ALLOCATIONS = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten._unsafe_view}


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of matrix products and convolutions, and bytes moved to and from memory."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of a large matrix product or convolution in the step's dtype, and bytes/s of a triad, a = b + s c."""

    flops: float
    bytes: float

    def seconds(self, cost: Cost) -> float:
        """The least time for this: the slower of computing and moving, as if both went on at once."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)

    def bound(self, cost: Cost) -> str:
        """Which of the two that is."""
        return "compute" if cost.flops / self.flops >= cost.bytes / self.bytes else "memory"


def count(work: Work) -> Cost:
    """Call a work once and count. What NumPy does is not seen."""
    with FlopCounterMode(display=False) as flops, ByteCounter() as moved:
        work()
    return Cost(flops.get_total_flops(), moved.total)


class ByteCounter(TorchDispatchMode):
    """Sums the bytes of the tensors that each operation reads and writes.

    A view moves nothing; picking rows reads only those; a tensor that is expanded counts as large as its storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += _moved(func, args, kwargs or {}, result)
        return result


def _moved(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes that an operation reads and writes, by its schema: which arguments it changes, what it gives anew."""
    schema = func._schema
    returns = [value.alias_info for value in schema.returns]
    is_view = bool(returns) and all(alias is not None and not alias.is_write for alias in returns)
    if is_view or func.overloadpacket in _ALLOCATIONS:
        return 0
    if func.overloadpacket in _PICKS_ROWS:
        return 2 * _bytes(result)
    if func.overloadpacket in _PUTS_ROWS:
        return 2 * _bytes(args[2])
    moved = _bytes([value for value, alias in zip(_as_tuple(result), returns, strict=False) if alias is None])
    for position, argument in enumerate(schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        is_output = argument.kwarg_only and argument.is_write  # out=, of which the content is not looked at
        moved += _bytes(value) * (argument.is_write + (not is_output))
    return moved


def _bytes(values: Any) -> int:
    """Of all tensors among nested values; one that is expanded is as large as its storage."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def ceiling_works(device: torch.device, precision: str) -> dict[str, Work]:
    """The works that `ceilings` turns into rates, to be timed among the others."""
    length, dtype = VECTOR[device.type], getattr(torch, precision)
    a, b = (torch.randn(*2 * [MATRIX[device.type]], device=device, dtype=dtype) for _ in range(2))
    batch, channels, side = IMAGES[device.type]
    images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    kernel = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    images, kernel = (tensor.to(memory_format=torch.channels_last) for tensor in (images, kernel))
    x, y, z = (torch.ones(length, device=device) for _ in range(3))

    def multiply() -> None:
        with _tensor_float32_as_convolutions():
            torch.mm(a, b)

    return {
        "matmul": multiply,
        "convolution": lambda: functional.conv2d(images, kernel, padding=1),
        "triad": lambda: torch.add(x, y, alpha=2.0, out=z),
    }


def ceilings(works: Mapping[str, Work], seconds: Mapping[str, Sequence[float]]) -> Ceilings:
    """Rates from the seconds that `ceiling_works` took, one a round: the best of them, and the better kernel."""
    costs = {name: count(work) for name, work in works.items()}
    best = {name: min(seconds[name]) for name in works}
    flops = max(costs[name].flops / best[name] for name in ("matmul", "convolution"))
    return Ceilings(flops, costs["triad"].bytes / best["triad"])


@contextmanager
def _tensor_float32_as_convolutions() -> Iterator[None]:
    """Matrix products round their operands where cuDNN's convolutions do, or the ceiling would be below the step."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        products.allow_tf32 = before
