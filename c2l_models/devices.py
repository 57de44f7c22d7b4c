"""Devices and number formats of networks: check a device before work begins, and the dtype of a network's input."""

from typing import TYPE_CHECKING

from .errors import C2LError

if TYPE_CHECKING:
    import torch
    from torch import nn


def parse_device(device: "str | torch.device") -> "torch.device":
    """The device of a name. Raises C2LError for an unknown name."""
    import torch

    try:
        return torch.device(device)
    except RuntimeError:
        raise C2LError(f"expected a device such as cpu, cuda or cuda:0, found {str(device)!r}") from None


def find_device(device: "str | torch.device") -> "torch.device":
    """Return a device on which this machine can compute, such as cpu, cuda, cuda:0, mps or xpu.

    Raises C2LError for an unknown name, for a device that this machine or this build of torch lacks, and for meta,
    which computes nothing.
    """
    import torch

    target = parse_device(device)
    if target.type == "cuda":  # nothing is computed, because that would take memory of the first GPU
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= gpus:
            found = f"{gpus} GPUs" if gpus else "no GPU"
            raise C2LError(
                f"device {str(device)!r}, but torch finds {found} on this machine; choose another device, such as cpu"
            )
        return target
    try:
        torch.zeros(1, device=target).cpu()
    except Exception as error:  # each backend has its own: RuntimeError, AssertionError, ModuleNotFoundError, …
        reason = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
        raise C2LError(
            f"device {str(device)!r} cannot be used with torch {torch.__version__}: {reason}; choose another device, "
            "such as cpu"
        ) from None
    return target


def input_dtype(network: "nn.Module") -> "torch.dtype":
    """The floating dtype of a network's parameters, in which it expects its input; float32 without parameters."""
    import torch

    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def check_default_dtype() -> None:
    """Raise C2LError unless torch's default dtype is float32, in which networks are trained."""
    import torch

    if (found := torch.get_default_dtype()) != torch.float32:
        raise C2LError(
            f"expected torch's default dtype to be float32, found {found}; call torch.set_default_dtype(torch.float32)"
        )
