"""`c2l prepare --engine ray`, with a stand-in for the cluster: the bytes of one machine, resumed by the shards."""

import shutil
from pathlib import Path

import pytest
from ray_stand_in import StandIn
from store_helpers import SIZE, files_no_larger_than, prepare_folder, stopped_at, store_bytes, write_images

from c2l_models import cli
from c2l_models.errors import DatasetError
from c2l_models.training.store import ray_prepare
from c2l_models.training.store.ray_prepare import prepare_on_ray, shards_of


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path_factory.mktemp("key") / "patient.key"))


@pytest.fixture
def root(tmp_path) -> Path:
    """Seven images, of which one is broken, one absent, and one not in the label file."""
    root = write_images(tmp_path / "films", 7)
    (root / "0002.png").write_bytes(b"broken")
    (root / "0005.png").unlink()
    (root / "labels.csv").write_text("path,finding\n" + "".join(f"{n:04}.png,{n % 2}\n" for n in range(6)))
    return root


@pytest.fixture
def ray(monkeypatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(ray_prepare, "ray_cluster", stand_in.cluster)
    monkeypatch.setattr(ray_prepare, "SHARD_IMAGES", 2)
    return stand_in


def on_ray(root: Path, out: Path):
    return prepare_on_ray([("folder", root)], out, SIZE, progress=False)


def test_the_store_has_the_bytes_of_one_machine(tmp_path, root, ray):
    whole = prepare_folder(root, tmp_path / "whole")
    ray.dies = lambda task, call: call == 0  # repeated in processes of its own
    report = on_ray(root, tmp_path / "store")
    assert store_bytes(report.store) == store_bytes(whole.store)
    assert (report.images, report.refused, report.shard) == (whole.images, whole.refused, None) == (4, 3, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "store", "whole"]
    calls = ray.calls
    assert on_ray(root, tmp_path / "store").images == 4
    assert ray.calls == calls  # the store is there
    with pytest.raises(DatasetError, match="built with other settings: size"):
        prepare_on_ray([("folder", root)], tmp_path / "store", SIZE + 1, progress=False)


def test_the_second_call_uses_the_shards_that_are_there(tmp_path, root, ray):
    out = tmp_path / "stores" / "store"  # in a folder that is not there yet
    with files_no_larger_than(150), pytest.raises(DatasetError, match="free disk space"):
        on_ray(root, out)
    with stopped_at(ray_prepare, "join_shards"):
        on_ray(root, out)
    finished = sorted(path.name for path in shards_of(out).iterdir())
    assert finished == ["000001-of-000003", "000002-of-000003", "000003-of-000003"]
    for name in ("0000.png", "0001.png"):  # the first shard's, which is not read again
        (root / name).write_bytes(b"changed")
    shutil.rmtree(shards_of(out) / finished[2])
    assert on_ray(root, out).images == 4
    assert not shards_of(out).exists()


def test_shards_of_a_call_that_was_killed_after_joining_are_removed(tmp_path, root, ray):
    out = tmp_path / "store"
    with stopped_at(ray_prepare, "remove_parts"):
        on_ray(root, out)
    assert shards_of(out).exists()
    assert on_ray(root, out).images == 4
    assert not shards_of(out).exists()


def test_a_node_without_the_disk_is_no_broken_film(tmp_path, root, ray, monkeypatch):
    write, moved = ray_prepare.write_shard, tmp_path / "unmounted"

    def lose_the_disk(task, again):
        if not moved.exists():
            root.rename(moved)
        write(task, again)

    monkeypatch.setattr(ray_prepare, "write_shard", lose_the_disk)
    with pytest.raises(DatasetError, match=r"folders that contained files .* are now missing, empty or unreadable"):
        on_ray(root, tmp_path / "store")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray", "--shard", "1/2"], "leave out --workers and --shard"),
        (["--engine", "ray", "--workers", "2"], "leave out --workers and --shard"),
        (["--address", "auto"], "expected it with --engine ray only"),
    ],
)
def test_options_that_exclude_each_other(tmp_path, root, capsys, options, message):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--source", f"folder={root}", "--out", str(tmp_path / "store"), *options])
    assert message in capsys.readouterr().err


def test_the_command(tmp_path, root, ray, capsys):
    cli.main(["prepare", "--source", f"folder={root}", "--out", str(tmp_path / "s"), "--engine", "ray", "--size", "8"])
    assert f"4 images in {tmp_path / 's'}" in capsys.readouterr().out
