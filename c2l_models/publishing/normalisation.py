"""Change the input normalisation that a network expects, by changing its first two layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..architectures import find_architecture
from ..errors import C2LError, WeightsCorrupted

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per-channel mean and standard deviation of the input of ImageNet networks, for intensities in [0, 1]."""


def fold_normalisation(
    state_dict: "Mapping[str, Tensor]",
    architecture: str,
    mean: Sequence[float],
    std: Sequence[float],
    onto_mean: float,
    onto_std: float,
) -> "dict[str, Tensor]":
    """Convert a network for a grey image in C channels to one for a single channel with one mean and std.

    The new input is z = (i - m) / s for the intensity i; channel c of the old input was (i - m_c) / s_c. So the
    one-channel kernel is Σ_c w_c s / s_c. The remaining constant, Σ_c Σ_pixels w_c (m - m_c) / s_c, is subtracted from
    the running mean of the following batch norm. In evaluation mode this is exact except at the border, because the
    padding, 0 in normalised input, represents another intensity than before. In training mode batch statistics remove
    the constant.

    Args:
        state_dict: tensors of an `architecture` network, with timm's keys; the first convolution has C input channels
            and no bias.
        architecture: one of `list_models()`.
        mean, std: [C], m_c and s_c, the old normalisation.
        onto_mean, onto_std: m and s, the new normalisation.

    Returns:
        A copy of the state dict with a new kernel [O, 1, k, k] and a new running mean [O].

    Raises:
        C2LError: the number of means or stds is not C, a std is not above 0, or the architecture is not in
            `list_models()`.
        WeightsCorrupted: the first convolution or its batch norm is missing.
    """
    import torch

    ends = find_architecture(architecture)
    if not ends.first_norm:
        raise C2LError(f"the input of {architecture} cannot be converted, because its first batch norm is not known")
    kernel_key, norm_key = f"{ends.first_conv}.weight", f"{ends.first_norm}.running_mean"
    for key in (kernel_key, norm_key):
        if key not in state_dict:
            raise WeightsCorrupted(f"expected the keys of a plain {architecture}, found no {key} in the state dict")
    kernel, running_mean = state_dict[kernel_key], state_dict[norm_key]
    if not len(mean) == len(std) == kernel.shape[1] or min(*std, onto_std) <= 0:
        raise C2LError(
            f"expected one mean and one std above 0 for each of the {kernel.shape[1]} channels of {kernel_key}, found "
            f"mean {tuple(mean)} and std {tuple(std)}, to be changed to {onto_mean} and {onto_std}"
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
