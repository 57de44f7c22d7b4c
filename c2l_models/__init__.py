"""Radiograph-pretrained backbones in one line.

>>> import c2l_models
>>> model = c2l_models.resnet18(pretrained=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .architectures import list_models
from .errors import (
    C2LError,
    HubCacheError,
    HubRefused,
    HubUnavailable,
    RadiographError,
    WeightsCorrupted,
    WeightsNotFound,
)

if TYPE_CHECKING:
    from .embedding import Embeddings, embed
    from .models import Builder, create_model
    from .radiographs.reading import read_radiograph
    from .releases.record import Weights
    from .releases.registry import get_weights, list_weights

    __version__: str

    # One builder per architecture. Only editors and type checkers read these lines.
    densenet121: Builder
    resnet18: Builder

# The module of each name. It is imported when the name is used, so that importing the package loads neither torch
# nor timm.
_MODULES = {
    "Embeddings": "embedding",
    "embed": "embedding",
    "create_model": "models",
    "read_radiograph": "radiographs.reading",
    "Weights": "releases.record",
    "get_weights": "releases.registry",
    "list_weights": "releases.registry",
}

__all__ = [
    "C2LError",
    "Embeddings",
    "HubCacheError",
    "HubRefused",
    "HubUnavailable",
    "RadiographError",
    "Weights",
    "WeightsCorrupted",
    "WeightsNotFound",
    "__version__",
    "create_model",
    "embed",
    "get_weights",
    "list_models",
    "list_weights",
    "read_radiograph",
    *list_models(),
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in list_models():
        value = import_module(".models", __name__).make_builder(name)
    elif name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("c2l-models")
    except PackageNotFoundError:  # a checkout that is not installed, such as torch.hub's
        return "0+checkout"
