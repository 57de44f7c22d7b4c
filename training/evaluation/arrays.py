"""NumPy .npz files with a JSON header, and the fingerprint of an evaluation sample."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import C2LError
from c2l_models.files import write_atomically


def save_npz(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays and a JSON header, compressed and atomically. The header is stored as a string named `head`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, head=np.array(json.dumps(header)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_npz(
    path: Path, header_keys: Sequence[str], array_keys: Sequence[str], optional_keys: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read these header entries and arrays of a file that `save_npz` wrote.

    Arrays of optional keys that the file lacks are left out. Raises C2LError if the file is missing, damaged, or lacks
    another key.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["head"]))
            keys = (*array_keys, *(key for key in optional_keys if key in file))
            return {key: header[key] for key in header_keys}, {key: file[key] for key in keys}
    except FileNotFoundError:
        raise C2LError(f"{path} is missing; expected the folder of a finished run") from None
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise C2LError(f"{path} is damaged ({type(error).__name__}); delete its folder and repeat the run") from None


def sample_fingerprint(description: tuple[object, ...], truth: NDArray[np.float64], patients: Iterable[object]) -> str:
    """Hash an evaluation sample. Two runs can be paired if their fingerprints are equal.

    Args:
        description: shape of the truth, number of bootstrap resamples, and seed.
        truth: labels or boxes that the run was measured against.
        patients: id of each image's patient.
    """
    digest = hashlib.sha256(repr(description).encode())
    digest.update(np.ascontiguousarray(truth).tobytes())
    digest.update("\0".join(map(str, patients)).encode())
    return digest.hexdigest()
