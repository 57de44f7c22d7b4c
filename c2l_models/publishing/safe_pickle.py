"""The tensors of a checkpoint of `torch.save`, read without running anything that it asks for."""

import argparse
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import C2LError

if TYPE_CHECKING:
    from torch import Tensor

SAFE_TORCH = (2, 10)
"""The version from which `torch.load(weights_only=True)` holds what it promises, major and minor."""
DEPTH = 4
"""Tables within tables that are looked into; a checkpoint has two, and a pickle may hold itself."""

_HARMLESS = re.compile(
    r"argparse Namespace|collections OrderedDict|torch \w*(Storage|Size|device|dtype)|torch\._utils _rebuild_\w+"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter"
)
"""Globals that a checkpoint has for good reason: no message names these."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Every tensor of a checkpoint under the dotted path of its keys, on the CPU, copied from the file.

    Takes both formats of `torch.save`, and of classes beyond torch's own `argparse.Namespace` alone: a file that
    asks for any other global is refused, which the message names, and nothing of it has run. Raises `C2LError` for
    that, for a missing or torn file, one of another kind, one without tensors under names, and an older torch.
    """
    import torch

    if not path.is_file():
        raise C2LError(f"{path}: no such file; wanted a checkpoint that torch.save wrote")
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        raise C2LError(
            f"torch {torch.__version__} can be made to corrupt memory by a checkpoint, even by its safe way to read "
            "one (CVE-2026-24747); wanted 2.10 or later: pip install --upgrade torch torchvision"
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol: what comes of it is all there is to say
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of any bytes makes an unpickler raise anything
        raise C2LError(f"{path}: {_why(path, error)}") from None
    tensors = dict(_flat(content, "", DEPTH))
    if not tensors:
        raise C2LError(f"{path}: a {type(content).__name__} without tensors under names; wanted a state dict")
    return tensors


def _flat(content: Any, prefix: str, depth: int) -> "Iterator[tuple[str, Tensor]]":
    from torch import Tensor

    for key, value in content.items() if isinstance(content, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield name, value.detach()
        elif depth and isinstance(key, str):
            yield from _flat(value, f"{name}.", depth - 1)


def _why(path: Path, error: Exception) -> str:
    """What a message says of a file that was not loaded."""
    asked = dict.fromkeys(name for name in _globals(path) if not _HARMLESS.fullmatch(name))
    if asked:
        return (
            f"a pickle that asks for {', '.join(name.replace(' ', '.') for name in list(asked)[:5])}, which could run "
            "code; nothing of it was run. Wanted tensors alone: have its makers save the state dict"
        )
    if path.stat().st_size == 0:
        return "the file is empty; copy or download it again"
    return (
        f"not a whole checkpoint of torch.save with tensors alone ({type(error).__name__}). If it should be one, it is "
        "cut short or damaged: copy or download it again"
    )


def _globals(path: Path) -> list[str]:
    """ "module name" of each global that a file's pickles ask for, in order; read, never run."""
    names: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith("data.pkl"):
                        with archive.open(member) as file:
                            _add_globals(file, names)  # type: ignore[arg-type]
        else:
            with path.open("rb") as file:  # the old format is several pickles, then bytes
                while file.peek(1):
                    _add_globals(file, names)
    except Exception:  # what was found until then is what there is to say
        return names
    return names


def _add_globals(file: BinaryIO, names: list[str]) -> None:
    """Follow one pickle's operations to its end; strings and the memo as far as a global's name needs them."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("GLOBAL", "INST"):
            names.append(str(argument))
        elif operation.name == "STACK_GLOBAL":
            names.append(" ".join(strings[-2:]))
        elif operation.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = strings[-1] if strings else ""
        elif operation.name in ("GET", "BINGET", "LONG_BINGET"):
            strings.append(memo.get(int(argument or 0), ""))
        elif isinstance(argument, str):
            strings.append(argument)
