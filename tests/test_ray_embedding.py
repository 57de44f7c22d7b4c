"""`c2l embed --engine ray`, with a stand-in for the cluster: the rows of one machine, resumed by the finished parts."""

import inspect
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_stand_in import StandIn

from c2l_models import cli, get_weights, ray_embedding
from c2l_models.embedding import Embeddings, embed
from c2l_models.errors import C2LError
from c2l_models.feature_files import join_features
from c2l_models.radiographs.phantom import write_films
from c2l_models.ray_embedding import cut, embed_on_ray, parts_of

RELEASE = "resnet18.c2l_open26k"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: eight films, of which the third is broken; parts of two."""
    write_films(tmp_path / "films", 8)
    sorted((tmp_path / "films").glob("*.png"))[2].write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_embedding, "PART_IMAGES", 2)
    return tmp_path


@pytest.fixture
def ray(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(ray_embedding, "ray_cluster", stand_in.cluster)
    return stand_in


def films() -> list[Path]:
    return sorted(Path("films").glob("*.png"))


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_the_rows_are_those_of_one_machine(folder, ray, suffix):
    ray.dies = lambda task, call: call == 1
    found = embed_on_ray(films(), Path(f"x.{suffix}"), RELEASE, "cpu")
    expected = embed(films(), RELEASE, batch_size=2)
    got = Embeddings.load(f"x.{suffix}")
    assert (got.paths, got.model, got.sha256, got.readout) == (expected.paths, RELEASE, expected.sha256, "pooled")
    np.testing.assert_array_equal(got.features, expected.features)
    assert (found.films, found.width, found.errors) == (7, 512, expected.errors)
    assert list(found.errors) == [films()[2]]
    assert sorted(path.name for path in folder.iterdir()) == ["films", f"x.{suffix}"]


def test_the_second_call_computes_what_is_missing_or_changed(folder, ray, monkeypatch):
    ray.dies = lambda task, call: call > 0  # the first part alone is finished
    out = Path("x.parquet")
    with pytest.raises(C2LError, match=r"workers died 3 times on each of these parts: .* The other parts are kept"):
        embed_on_ray(films(), out, RELEASE, "cpu")
    (kept,) = parts_of(out).iterdir()
    done = Embeddings.load(kept).paths
    assert not out.exists()
    assert len(done) == 2
    os.utime(done[0], (2e9, 2e9))
    (parts_of(out) / "notes.txt").write_text("mine")
    ray.dies, computed = lambda task, call: False, list[Path]()

    def watched(paths, *arguments, **options):
        computed.extend(paths)
        return embed(paths, *arguments, **options)

    monkeypatch.setattr(ray_embedding, "embed", watched)
    assert embed_on_ray(films(), out, RELEASE, "cpu").films == 7
    assert sorted(computed) == sorted(set(films()) - set(done[1:]))
    assert Embeddings.load(out).paths == [path for path in films() if path != films()[2]]
    assert [path.name for path in parts_of(out).iterdir()] == ["notes.txt"]  # a file of the user's stays


def test_finished_parts_are_used_if_films_were_added(folder, ray, monkeypatch):
    ray.dies = lambda task, call: call > 0  # one part is finished
    with pytest.raises(C2LError, match="The other parts are kept"):
        embed_on_ray(films()[:5], Path("x.parquet"), RELEASE, "cpu")
    (kept,) = parts_of(Path("x.parquet")).iterdir()
    done = Embeddings.load(kept).paths
    ray.dies, computed = lambda task, call: False, list[Path]()

    def watched(paths, *arguments, **options):
        computed.extend(paths)
        return embed(paths, *arguments, **options)

    monkeypatch.setattr(ray_embedding, "embed", watched)
    assert embed_on_ray(films(), Path("x.parquet"), RELEASE, "cpu").films == 7
    assert sorted(computed) == sorted(set(films()) - set(done))


def test_finished_parts_of_other_films_are_not_removed(folder, ray):
    ray.dies = lambda task, call: call > 0  # the first part alone is finished
    with pytest.raises(C2LError, match="The other parts are kept"):
        embed_on_ray(films(), Path("x.parquet"), RELEASE, "cpu")
    ray.dies = lambda task, call: False
    with pytest.raises(C2LError, match=r"expected rows of these films alone in .*, which an interrupted call kept"):
        embed_on_ray(films()[:1], Path("x.parquet"), RELEASE, "cpu")
    assert embed_on_ray(films(), Path("x.parquet"), RELEASE, "cpu").films == 7


def test_a_node_without_the_folder_or_with_other_weights_is_an_error(folder, ray, monkeypatch):
    names = [path.absolute() for path in films()]
    shutil.move("films", "elsewhere")
    with pytest.raises(C2LError, match=r"expected the folder .*films, which all nodes must see .* no such folder"):
        embed_on_ray(names, Path("x.parquet"), RELEASE, "cpu")
    shutil.move("elsewhere", "films")
    resolve = ray_embedding.resolve_model
    monkeypatch.setattr(ray_embedding, "resolve_model", lambda name: (*resolve(name)[:2], {"sha256": "0" * 64}))
    with pytest.raises(C2LError, match=r"expected weights resnet18\.c2l_open26k with sha256 0000"):
        embed_on_ray(names, Path("x.parquet"), RELEASE, "cpu")


def test_the_command_reports_as_on_one_machine(folder, ray, capsys, monkeypatch):
    printed = {}
    for engine in ("local", "ray"):
        cli.main(["embed", "films", "--out", "x.npy", "--model", RELEASE, "--device", "cpu", "--engine", engine])
        printed[engine] = capsys.readouterr()
    assert printed["local"] == printed["ray"]
    assert printed["ray"].out == "7 films, 512 features each: x.npy; 2 files left out\n"
    for path in films():
        path.write_bytes(b"broken")
    for engine in ("local", "ray"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["embed", "films", "--out", "x.npy", "--model", RELEASE, "--device", "cpu", "--engine", engine])
        assert stop.value.code == 2
        printed[engine] = capsys.readouterr()
    assert printed["local"] == printed["ray"]
    assert "expected images that can be read, found none" in printed["ray"].err


def test_a_relative_weight_file_is_named_as_given(folder, ray):
    shutil.copy(get_weights(RELEASE).path(), "w.safetensors")
    embed_on_ray(films()[:2], Path("x.parquet"), "w.safetensors", "cpu")
    assert Embeddings.load("x.parquet").model == embed([], "w.safetensors").model == "w.safetensors"


@pytest.mark.parametrize("name", ["w.safetensors", "w/model.safetensors"])
def test_relative_weights_are_found_by_workers_of_another_folder(folder, ray, name):
    weights = Path(name)
    weights.parent.mkdir(exist_ok=True)
    shutil.copy(get_weights(RELEASE).path(), weights)
    model = str(weights.parent if "/" in name else weights)
    ray.dies = lambda task, call: os.chdir("/")  # where Ray starts its workers; none dies
    embed_on_ray([path.absolute() for path in films()[:2]], folder / "x.parquet", model, "cpu")
    assert len(Embeddings.load(folder / "x.parquet").paths) == 2


def test_an_interrupted_command_says_what_is_kept(folder, ray, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_embedding, "run_parts", interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", "films", "--model", RELEASE, "--engine", "ray"])
    assert stop.value.code == 130
    assert "finished parts are kept in features.parts, and the same command resumes" in capsys.readouterr().err


def test_an_address_needs_the_engine(folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["embed", "films", "--address", "auto"])
    assert "expected it with --engine ray only; add --engine ray" in capsys.readouterr().err


def test_parts_do_not_depend_on_the_cluster_and_hold_whole_batches():
    images = [Path(f"{number}.png") for number in range(10_000)]
    parts = cut(images, Path("x.parts"))
    assert [path for part, _ in parts for path in part] == images
    batch = inspect.signature(embed).parameters["batch_size"].default
    assert [len(part) % batch for part, _ in parts[:-1]] == [0, 0]
    assert [file.name for _, file in parts] == [f"00000{number}.parquet" for number in (1, 2, 3)]


def test_joined_files_hold_names_of_any_bytes_and_parts_without_rows(tmp_path):
    names = [[Path("a.png"), Path("ö.png")], [], [Path(os.fsdecode(b"r\xf6.png"))]]
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    parts = [tmp_path / f"{number}.parquet" for number in range(3)]
    for part, paths, features in zip(parts, names, np.split(rows, [2, 2]), strict=True):
        Embeddings(features, paths, model="m", sha256="s").save(part)
    for out in (tmp_path / "x.parquet", tmp_path / "x.npz"):
        join_features(parts, out)
        joined = Embeddings.load(out)
        assert (joined.paths, joined.model, joined.sha256) == ([*names[0], *names[2]], "m", "s")
        np.testing.assert_array_equal(joined.features, rows)
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == ["a.png", "ö.png", r"r\xf6.png"]
    with pytest.raises(C2LError, match=re.escape("ends in .parquet")):
        join_features(parts, tmp_path / "x.feather")
