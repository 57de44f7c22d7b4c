"""The benchmark of the probe: its images, caches and ratios, not the speed."""

import json
from pathlib import Path

import pytest
import torch

from c2l_models.training.benchmark import probe_speed as module
from c2l_models.training.benchmark import timing
from c2l_models.training.benchmark.probe_speed import ProbeBenchmark, time_probe
from c2l_models.training.probing import feature_cache
from c2l_models.training.store.image_store import ImageStore


def test_only_the_first_probe_computes_features(
    tiny_store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    computed: list[int] = []
    forwarded: list[int] = []
    extract, forward = feature_cache.extract_features, module._forward

    def note_extract(network, images, rows, *rest):
        computed.append(len(rows))
        return extract(network, images, rows, *rest)

    def note_forward(init, images, rows, device):
        batches: list[int] = []
        hook = init.network.register_forward_hook(lambda _, inputs, output: batches.append(len(inputs[0])))
        forward(init, images, rows, device)
        hook.remove()
        forwarded.append(sum(batches))

    monkeypatch.setattr(feature_cache, "extract_features", note_extract)
    monkeypatch.setattr(module, "_forward", note_forward)
    files = set(tiny_store.path.rglob("*"))
    result = time_probe(tiny_store, "random", "folder", size=32, repeats=1, device="cpu", progress=False)
    assert set(forwarded) == {result.images} == {len(tiny_store)}
    assert sum(computed) == result.images * 3  # both probes warm up, and the one without a cache is timed
    assert set(tiny_store.path.rglob("*")) == files  # its own cache is not used
    result.save(tmp_path / "probe.json")
    assert json.loads((tmp_path / "probe.json").read_text())["ratios"] == result.ratios


def test_the_ratios_are_shares_of_the_probe() -> None:
    machine = timing.Machine("cpu", 1, 1, torch.__version__, (0.0, 0.0))
    times = {"probe": (10.0, 20.0), "again": (1.0, 2.0), "read": (1.0, 4.0), "forward": (8.0, 15.0)}
    result = ProbeBenchmark("folder", "random", 9, 2, 32, machine, **times)
    assert result.ratios == pytest.approx({"read_and_forward": (0.9 + 0.95) / 2, "forward": 0.775, "again": 0.1})
