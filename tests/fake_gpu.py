"""A GPU that no machine needs: fake tensors on cuda:0, which raise if a step mixes devices or waits for the GPU.

Fake tensors have shapes, dtypes and a device, but no values. Torch's autograd engine refuses to run backward on a GPU
that is not there, so `Tensor.backward` only makes the gradients. A step's backward pass is torch's own operations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from c2l_models.training.fake_step import replace_values

GPU = torch.device("cuda", 0)
aten = torch.ops.aten


class HostCopy(RuntimeError):
    """A tensor of the GPU is copied to the host, which waits for the GPU."""


class FakeGenerator(torch.Generator):
    """A random generator of the fake GPU."""

    device = GPU

    def manual_seed(self, seed: int) -> "FakeGenerator":
        return self


class HostCopies(TorchDispatchMode):
    """Counts copies from the GPU to the host, and raises `HostCopy` at one more than `allowed`.

    `learning`: the parameters to which `Tensor.backward` gives gradients.
    """

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.allowed, self.found = allowed, 0
        self.learning: list[nn.Parameter] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket is aten._sample_dirichlet:  # torch has no fake kernel of it
            return args[0].new_empty(args[0].shape)
        result = func(*args, **kwargs)
        if func.overloadpacket in (aten._to_copy, aten.to, aten.copy_):
            source = args[1] if func.overloadpacket is aten.copy_ else args[0]
            if isinstance(source, Tensor) and source.device == GPU and result.device.type == "cpu":
                self.found += 1
                if self.found > self.allowed:
                    raise HostCopy(f"a tensor of shape {tuple(source.shape)}")
        return result


@contextmanager
def fake_gpu(host_copies: int = 0) -> Iterator[HostCopies]:
    """Context in which cuda:0 exists, with at most `host_copies` copies to the host."""

    def make_gradients(loss: Tensor) -> None:
        assert loss.requires_grad
        assert loss.device == GPU
        for parameter in copies.learning:
            parameter.grad = torch.empty_like(parameter)

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.cuda, "is_available", lambda: True)  # or autocast switches itself off
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(Tensor, "backward", make_gradients)
        patch.setattr(Tensor, "numpy", lambda self: np.zeros(self.shape, str(self.dtype).removeprefix("torch.")))
        patch.setattr(torch, "Generator", FakeGenerator)
        with HostCopies(host_copies) as copies:
            yield copies


def put_on_gpu(copies: HostCopies, module: nn.Module) -> Any:
    """Move a module to the fake GPU, in `fake_gpu`, which `Module.to` cannot do. Its parameters get gradients."""
    replace_values(module, GPU)
    copies.learning += [parameter for parameter in module.parameters() if parameter.requires_grad]
    return module
