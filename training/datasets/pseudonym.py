"""Keyed hashes that replace the patient ids of private images.

An unkeyed hash of a patient number can be reversed: anyone can hash every possible number and compare. With a secret
key, only its owner can do that. The key is kept outside all stores and is never published.
"""

import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from c2l_models.errors import DatasetError

KEY_BYTES = 32


def key_path() -> Path:
    """Path of the key file: `C2L_PATIENT_KEY`, or `~/.config/c2l-models/patient.key`."""
    return Path(os.environ.get("C2L_PATIENT_KEY") or "~/.config/c2l-models/patient.key").expanduser()


def patient_key() -> bytes:
    """The local key, 32 bytes; created at first use, readable only by its owner.

    Raises DatasetError if the file cannot be read or created, or has another length.
    """
    path = key_path()
    try:
        if not path.exists():
            _create_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}, the key of the patient hashes, cannot be read or created: {error.strerror}; check its "
            "permissions, or set C2L_PATIENT_KEY to another file"
        ) from error
    if len(key) != KEY_BYTES:
        raise DatasetError(
            f"{path}: expected a key of {KEY_BYTES} bytes, found {len(key)} bytes; restore the file, or remove it to "
            "create a new key"
        )
    return key


def _create_key(path: Path) -> None:
    """Create the key file in one step, so that no process reads half a key; the first of several processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)  # a rename would replace another process's key


def pseudonym(identity: str, key: bytes) -> str:
    """HMAC-SHA256 of an identity, the first 16 hexadecimal digits."""
    return hmac.digest(key, identity.encode(errors="surrogateescape"), "sha256").hex()[:16]


class Pseudonyms:
    """Keyed hashes of the patients and studies of one private data set."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._key = patient_key()
        self._known: dict[str, str] = {}

    def patient(self, number: str) -> str:
        """16 hexadecimal digits for a patient's number; leading zeros make no difference."""
        return self._hash(f"patient {int(number)}")

    def study(self, number: str) -> str:
        """16 hexadecimal digits for a study's number."""
        return self._hash(f"study {int(number)}")

    def _hash(self, identity: str) -> str:
        if identity not in self._known:
            self._known[identity] = pseudonym(f"{self._dataset} {identity}", self._key)
        return self._known[identity]
