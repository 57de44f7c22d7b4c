"""`c2l embed`: no work is lost to a bad --out, a file name, a full disk or Ctrl-C; formats by suffix."""

import csv
import errno
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_disk import mounted_disk

from c2l_models import cli, embedding, resumed_embedding
from c2l_models.embedding import Embeddings, EmbedInterrupted, embed
from c2l_models.errors import C2LError
from c2l_models.radiographs.phantom import write_films
from c2l_models.resumed_embedding import embed_to_file, partial_of

RELEASE = "resnet18.c2l_open26k"
BAD_NAME = os.fsdecode(b"r\xf6ntgen.png")


@pytest.fixture
def films(tmp_path):
    return sorted(write_films(tmp_path / "films", 5).glob("*.png"))


@pytest.fixture
def nothing_read(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("images were read before --out was checked")

    monkeypatch.setattr(embedding, "_read_batches", refuse)


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("films", "expected a file, found a folder"),
        ("x.feather", r"ends in \.parquet, \.npz, \.npy, \.csv"),
        ("nowhere/x.parquet", "nowhere is no folder; create it"),
        ("folder.csv", "expected a file, found a folder"),
    ],
)
def test_out_is_checked_before_the_first_image(tmp_path, films, nothing_read, capsys, out, message):
    (tmp_path / "folder.csv").mkdir()
    error = failure(capsys, "embed", tmp_path / "films", "--out", tmp_path / out)
    assert re.search(message, error), error


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_names_of_any_bytes_come_back(tmp_path, suffix):
    paths = [Path("a.png"), Path(BAD_NAME), Path("größe\n.png"), Path(r"r\xf6ntgen.png")]
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    Embeddings(rows, paths, model="m", sha256="s", readout="multiscale").save(tmp_path / f"x{suffix}")
    loaded = Embeddings.load(tmp_path / f"x{suffix}")
    assert (loaded.paths, loaded.model, loaded.sha256, loaded.readout) == (paths, "m", "s", "multiscale")
    np.testing.assert_array_equal(loaded.features, rows)


def test_a_name_that_is_not_utf8_is_text_for_other_readers(tmp_path):
    Embeddings(np.zeros((1, 2), np.float32), [Path(BAD_NAME)]).save(tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == [r"r\xf6ntgen.png"]


def test_csv_and_npy(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    table = Embeddings(rows, [Path("a.png"), Path('"b",\nc.png'), Path("ö.png")])
    table.save(tmp_path / "x.csv")
    table.save(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows)
    header, *lines = csv.reader((tmp_path / "x.csv").open(encoding="utf-8", newline=""))
    assert header == ["path", "0", "1", "2", "3"]
    assert [line[0] for line in lines] == ["a.png", '"b",\nc.png', "ö.png"]
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], np.float32), rows)  # to the last bit


def test_load_of_a_missing_file_says_so(tmp_path):
    with pytest.raises(C2LError, match="found no such file"):
        Embeddings.load(tmp_path / "x.parquet")


def interrupted_after(monkeypatch, batches, error=KeyboardInterrupt):
    """Let `embed` read some batches of two images, then press Ctrl-C, or raise another error."""
    whole = embedding._read_batches

    def read(files, transform, batch_size, *options):
        for number, batch in enumerate(whole(files, transform, 2, *options)):
            if number == batches:
                raise error
            yield batch

    monkeypatch.setattr(embedding, "_read_batches", read)


def test_interrupted_and_resumed(tmp_path, films, monkeypatch):
    uninterrupted, out = embed(films, RELEASE), tmp_path / "x.parquet"
    with monkeypatch.context() as patched:
        interrupted_after(patched, 1)
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, RELEASE)
        assert Embeddings.load(partial_of(out)).paths == films[:2]
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, RELEASE)
        assert Embeddings.load(partial_of(out)).paths == films[:4]
    assert not out.exists()
    computed = []

    def watched(paths, *arguments, **options):
        computed.extend(paths)
        return embed(paths, *arguments, **options)

    monkeypatch.setattr(resumed_embedding, "embed", watched)
    found = embed_to_file(films, out, RELEASE)
    assert computed == films[4:]
    assert found.paths == Embeddings.load(out).paths == films
    np.testing.assert_allclose(found.features, uninterrupted.features, rtol=1e-4, atol=1e-5)  # other batches
    assert not partial_of(out).exists()


class Killed(BaseException):
    """Ends a call as SIGKILL does: no handler writes anything."""


@pytest.mark.parametrize(("seconds", "kept"), [(0, [2, 4]), (300, [0, 0])])
def test_a_killed_process_loses_only_the_rows_since_the_last_write(tmp_path, films, monkeypatch, seconds, kept):
    out = tmp_path / "x.parquet"
    monkeypatch.setattr(resumed_embedding, "KEEP_SECONDS", seconds)
    for count in kept:
        with monkeypatch.context() as patched:
            interrupted_after(patched, 1, Killed)
            with pytest.raises(Killed):
                embed_to_file(films, out, RELEASE)
        found = Embeddings.load(partial_of(out)).paths if partial_of(out).exists() else []
        assert found == films[:count]
    found = embed_to_file(films, out, RELEASE)
    assert found.paths == films
    np.testing.assert_allclose(found.features, embed(films, RELEASE).features, rtol=1e-4, atol=1e-5)


def test_a_full_disk_does_not_end_the_call_that_keeps_its_rows(tmp_path, films, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumed_embedding, "KEEP_SECONDS", 0)
    monkeypatch.setattr(resumed_embedding, "keep", full)
    assert embed_to_file(films, tmp_path / "x.parquet", RELEASE).paths == films


def test_rows_of_another_model_or_an_older_image_are_computed_again(tmp_path, films):
    out = tmp_path / "x.parquet"
    expected = embed(films, RELEASE)
    wrong = np.zeros((2, 896), np.float32)
    Embeddings(wrong, films[:2], model="other", sha256="0" * 64).save(partial_of(out))
    np.testing.assert_allclose(embed_to_file(films, out, RELEASE).features, expected.features, rtol=1e-4, atol=1e-5)
    Embeddings(expected.features[:2], films[1::-1], model=RELEASE, sha256=expected.sha256).save(partial_of(out))
    os.utime(films[0], (2e9, 2e9))
    os.utime(films[1], (2e9, 2e9))  # both changed after their (exchanged) rows were kept
    np.testing.assert_allclose(embed_to_file(films, out, RELEASE).features, expected.features, rtol=1e-4, atol=1e-5)


def test_kept_rows_of_other_films_are_not_removed(tmp_path, films, monkeypatch):
    out = tmp_path / "x.parquet"
    with monkeypatch.context() as patched:
        interrupted_after(patched, 1)
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, RELEASE)
    for others in (films[3:], films[1:]):
        with pytest.raises(
            C2LError, match=rf"expected rows of these films alone in .*, found that of {films[0]}, which"
        ):
            embed_to_file(others, out, RELEASE)
    assert Embeddings.load(partial_of(out)).paths == films[:2]
    films[0].unlink()  # its row is of no use
    assert embed_to_file(films[1:], out, RELEASE).paths == films[1:]
    assert not partial_of(out).exists()


def test_rows_of_the_new_model_are_kept_while_those_of_another_are_computed_again(tmp_path, films, monkeypatch):
    """Four rows of another model are kept; the next call is interrupted after the fifth film and two of the four."""
    out = tmp_path / "x.parquet"
    with monkeypatch.context() as patched:
        interrupted_after(patched, 2)
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, "resnet18.imagenet")
    assert len(Embeddings.load(partial_of(out)).paths) == 4
    films = [films[4], *films[:4]]
    with monkeypatch.context() as patched:
        interrupted_after(patched, 1)
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, RELEASE)
    kept = Embeddings.load(partial_of(out))
    assert (kept.model, kept.paths) == (RELEASE, films[:3])
    np.testing.assert_allclose(kept.features, embed(films[:3], RELEASE).features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("when", ["while the call runs", "after it"])
def test_a_film_that_is_replaced_by_an_older_one_is_computed_again(tmp_path, films, monkeypatch, when):
    """The replacement keeps its own modification time, as with `cp -p` from a backup."""
    out, older = tmp_path / "x.parquet", sorted(write_films(tmp_path / "others", 9).glob("*.png"))[8]
    os.utime(older, (1e9, 1e9))
    whole = embedding._read_batches

    def read(files, transform, batch_size, *options):
        yield next(whole(files, transform, 2, *options))
        if when == "while the call runs":
            shutil.copy2(older, films[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embedding, "_read_batches", read)
        with pytest.raises(EmbedInterrupted):
            embed_to_file(films, out, RELEASE)
    shutil.copy2(older, films[0])
    assert films[0].stat().st_mtime == 1e9
    assert films[0].read_bytes() == older.read_bytes()
    got = embed_to_file(films, out, RELEASE).features
    np.testing.assert_allclose(got, embed(films, RELEASE).features, rtol=1e-4, atol=1e-5)


def test_ctrl_c_on_the_command_line(tmp_path, films, monkeypatch, capsys):
    interrupted_after(monkeypatch, 1)
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", str(tmp_path / "films"), "--out", str(tmp_path / "x.npz"), "--model", RELEASE])
    assert stop.value.code == 130
    assert "interrupted after 2 of 5 films" in capsys.readouterr().err


@pytest.fixture
def signals():
    """SIGTERM and SIGHUP, with the default actions, which are restored afterwards."""
    earlier = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, action in earlier.items():
        signal.signal(number, action)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_is_sent_twice_keeps_the_rows(tmp_path, films, monkeypatch, capsys, signals, name):
    """As a scheduler or a closed terminal sends it: once while films are read, once while their rows are written."""
    whole, keep, number = embedding._read_batches, resumed_embedding.keep, getattr(signal, name)

    def read(files, transform, batch_size, *options):
        yield next(whole(files, transform, 2, *options))
        os.kill(os.getpid(), number)
        yield []

    def keep_disturbed(*arguments):
        os.kill(os.getpid(), number)
        keep(*arguments)

    monkeypatch.setattr(embedding, "_read_batches", read)
    monkeypatch.setattr(resumed_embedding, "keep", keep_disturbed)
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", *map(str, films), "--out", str(tmp_path / "x.npz"), "--model", RELEASE])
    assert stop.value.code == 130
    assert "interrupted after 2 of 5 films" in capsys.readouterr().err
    assert Embeddings.load(partial_of(tmp_path / "x.npz")).paths == films[:2]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_nohup_is_respected(tmp_path, films, signals):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    cli.main(["embed", str(films[0]), "--out", str(tmp_path / "x.npz"), "--model", RELEASE])
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt, EmbedInterrupted), (OSError, OSError), (MemoryError, MemoryError)]
)
def test_rows_are_kept_if_the_table_cannot_be_written(tmp_path, films, monkeypatch, error, raised):
    out = tmp_path / "x.csv"

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Embeddings, "save", fail)
        with pytest.raises(raised):
            embed_to_file(films[:2], out, RELEASE)
    assert Embeddings.load(partial_of(out)).paths == films[:2]
    read = []
    monkeypatch.setattr(embedding, "_read_batches", lambda files, *_: read.extend(files) or iter(()))
    embed_to_file(films[:2], out, RELEASE)
    assert (read, out.exists(), partial_of(out).exists()) == ([], True, False)


def test_a_full_disk_leaves_the_earlier_table(tmp_path, films):
    with mounted_disk(tmp_path / "small", "64k") as disk:
        embed_to_file(films[:2], disk / "x.parquet", RELEASE)
        before = (disk / "x.parquet").read_bytes()
        many = sorted(write_films(tmp_path / "many", 60).glob("*.png"))
        with pytest.raises(OSError, match=r"x\.parquet"):
            embed_to_file(many, disk / "x.parquet", RELEASE)
        assert [path.name for path in disk.iterdir()] == ["x.parquet"]
        assert (disk / "x.parquet").read_bytes() == before
