"""Decode files to uint8 rows, and decide for each file that cannot be decoded: refuse the file, or stop the call."""

import hashlib
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from c2l_models.errors import C2LError, MachineError
from c2l_models.radiographs.listing import names_in
from c2l_models.radiographs.reading import decode_square, read_file

Decoded = tuple[bytes, list["Outcome"]]
"""The rows of decoded files, uint8 [kept, size, size] as bytes, and the outcome of each file."""


MISSING = "no such file"
"""The reason of `read_file` for a missing file."""


@dataclass(frozen=True)
class Outcome:
    """Result of decoding one file; exactly one field is set. The reasons do not contain the path.

    Attributes:
        sha256: sha256 of the file, if it was decoded.
        refused: the reason, if the file is the cause of a failure.
        stopped: the reason, if this machine is the cause (disk, memory, missing decoder). The file is not recorded.
    """

    sha256: str = ""
    refused: str = ""
    stopped: str = ""


def decode_chunk(paths: Sequence[str], size: int) -> Decoded:
    """Decode files to squares of `size` pixels. Refused files have an outcome, but no row.

    If this machine is the cause of a failure, decoding ends there, and the last outcome is `stopped`.
    """
    rows, outcomes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder's warnings may quote the file's content
        for path in paths:
            try:
                data = read_file(path)
                rows.append(decode_square(data, size).tobytes())
                outcomes.append(Outcome(sha256=hashlib.sha256(data).hexdigest()))
            except Exception as error:  # a file may break a decoder in any way; the other files must still be decoded
                # Unknown errors are named by their type only, because their text may quote the file's content.
                reason = str(error) if isinstance(error, C2LError) else f"unexpected {type(error).__name__}"
                if isinstance(error, (MachineError, MemoryError, OSError, ImportError)):
                    outcomes.append(Outcome(stopped=reason))
                    break
                if reason == MISSING and is_spelt_otherwise(path):
                    reason = f"{MISSING}; its folder holds this name in other letters (case, accents or suffix)"
                outcomes.append(Outcome(refused=reason))
    return b"".join(rows), outcomes


def is_spelt_otherwise(path: str) -> bool:
    """Whether the folder of a missing file holds its name in another case, Unicode form or with another suffix."""
    file = Path(path)
    return bool(_names(file.parent).get(_letters(file.stem), frozenset()) - {file.name})


@lru_cache(maxsize=8)  # a table may list thousands of missing files of one folder
def _names(folder: Path) -> dict[str, frozenset[str]]:
    """The names in a folder by their letters."""
    found: dict[str, set[str]] = {}
    for name in names_in(folder):
        found.setdefault(_letters(Path(name).stem), set()).add(name)
    return {letters: frozenset(names) for letters, names in found.items()}


def _letters(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
