"""One normalisation of a network's input exchanged for another, inside its first two layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..architectures import find_architecture
from ..errors import C2LError, WeightsCorrupted

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What networks trained on ImageNet are given, a channel each, of intensities in [0, 1]."""


def fold_normalisation(
    state_dict: "Mapping[str, Tensor]",
    architecture: str,
    mean: Sequence[float],
    std: Sequence[float],
    onto_mean: float,
    onto_std: float,
) -> "dict[str, Tensor]":
    """A network for a grey image repeated in C channels -> one for the image itself, normalised by two numbers.

    With an intensity i = s z + m, channel c held (i - m_c) / s_c. So the one-channel kernel is Σ_c w_c s / s_c, and
    what is left, the constant Σ_c Σ_pixels w_c (m - m_c) / s_c, is taken from the running mean of the batch norm that
    follows. In evaluation this is exact but for the border: padding is 0 in normalised input, and so was one grey
    and is now another. Batch statistics swallow the constant by themselves.

    Args:
        state_dict: of `architecture`, keys as timm's; a first convolution of C input channels, without a bias.
        architecture: one of `list_models()`.
        mean, std: [C], m_c and s_c: what the network's input was normalised by.
        onto_mean, onto_std: m and s: what it is to be normalised by.

    Returns:
        A state dict with the same tensors, but for these two: a kernel [O, 1, k, k] and a running mean [O].

    Raises:
        C2LError: other than C means and stds, or a std that is not above 0.
        WeightsCorrupted: no such convolution, or no batch norm after it.
    """
    import torch

    ends = find_architecture(architecture)
    kernel_key, norm_key = f"{ends.first_conv}.weight", f"{ends.first_norm}.running_mean"
    for key in (kernel_key, norm_key):
        if key not in state_dict:
            raise WeightsCorrupted(f"the state dict has no {key}: wanted the keys of a plain {architecture}")
    kernel, running_mean = state_dict[kernel_key], state_dict[norm_key]
    if not len(mean) == len(std) == kernel.shape[1] or min(*std, onto_std) <= 0:
        raise C2LError(
            f"mean {tuple(mean)} and std {tuple(std)} onto {onto_mean} and {onto_std}: wanted one of each for the "
            f"{kernel.shape[1]} channels of {kernel_key}, and every std above 0"
        )
    exact = kernel.double()
    m_c, s_c = (
        torch.tensor(values, dtype=torch.float64, device=kernel.device).view(-1, 1, 1) for values in (mean, std)
    )
    folded = (exact * onto_std / s_c).sum(dim=1, keepdim=True)
    constant = (exact * (onto_mean - m_c) / s_c).sum(dim=(1, 2, 3))
    return dict(state_dict) | {
        kernel_key: folded.to(kernel.dtype),
        norm_key: (running_mean.double() - constant).to(running_mean.dtype),
    }
