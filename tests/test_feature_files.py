"""Files of features that are damaged or hold something else: one error each, which says what to do."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from c2l_models.embedding import Embeddings
from c2l_models.errors import C2LError

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_truncated_file(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"x{suffix}"
    Embeddings(ROWS, [Path("a.png"), Path("b.png")]).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(C2LError, match=r"expected a Parquet or npz file .* make one with c2l embed"):
        Embeddings.load(path)


def test_every_damaged_byte_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    Embeddings(ROWS, [Path("a.png"), Path("b.png")]).save(path)
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        with contextlib.suppress(C2LError):
            assert len(Embeddings.load(path).features) == 2


def test_an_npy_file_with_the_name_of_an_npz_file(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, ROWS)
    with pytest.raises(C2LError, match=r"x\.npz: expected a Parquet or npz file with paths and features"):
        Embeddings.load(tmp_path / "x.npz")


@pytest.mark.parametrize("features", [ROWS[:1], ROWS[0], np.zeros((2, 3, 1))])
def test_rows_that_do_not_belong_to_the_paths(tmp_path: Path, features: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", paths=np.array(["a.png", "b.png"]), features=features, c2l=np.array(json.dumps({})))
    with pytest.raises(
        C2LError, match=r"expected one row of features per path, found features of shape .* and 2 paths"
    ):
        Embeddings.load(tmp_path / "x.npz")


@pytest.mark.parametrize("source", ["[1]", "3", "{"])
def test_other_metadata(tmp_path: Path, source: str) -> None:
    np.savez(tmp_path / "x.npz", paths=np.array(["a.png", "b.png"]), features=ROWS, c2l=np.array(source))
    with pytest.raises(C2LError, match="expected a Parquet or npz file"):
        Embeddings.load(tmp_path / "x.npz")
