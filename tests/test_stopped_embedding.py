"""Films that this machine cannot read stop an embedding; the rows so far are kept, and the same command resumes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ray_stand_in import StandIn

from c2l_models import cli, embedding, ray_embedding
from c2l_models.embedding import Embeddings, EmbedStopped, embed
from c2l_models.errors import MachineError
from c2l_models.radiographs.phantom import write_films
from c2l_models.ray_embedding import embed_on_ray, parts_of
from c2l_models.resumed_embedding import embed_to_file, partial_of

RELEASE = "resnet18.c2l_open26k"
BROKEN_DISK = Path("/proc/self/mem")
"""A file of Linux whose first bytes cannot be read: EIO, as on a disk that fails."""


@pytest.fixture
def films(tmp_path, monkeypatch):
    """Eight films in batches of two. The third is broken; the sixth is on a disk that fails."""
    if not BROKEN_DISK.exists():
        pytest.skip(f"expected {BROKEN_DISK}, found no such file")
    paths = sorted(write_films(tmp_path / "films", 8).glob("*.png"))
    paths[2].write_bytes(b"broken")
    paths[5].rename(tmp_path / "good.png")
    paths[5].symlink_to(BROKEN_DISK)
    whole = embedding._read_batches
    monkeypatch.setattr(
        embedding, "_read_batches", lambda files, transform, _, *more: whole(files, transform, 2, *more)
    )
    return paths


def repair(films):
    films[5].unlink()
    (films[5].parent.parent / "good.png").rename(films[5])


def test_the_rows_so_far_are_kept_and_used(tmp_path, films):
    out = tmp_path / "x.parquet"
    with pytest.raises(EmbedStopped, match=f"^{films[5]}: cannot be read: Input/output error$") as stop:
        embed(films, RELEASE)
    assert isinstance(stop.value, MachineError)
    assert stop.value.embeddings.paths == [films[0], films[1], films[3]]
    assert list(stop.value.embeddings.errors) == [films[2]]
    with pytest.raises(EmbedStopped):
        embed_to_file(films, out, RELEASE)
    assert not out.exists()
    kept = Embeddings.load(partial_of(out))
    assert kept.paths == [films[0], films[1], films[3]]
    repair(films)
    found = embed_to_file(films, out, RELEASE)
    assert found.paths == [film for film in films if film != films[2]]
    assert list(found.errors) == [films[2]]
    np.testing.assert_array_equal(found.features[:3], kept.features)


def test_the_command_says_it_in_one_line_and_fails(tmp_path, films, capsys):
    command = ["embed", *map(str, films), "--out", str(tmp_path / "x.parquet"), "--model", RELEASE]
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    assert stop.value.code not in (0, None)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert f"{films[5]}: cannot be read: Input/output error" in line
    assert f"after 3 of 8 films; the features are kept in {tmp_path / 'x.partial.parquet'}" in line
    repair(films)
    cli.main(command)
    assert capsys.readouterr().out.startswith("7 films")


def test_a_failure_of_torch_keeps_the_batches_before_it(tmp_path, films, monkeypatch):
    """As if another process took the GPU's memory after the first batch."""
    whole, out, batches = embedding.compute_features, tmp_path / "x.parquet", []

    def compute(*arguments):
        batches.append(1)
        if len(batches) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nMore")
        return whole(*arguments)

    monkeypatch.setattr(embedding, "compute_features", compute)
    with pytest.raises(EmbedStopped, match=r"^torch failed to compute features on cpu: CUDA out of memory\.$"):
        embed_to_file(films[:5], out, RELEASE)
    assert Embeddings.load(partial_of(out)).paths == films[:2]
    with pytest.raises(torch.OutOfMemoryError):  # at once: the caller may choose a smaller batch
        embed(films[:2], RELEASE)


def test_a_worker_on_a_cluster_keeps_its_part(tmp_path, films, monkeypatch):
    monkeypatch.setattr(ray_embedding, "PART_IMAGES", 8)
    monkeypatch.setattr(ray_embedding, "ray_cluster", StandIn().cluster)
    out = tmp_path / "x.parquet"
    with pytest.raises(MachineError, match=r"Input/output error\. The finished parts are kept; .* to resume"):
        embed_on_ray(films, out, RELEASE, "cpu")
    (part,) = parts_of(out).iterdir()
    assert Embeddings.load(part).paths == [films[0], films[1], films[3]]
    repair(films)
    assert embed_on_ray(films, out, RELEASE, "cpu").films == 7
    assert Embeddings.load(out).paths == [film for film in films if film != films[2]]


def test_nan_is_for_the_files_fault_alone(films):
    pytest.importorskip("sklearn")
    from c2l_models.embedder import RadiographEmbedder

    embedder = RadiographEmbedder(RELEASE, unreadable="nan")
    assert np.isnan(embedder.transform(films[:5])).any(axis=1).tolist() == [False, False, True, False, False]
    with pytest.raises(MachineError, match="Input/output error"):
        embedder.transform(films)


def test_without_pydicom_a_dicom_file_stops_the_call(tmp_path, monkeypatch):
    (tmp_path / "film.dcm").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(MachineError, match=r"film\.dcm: a DICOM file; .*pip install 'c2l-models\[dicom\]'"):
        embed([tmp_path / "film.dcm"], RELEASE)
