"""`--engine ray` on a Ray cluster of two workers on this machine; one is killed in the middle of a part."""

import os
import signal

import numpy as np
import pytest
from store_helpers import SIZE, prepare_folder, store_bytes, write_images

from c2l_models import ray_embedding, resumed_embedding
from c2l_models.embedding import Embeddings, embed
from c2l_models.radiographs.phantom import write_films
from c2l_models.training.store import ray_prepare

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'c2l-models[ray]'")

RELEASE = "resnet18.c2l_open26k"


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine, whatever its cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def test_embed(cluster, tmp_path, monkeypatch, capfd):
    films = sorted(write_films(tmp_path / "films", 7).glob("*.png"))
    films[2].write_bytes(b"broken")
    function, second = ray_embedding.embed_part, films[2:4]

    def dying(part, again):  # a nested function travels to the worker by value
        if list(part.images) == second and not again:
            # After computing, before writing.
            resumed_embedding.write_features = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return function(part, again)

    monkeypatch.setattr(ray_embedding, "embed_part", dying)
    monkeypatch.setattr(ray_embedding, "PART_IMAGES", 2)
    found = ray_embedding.embed_on_ray(films, tmp_path / "x.parquet", RELEASE, "cpu")
    assert "part 2 of 4: its worker died (WorkerCrashedError), death 1" in capfd.readouterr().err
    expected, got = embed(films, RELEASE, 2, "cpu"), Embeddings.load(tmp_path / "x.parquet")
    assert (got.paths, got.sha256) == (expected.paths, expected.sha256)
    np.testing.assert_allclose(got.features, expected.features, rtol=1e-4, atol=1e-5)  # more threads
    assert (found.films, found.errors) == (6, expected.errors)


def test_prepare(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    root = write_images(tmp_path / "films", 7)
    (root / "0002.png").write_bytes(b"broken")
    function = ray_prepare.write_shard

    def dying(task, again):
        from c2l_models.training.store import prepare

        if task.part.shard == (2, 4) and not again:
            prepare.write_tables = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after the images
        function(task, again)

    monkeypatch.setattr(ray_prepare, "write_shard", dying)
    monkeypatch.setattr(ray_prepare, "SHARD_IMAGES", 2)
    report = ray_prepare.prepare_on_ray([("folder", root)], tmp_path / "store", SIZE)
    assert "part 2 of 4: its worker died (WorkerCrashedError), death 1" in capfd.readouterr().err
    assert (report.images, report.refused) == (6, 1)
    assert store_bytes(report.store) == store_bytes(prepare_folder(root, tmp_path / "alone").store)
