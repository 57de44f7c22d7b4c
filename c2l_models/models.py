"""Build backbones: timm's networks, filled with verified weights in one `timm.create_model` call."""

from typing import TYPE_CHECKING, Any, Protocol

from .architectures import find_architecture
from .errors import C2LError, WeightsCorrupted
from .hub.weight_file import VerifiedFile
from .releases.record import Weights, stored_tensors
from .releases.registry import Source, default_weights, open_weights
from .releases.timm_config import config_with_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

# Through these keywords timm would load a pickle or an unverified file, or leave layers of a wrong file out in silence.
REFUSED = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict")


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
    """Build the timm model of an architecture, in training mode, as timm returns it.

    The model's `pretrained_cfg` describes its input; `Weights.transform(in_chans)` prepares an image for it.

    Args:
        name: one of `list_models()`; with weights of your own, also another architecture of timm.
        pretrained: True loads the architecture's default release. False or None, without `weights`: random
            initialization.
        weights: a release's name, a `Weights`, a `.safetensors` file, a folder with `model.safetensors`, or a hub
            repository with it, `hf-hub:owner/name[@revision]`. Implies `pretrained=True`.
        sha256: expected hash of the weight file. A release is verified by its own hash in any case.
        num_classes: outputs of a new, randomly initialized head; 0: pooled features [B, D].
        in_chans: 1 for grayscale images, 3 for the same images repeated to RGB. Both give the same features.
        timm_kwargs: timm's own options, such as `features_only`, `global_pool` or `drop_rate`. Not allowed:
            `checkpoint_path`, `pretrained_cfg` and `pretrained_cfg_overlay`, which name other weights, and
            `pretrained_strict`, which would accept weights of another network.

    Raises:
        WeightsNotFound: unknown architecture, release, file, repository or revision.
        WeightsCorrupted: the weights have a wrong hash, format, keys or shapes.
        HubRefused, HubUnavailable, HubCacheError: the hub repository could not be read.
        C2LError: arguments that contradict each other, or a keyword that is not allowed.
        TypeError: a keyword that timm does not know.

    Examples:
        >>> model = create_model("resnet18", pretrained=True, in_chans=1).eval()
    """
    find_architecture(name)
    _check_arguments(pretrained, weights, timm_kwargs)
    # A feature pyramid has no head; timm would look for the head's weights in the file.
    num_classes = 0 if timm_kwargs.get("features_only") else num_classes
    timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
    if weights is None and not pretrained:
        if sha256 is not None:
            raise C2LError("expected pretrained=True or weights= beside sha256=, found neither")
        import timm

        return timm.create_model(name, pretrained=False, **timm_kwargs)
    record, file = open_weights(default_weights(name) if weights is None else weights, sha256)
    if record.architecture != name:
        raise C2LError(
            f"expected weights of {name}, found {record.architecture} in {record.location}; "
            f"build it with create_model({record.architecture!r}, ...)"
        )
    return model_from_file(record, file, **timm_kwargs)


class Builder(Protocol):
    """`create_model` for one architecture, for example `c2l_models.resnet18`."""

    def __call__(
        self,
        pretrained: bool | None = None,
        *,
        weights: Source | None = None,
        sha256: str | None = None,
        num_classes: int = 0,
        in_chans: int = 3,
        **timm_kwargs: Any,
    ) -> "nn.Module":
        """Arguments and errors as `create_model`."""


def make_builder(name: str) -> Builder:
    """The function `c2l_models.<name>`, which is also the torch.hub entry point of that name."""
    architecture = find_architecture(name)
    title, features = architecture.title, architecture.num_features

    def build(
        pretrained: bool | None = None,
        *,
        weights: Source | None = None,
        sha256: str | None = None,
        num_classes: int = 0,
        in_chans: int = 3,
        **timm_kwargs: Any,
    ) -> "nn.Module":
        timm_kwargs |= {"num_classes": num_classes, "in_chans": in_chans}
        return create_model(name, pretrained, weights=weights, sha256=sha256, **timm_kwargs)

    build.__doc__ = f"""{title}: radiographs [B, in_chans, H, W] to features [B, {features}].

    Args:
        pretrained: True loads the default release; otherwise, without `weights`, the initialization is random.
        weights: a release's name, a `Weights`, a `.safetensors` file or its folder, or `hf-hub:owner/name[@revision]`.
        sha256: expected hash of the weight file.
        num_classes: outputs of a new head; 0: features.
        in_chans: 1 for grayscale images, 3 for the same images repeated to RGB.
        timm_kwargs: timm's own options, such as `features_only`.

    Details and errors: see `c2l_models.create_model`.

    >>> model = c2l_models.{name}(pretrained=True, in_chans=1).eval()
    >>> model = torch.hub.load("OWNER/REPOSITORY", "{name}", pretrained=True, in_chans=1).eval()
    """
    build.__name__ = build.__qualname__ = name
    build.__module__ = __package__
    return build


def model_from_file(
    record: Weights, file: VerifiedFile, *, num_classes: int = 0, in_chans: int = 3, **timm_kwargs: Any
) -> "nn.Module":
    """Build the network that `record` describes and load the tensors of `file`.

    Raises `WeightsCorrupted` if the tensors do not fit the network, and `C2LError` if `timm_kwargs` are the cause.
    """
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
        raise _misfit(record, tensors, timm_kwargs, " ".join(str(error).split())) from None
    if num_classes:  # With a new head timm loads non-strictly, so a missing or unexpected key would pass.
        _check_keys(record, tensors, model, timm_kwargs)
    _describe_input(model, in_chans)
    return model


def _check_arguments(pretrained: object, weights: Source | None, timm_kwargs: dict[str, Any]) -> None:
    if pretrained is not None and not isinstance(pretrained, bool):
        raise C2LError(
            f"expected True, False or None for pretrained, found {pretrained!r}; "
            "pass a release's name or a weight file as weights="
        )
    if weights is not None and pretrained is False:
        raise C2LError("pretrained=False contradicts weights=, which implies pretrained=True; leave out one of them")
    if refused := [key for key in REFUSED if key in timm_kwargs]:
        raise C2LError(
            f"{', '.join(refused)} cannot be used, because timm would load a pickle, an unverified file or "
            "a part of a file; pass a release's name or a .safetensors file as weights="
        )


def _check_first_conv(record: Weights, tensors: "dict[str, Tensor]") -> None:
    # timm only warns about a first convolution that it cannot adapt, and leaves it at its random initialization.
    key = f"{find_architecture(record.architecture).first_conv}.weight"
    shape = list(tensors[key].shape) if key in tensors else None
    if shape is None or len(shape) != 4 or shape[1] != 3:
        raise WeightsCorrupted(
            f"{record.location}: expected {key} with the shape [outputs, 3, height, width], "
            f"found {shape or 'no such key'}"
        )


def _misfit(record: Weights, tensors: "dict[str, Tensor]", timm_kwargs: dict[str, Any], report: str) -> C2LError:
    """The error for tensors that do not fit: of the arguments if the network without them fits, else of the file."""
    import timm
    import torch

    arguments = sorted(set(timm_kwargs) - {"num_classes", "in_chans"})
    with torch.device("meta"):
        plain = timm.create_model(record.architecture, num_classes=0).state_dict()
    if arguments and {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in tensors.items()}:
        return C2LError(
            f"expected arguments with which {record.architecture} keeps the shapes of {record.location}, found "
            f"{'=, '.join(arguments)}=: {report}. Leave them out, or build the network without weights"
        )
    return WeightsCorrupted(f"{record.location} does not fit {record.architecture}: {report}")


def _check_keys(record: Weights, tensors: "dict[str, Tensor]", model: "nn.Module", timm_kwargs: dict[str, Any]) -> None:
    head = f"{find_architecture(record.architecture).classifier}."
    expected = {key for key in model.state_dict() if not key.startswith(head)}
    missing, unexpected = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or unexpected:
        raise _misfit(record, tensors, timm_kwargs, f"missing keys {missing}, unexpected keys {unexpected}")


def _describe_input(model: "nn.Module", in_chans: int) -> None:
    """Set the model's own input channels in `pretrained_cfg`, and drop the second reference to its tensors."""
    for module in model.modules():  # Some feature extractors keep the plain model inside.
        config = getattr(module, "pretrained_cfg", None)
        if config is not None and config.pop("state_dict", None) is not None:
            config["input_size"] = (in_chans, *config["input_size"][1:])
            config["mean"], config["std"] = config["mean"][:1] * in_chans, config["std"][:1] * in_chans
