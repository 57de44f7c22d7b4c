"""Read the tensors of a `torch.save` checkpoint without running any of its code."""

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
"""The first version, (major, minor), in which `torch.load(weights_only=True)` is safe."""

DEPTH = 4
"""Number of nested tables that are searched. A checkpoint has two, but a pickle may contain itself."""

_HARMLESS = re.compile(
    r"argparse Namespace|collections OrderedDict|torch \w*(Storage|Size|device|dtype)|torch\._utils _rebuild_\w+"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter"
)
"""Globals that checkpoints normally use; error messages do not list them."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return every tensor of a checkpoint by the dotted path of its keys, on the CPU.

    Reads both formats of `torch.save`. Besides torch's own classes, only `argparse.Namespace` is allowed: a file that
    needs another global is refused before any of it runs, and the message names the global. Raises `C2LError` for
    such a file, for a missing or truncated file, another format, a file without named tensors, and an older torch.
    """
    import torch

    if not path.is_file():
        raise C2LError(f"expected a checkpoint written by torch.save, found no file {path}")
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        raise C2LError(
            f"expected torch 2.10 or later, found {torch.__version__}: a checkpoint can make it corrupt memory, even "
            "with weights_only=True (CVE-2026-24747). Run: pip install --upgrade torch torchvision"
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these warnings are about the pickle protocol only
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on arbitrary bytes an unpickler can raise any exception
        raise C2LError(f"{path}: {_why(path, error)}") from None
    tensors = dict(_flat(content, "", DEPTH))
    if not tensors:
        raise C2LError(f"{path}: expected a state dict, found a {type(content).__name__} without named tensors")
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
    """Explain why a file was not loaded."""
    needed = dict.fromkeys(name for name in _globals(path) if not _HARMLESS.fullmatch(name))
    if needed:
        names = ", ".join(name.replace(" ", ".") for name in list(needed)[:5])
        return (
            f"expected only tensors, found a pickle that needs {names}"
            ", which could run code; none was run. Ask the authors for a saved state dict"
        )
    if path.stat().st_size == 0:
        return "the file is empty; copy or download it again"
    return (
        f"expected a torch.save checkpoint with only tensors, found a truncated, damaged or other file "
        f"({type(error).__name__}). Copy or download it again"
    )


def _globals(path: Path) -> list[str]:
    """List the globals, "module name", that a file's pickles need, in order. The pickles are parsed, never run."""
    names: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith("data.pkl"):
                        with archive.open(member) as file:
                            _add_globals(file, names)  # type: ignore[arg-type]
        else:
            with path.open("rb") as file:  # the old format: several pickles, then raw bytes
                while file.peek(1):
                    _add_globals(file, names)
    except Exception:  # a damaged pickle: report the globals found so far
        return names
    return names


def _add_globals(file: BinaryIO, names: list[str]) -> None:
    """Parse one pickle and append its globals to `names`. Strings and the memo are tracked because names use them."""
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
