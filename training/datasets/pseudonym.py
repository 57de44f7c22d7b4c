"""Patients of private images: a keyed hash in place of their id.

A bare hash of a subject number is undone by counting: hash every number there can be and compare. With a
secret key that cannot be done, so the key lies outside every store and is never published.
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
    """Where the key lies: `C2L_PATIENT_KEY`, or `~/.config/c2l-models/patient.key`."""
    return Path(os.environ.get("C2L_PATIENT_KEY") or "~/.config/c2l-models/patient.key").expanduser()


def patient_key() -> bytes:
    """The local key, 32 bytes; made at its first use, readable by its owner alone.

    Raises DatasetError for a file of another length, or one that cannot be read or made.
    """
    path = key_path()
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}, the key of the patients' hashes, cannot be read or made: {error.strerror}; mend this, or let "
            "C2L_PATIENT_KEY name another file"
        ) from error
    if len(key) != KEY_BYTES:
        raise DatasetError(
            f"{path} holds {len(key)} bytes, wanted {KEY_BYTES}; restore it, or remove it to get a new key"
        )
    return key


def _make_key(path: Path) -> None:
    """A key in a file that is whole from the moment it is there; of several processes, that of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)  # a rename would take the place of another process's key


def pseudonym(identity: str, key: bytes) -> str:
    """HMAC-SHA256 of an identity, 16 hexadecimal digits."""
    return hmac.digest(key, identity.encode(errors="surrogateescape"), "sha256").hex()[:16]


class Pseudonyms:
    """What stands for the patients and studies of one data set that is not public, by the local key."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._key = patient_key()
        self._known: dict[str, str] = {}

    def patient(self, number: str) -> str:
        """16 hexadecimal digits for a patient's number, the same with leading zeros and without."""
        return self._hash(f"patient {int(number)}")

    def study(self, number: str) -> str:
        """16 hexadecimal digits for a study's number."""
        return self._hash(f"study {int(number)}")

    def _hash(self, identity: str) -> str:
        if identity not in self._known:
            self._known[identity] = pseudonym(f"{self._dataset} {identity}", self._key)
        return self._known[identity]
