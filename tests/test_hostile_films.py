"""Random films of all formats against numpy on the same pixels, alone and in folders with damaged and odd files."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from film_files import FORMATS, FilmFile, films
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from c2l_models import cli
from c2l_models.embedding import Embeddings, embed
from c2l_models.radiographs.listing import as_utf8
from c2l_models.radiographs.reading import read_radiograph

pytest.importorskip("pydicom")

SIDE = 32
NAMES = (
    *("röntgen.png", "caf\udce9.png", "two\nlines.png", "[bold]x.png", "$HOME `x` 'y' \"z\".tif", "-rf.png"),
    *(" .png", "1.2.840.113619.2.55.3", "FILM.JPG", "テスト.bmp", "أشعة.dcm", "film", "a|b.jpe", "x" * 200 + ".png"),
)
"""Names for a film; none says anything about its format."""
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which would take minutes
JUNK = (
    b"",
    b"\0" * 4000,
    b"BM",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0" + b"\xff" * 40,
    b"\0" * 128 + b"DICM",
    b"%PDF-1.7 text",
)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_film_shows_its_pixels(tmp_path, kind):
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FORMATS[kind]())
    def check(film: FilmFile) -> None:
        (tmp_path / "film").write_bytes(film.data)
        found = np.asarray(read_radiograph(tmp_path / "film"))
        assert found.shape == film.levels.shape, film.kind
        assert np.abs(found - film.levels).max() <= film.tolerance, film.kind

    check()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A film with some bytes replaced, and perhaps without its end; or no film."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(JUNK))
    data = bytearray(draw(films()).data)
    for place, byte in draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)):
        data[int(place * len(data))] = byte
    return bytes(data[: round(draw(st.floats(0, 1)) * len(data))])


def run(*words: object) -> int:
    """The exit status of a command; any error other than the command's own is raised."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write(root: Path, contents: list[FilmFile | bytes]) -> dict[str, FilmFile | bytes]:
    """Write the contents under `NAMES`, and more that is no film; the contents by name."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    names = [f"{number} {NAMES[number % len(NAMES)]}" for number in range(len(contents))]
    names = [name if number % 3 else name.split(" ", 1)[1] + f".{number}" for number, name in enumerate(names)]
    for name, content in zip(names, contents, strict=True):
        (root / name).write_bytes(content if isinstance(content, bytes) else content.data)
    (root / "folder.png").mkdir()
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.dcm")
    return dict(zip(names, contents, strict=True))


@pytest.mark.training
@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8, and pipes")
def test_folders_of_films_and_of_what_is_none(tmp_path, monkeypatch, capsys):
    from c2l_models.training.store.image_store import ImageStore

    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "key"))
    root = tmp_path / "films"

    @settings(max_examples=2, deadline=None, phases=NO_SHRINKING, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(films(SIDE), films(SIDE), damaged()), min_size=50, max_size=50))
    def check(contents: list[FilmFile | bytes]) -> None:
        written = write(root, contents)
        whole = {as_utf8(name): film for name, film in written.items() if isinstance(film, FilmFile)}
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        store_words = ("--out", tmp_path / "store", "--size", SIDE, "--workers", 1)
        assert run("prepare", "--source", f"folder={root}", *store_words) == 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out
        store = ImageStore.open(tmp_path / "store")
        rows = {path: row for row, path in enumerate(store.index["path"].to_pylist())}
        assert {(name, whole[name].kind) for name in whole.keys() - rows.keys()} == set(), out
        for name, film in whole.items():
            assert np.abs(store.images[rows[name]] - film.levels).max() <= film.tolerance, film.kind
        assert out.splitlines()[-1].endswith(f"; {len(written) + 2 - len(rows)} files left out")

        assert run("embed", root, "--out", tmp_path / "f.parquet", "--device", "cpu") == 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out
        table = Embeddings.load(tmp_path / "f.parquet")
        assert {as_utf8(path.name) for path in table.paths} == rows.keys()
        assert np.isfinite(table.features).all()
        some = list(table.paths)[:5]
        for number, path in enumerate(some):
            Image.fromarray(np.asarray(read_radiograph(path))).save(tmp_path / f"{number}.png")
        again = embed([tmp_path / f"{number}.png" for number in range(len(some))], device="cpu")
        np.testing.assert_allclose(table.features[: len(some)], again.features, rtol=1e-3, atol=1e-3)

        for name in [*written][:3] + ["folder.png", "loop.png", "pipe.dcm", "none.png"]:
            known = as_utf8(name) in rows
            status = run("search", root / name, "--in", tmp_path / "f.parquet", "-k", 3, "--device", "cpu")
            out, err = capsys.readouterr()
            assert status == (0 if known else 2), err
            assert len((out if known else err).rstrip("\n").replace("two\nlines", "").splitlines()) == (
                3 if known else 1
            )

    check()
