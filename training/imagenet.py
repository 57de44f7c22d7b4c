"""torchvision's ImageNet weights from the hub, as a network with one channel (not the release `resnet18.imagenet`)."""

from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from c2l_models.architectures import find_architecture, list_models
from c2l_models.errors import C2LError
from c2l_models.hub.weight_file import FILE_NAME, read_verified
from c2l_models.publishing.normalisation import fold_normalisation
from c2l_models.releases.record import stored_tensors

TAG = "tv_in1k"
"""timm's tag of torchvision's supervised ImageNet weights."""
HUB_TIMEOUT = 5
"""Seconds to wait for the hub's first answer; its own client would try for a minute."""


class InitializationNotAvailable(C2LError):
    """The initialization exists, but cannot be downloaded now. The message names its URL and the reason."""


def imagenet_config(architecture: str) -> Any:
    """timm's configuration of the weights. Raises C2LError for an architecture without them."""
    if architecture not in list_models():
        raise C2LError(f"imagenet:{architecture}: expected imagenet: and one of {', '.join(list_models())}")
    return timm.get_pretrained_cfg(f"{architecture}.{TAG}")


def load_imagenet(architecture: str, mean: float, std: float) -> tuple[nn.Module, str]:
    """Load the network, with the normalisation of three channels folded into one: exact except at the image's border.

    Args:
        architecture: one with a release.
        mean, std: normalisation of the grey input, whose intensities lie in [0, 1].

    Returns:
        The network in evaluation mode, float [B, 1, S, S] -> [B, F], and the sha256 of its weight file.

    Raises:
        InitializationNotAvailable: the weights are not in the hub's cache, and the hub does not answer.
        WeightsNotFound: no such architecture.
        C2LError: no such weights, or they are damaged.
    """
    classifier, config = find_architecture(architecture).classifier, imagenet_config(architecture)
    file = read_verified(_download(config.hf_hub_id))
    state = _with_timm_keys(architecture, stored_tensors(file))
    folded = fold_normalisation(state, architecture, config.mean, config.std, mean, std)
    network = timm.create_model(architecture, in_chans=1, num_classes=0)
    network.load_state_dict({key: value for key, value in folded.items() if not key.startswith(f"{classifier}.")})
    return network.eval(), file.sha256


def _with_timm_keys(architecture: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a file's tensors to the keys of timm's network, head included. Raises C2LError if they do not fit."""
    try:
        network = timm.create_model(
            f"{architecture}.{TAG}", pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}
        )
    except RuntimeError as error:
        raise C2LError(f"ImageNet's weights in the hub's cache do not fit {architecture}: {error}") from None
    state: dict[str, Tensor] = network.state_dict()
    return state


def _download(repository: str) -> Path:
    """The weight file of a hub repository, cached or downloaded. A download without a network fails within seconds."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, FILE_NAME)
    if isinstance(cached, str):
        return Path(cached)
    url = huggingface_hub.hf_hub_url(repository, FILE_NAME)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)  # tries once; a download tries many times
        return Path(huggingface_hub.hf_hub_download(repository, FILE_NAME))
    except Exception as error:  # the type depends on the HTTP library of the hub's client
        reason = str(error).partition("\n")[0]
        raise InitializationNotAvailable(
            f"the initialization 'imagenet' needs {url}, which is not in the hub's cache and cannot be downloaded: "
            f"{reason}. Run the command once with a network, or copy the hub's cache (HF_HOME) from a machine that ran "
            f"`hf download {repository}`. The release resnet18.imagenet needs no network; it has other weights, also "
            "trained on ImageNet"
        ) from error
