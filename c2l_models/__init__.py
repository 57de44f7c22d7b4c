"""Radiograph-pretrained backbones in one line.

>>> import c2l_models
>>> model = c2l_models.resnet18(pretrained=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    from .architectures import list_models
    from .embedding import Embeddings, embed
    from .models import create_model, densenet121, resnet18
    from .radiographs.reading import read_radiograph
    from .releases.registry import Weights, get_weights, list_weights

    __version__: str

# Where each name lives: importing the package alone loads neither torch nor timm.
_MODULES = {
    "Embeddings": "embedding",
    "embed": "embedding",
    "create_model": "models",
    "densenet121": "models",
    "resnet18": "models",
    "read_radiograph": "radiographs.reading",
    "Weights": "releases.registry",
    "get_weights": "releases.registry",
    "list_models": "architectures",
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
    "densenet121",
    "embed",
    "get_weights",
    "list_models",
    "list_weights",
    "read_radiograph",
    "resnet18",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
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
    except PackageNotFoundError:  # a plain checkout, as torch.hub takes it
        return "0+checkout"
