"""`decode_chunk`: each file is decoded, refused, or stops the call; no reason names a path."""

import errno
import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_helpers import SIZE, write_images

from c2l_models.radiographs import reading as radiograph
from c2l_models.radiographs.pixels import square
from c2l_models.radiographs.reading import read_radiograph
from c2l_models.training.store import decode_or_refuse
from c2l_models.training.store.decode_or_refuse import Outcome, decode_chunk


def test_a_chunk_is_each_file_alone(tmp_path):
    root = write_images(tmp_path, 3)
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(root / "0001.png")
    (root / "0003.png").write_bytes(b"")
    paths = [str(root / f"{number:04}.png") for number in range(5)]
    block, outcomes = decode_chunk(paths, SIZE)
    assert block == b"".join(square(read_radiograph(path), SIZE).tobytes() for path in paths[:3])
    assert outcomes[:3] == [Outcome(hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in paths[:3]]
    assert [outcome.refused for outcome in outcomes[3:]] == ["the file is empty", "no such file"]


def test_no_reason_names_a_path_and_nothing_stops_the_others(tmp_path, monkeypatch):
    root = write_images(tmp_path / "DOE", 2)
    (root / "dir.png").mkdir()
    (root / "bad.png").write_bytes(b"bad")
    paths = [str(root / name) for name in ("dir.png", "bad.png", "gone.png", "0000.png", "0001.png")]
    read = decode_or_refuse.read_file
    monkeypatch.setattr(decode_or_refuse, "read_file", lambda p: 1 / 0 if p.endswith("0.png") else read(p))
    block, outcomes = decode_chunk(paths, SIZE)
    assert [bool(outcome.sha256) for outcome in outcomes] == [False] * 4 + [True]
    assert len(block) == SIZE**2
    assert "DOE" not in str(outcomes)
    assert outcomes[3].refused == "unexpected ZeroDivisionError"


@pytest.mark.parametrize(
    ("code", "stops"),
    [
        *((code, True) for code in (errno.ESTALE, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN)),
        *((code, False) for code in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)),
    ],
)
@pytest.mark.parametrize("where", ["opened", "read"])
def test_what_the_system_cannot_do_is_told_from_what_is_wrong_with_a_file(tmp_path, monkeypatch, code, stops, where):
    paths = [str(path) for path in sorted(write_images(tmp_path, 3).iterdir())]
    opened = Path.open

    class Failing(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            raise OSError(code, os.strerror(code))

    def failing(self, *arguments):
        if self.name != "0001.png":
            return opened(self, *arguments)
        file = Failing(self)
        return file if where == "read" else file.read()

    monkeypatch.setattr(Path, "open", failing)
    block, outcomes = decode_chunk(paths, SIZE)
    assert [bool(outcome.sha256) for outcome in outcomes] == ([True, False] if stops else [True, False, True])
    assert len(block) == (1 if stops else 2) * SIZE**2
    reason = outcomes[1].stopped if stops else outcomes[1].refused
    assert reason == f"cannot be {where}: {os.strerror(code)}" or (code, reason) == (errno.ENOENT, "no such file")


def test_a_library_that_is_missing_or_memory_that_is_short_is_the_machines(tmp_path, monkeypatch):
    (film,) = write_images(tmp_path, 1).iterdir()
    no_decoder = OSError("decoder jpeg not available")  # Pillow's message if it was built without this decoder
    for error, says in (
        (MemoryError(), "not enough memory"),
        (ImportError(name="pydicom"), "cannot be loaded: pydicom"),
        (no_decoder, "built without"),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(radiograph, "_decode_image", fail)
            (outcome,) = decode_chunk([str(film)], SIZE)[1]
        assert says in outcome.stopped
    (tmp_path / "film.dcm").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    (outcome,) = decode_chunk([str(tmp_path / "film.dcm")], SIZE)[1]
    assert outcome.stopped.startswith("a DICOM file; to read it, run: pip install")
