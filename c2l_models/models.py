"""Backbones in one line: timm's networks, built and filled by one `timm.create_model` call."""

from typing import TYPE_CHECKING, Any

from .architectures import find_architecture
from .errors import C2LError, WeightsCorrupted
from .hub.weight_file import VerifiedFile
from .releases.registry import Source, Weights, default_weights, open_weights, stored_tensors
from .releases.timm_config import config_with_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

# timm would load a pickle, or weights that were never checked, through these.
REFUSED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")


def resnet18(
    pretrained: bool | None = None,
    *,
    weights: Source | None = None,
    sha256: str | None = None,
    num_classes: int = 0,
    in_chans: int = 3,
    **timm_kwargs: Any,
) -> "nn.Module":
    """ResNet-18: features [B, 512] from radiographs [B, in_chans, H, W]. See `create_model`."""
    timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
    return create_model("resnet18", pretrained, weights=weights, sha256=sha256, **timm_kwargs)


def densenet121(
    pretrained: bool | None = None,
    *,
    weights: Source | None = None,
    sha256: str | None = None,
    num_classes: int = 0,
    in_chans: int = 3,
    **timm_kwargs: Any,
) -> "nn.Module":
    """DenseNet-121: features [B, 1024] from radiographs [B, in_chans, H, W]. See `create_model`."""
    timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
    return create_model("densenet121", pretrained, weights=weights, sha256=sha256, **timm_kwargs)


def create_model(
    name: str,
    pretrained: bool | None = None,
    *,
    weights: Source | None = None,
    sha256: str | None = None,
    num_classes: int = 0,
    in_chans: int = 3,
    **timm_kwargs: Any,
) -> "nn.Module":
    """A timm model of one of `list_models()`, in training mode as timm gives it.

    - `pretrained`: True for the architecture's default release, False (the default) for random
      initialisation.
    - `weights`: a release's name, a `Weights`, a `.safetensors` file, a folder that holds
      `model.safetensors`, or `hf-hub:owner/name[@revision]`, a repository that does. Implies
      `pretrained=True`.
    - `sha256`: what the file's bytes have to hash to; a release's are checked in any case.
    - `num_classes`: outputs of a new, randomly initialised head; 0 for pooled features.
    - `in_chans`: 1 for grayscale input as it is, 3 for the same repeated; both give the same features.
    - `timm_kwargs`: timm's own (`features_only`, `global_pool`, `drop_rate`, ...), but for those that
      name other weights: `checkpoint_path`, `pretrained_cfg`, `pretrained_cfg_overlay`.

    The model's `pretrained_cfg` says how its input looks; `Weights.transform(in_chans)` makes it.
    Raises `WeightsNotFound`, `WeightsCorrupted` (hash, format, keys or shapes), `HubRefused`,
    `HubUnavailable` or `HubCacheError` for what is on the hub, or `C2LError` where the arguments
    contradict each other or name weights in timm's way; for unknown keywords what timm raises.

    >>> model = create_model("resnet18", pretrained=True, in_chans=1).eval()
    """
    find_architecture(name)
    _check_arguments(pretrained, weights, timm_kwargs)
    # A feature pyramid has no head; timm would look for its weights in the file.
    num_classes = 0 if timm_kwargs.get("features_only") else num_classes
    timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
    if weights is None and not pretrained:
        if sha256 is not None:
            raise C2LError("sha256= without weights: wanted pretrained=True or weights= with it")
        import timm

        return timm.create_model(name, pretrained=False, **timm_kwargs)
    record, file = open_weights(default_weights(name) if weights is None else weights, sha256)
    if record.architecture != name:
        raise C2LError(f"{name} was asked for, and {record.location} holds a {record.architecture}")
    return filled(record, file, **timm_kwargs)


def filled(
    record: Weights, file: VerifiedFile, *, num_classes: int = 0, in_chans: int = 3, **timm_kwargs: Any
) -> "nn.Module":
    """Build the network that `record` describes and fill it from `file`, or raise `WeightsCorrupted`."""
    import timm

    tensors = stored_tensors(file)
    timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
    _check_first_conv(record, tensors)
    config = config_with_tensors(record, tensors)
    try:
        model = timm.create_model(record.architecture, pretrained=True, pretrained_cfg=config, **timm_kwargs)
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        report = " ".join(str(error).split())
        raise WeightsCorrupted(f"{record.location} does not fit {record.architecture}: {report}") from None
    if num_classes:  # then timm loads non-strictly: a key that is missing or too many would pass
        _check_keys(record, set(tensors), model)
    _describe_input(model, in_chans)
    return model


def _check_arguments(pretrained: object, weights: Source | None, timm_kwargs: dict[str, Any]) -> None:
    if pretrained is not None and not isinstance(pretrained, bool):
        raise C2LError(
            f"pretrained is {pretrained!r}, wanted True, False or None. A release's name or a file goes to weights="
        )
    if weights is not None and pretrained is False:
        raise C2LError("pretrained=False with weights=: leave out one of them (weights= implies pretrained=True)")
    if refused := [key for key in REFUSED if key in timm_kwargs]:
        raise C2LError(
            f"{', '.join(refused)}: wanted weights=, with a release's name or a .safetensors file. "
            "No pickle is ever loaded, nor a file that was not checked"
        )


def _check_first_conv(record: Weights, tensors: "dict[str, Tensor]") -> None:
    # timm leaves a first convolution that it cannot adapt at random, with a warning.
    key = f"{find_architecture(record.architecture).first_conv}.weight"
    shape = list(tensors[key].shape) if key in tensors else None
    if shape is None or len(shape) != 4 or shape[1] != 3:
        raise WeightsCorrupted(f"{record.location}: {key} has the shape {shape}, wanted three input channels")


def _check_keys(record: Weights, found: set[str], model: "nn.Module") -> None:
    head = f"{find_architecture(record.architecture).classifier}."
    wanted = {key for key in model.state_dict() if not key.startswith(head)}
    missing, unexpected = sorted(wanted - found), sorted(found - wanted)
    if missing or unexpected:
        raise WeightsCorrupted(
            f"{record.location} does not fit {record.architecture}: missing keys {missing}, "
            f"unexpected keys {unexpected}"
        )


def _describe_input(model: "nn.Module", in_chans: int) -> None:
    """Let `pretrained_cfg` speak of the network's own channels, and hold no second copy of its tensors."""
    for module in model.modules():  # some feature extractors keep the plain model inside
        config = getattr(module, "pretrained_cfg", None)
        if config is not None and config.pop("state_dict", None) is not None:
            config["input_size"] = (in_chans, *config["input_size"][1:])
            config["mean"], config["std"] = config["mean"][:1] * in_chans, config["std"][:1] * in_chans
