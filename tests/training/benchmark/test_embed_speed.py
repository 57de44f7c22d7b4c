"""The benchmark of `embed`: its files and ratios, not the speed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from c2l_models import get_weights
from c2l_models.errors import DatasetError
from c2l_models.training.benchmark import embed_speed as module
from c2l_models.training.benchmark import timing
from c2l_models.training.benchmark.embed_speed import prepared_batches, time_embed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)


def test_all_three_see_every_file(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, set[int]] = {"embed": set(), "decode": set(), "forward": set()}
    embed, decode_all, forward = module.embed, module.decode_all, module._forward

    def note_embed(paths: list[Path], network: nn.Module, batch_size: int) -> object:
        counts["embed"].add(len(paths))
        return embed(paths, network, batch_size)

    def note_decode(paths: list[Path], workers: int) -> None:
        counts["decode"].add(len(paths))
        decode_all(paths, workers)

    def note_forward(network: nn.Module, batches: list[torch.Tensor]) -> None:
        counts["forward"].add(sum(map(len, batches)))
        forward(network, batches)

    for name, noted in (("embed", note_embed), ("decode_all", note_decode), ("_forward", note_forward)):
        monkeypatch.setattr(module, name, noted)
    result = time_embed(tiny_folder, files=70, batch_size=32, workers=1, repeats=1, device="cpu", progress=False)
    assert counts == {"embed": {70}, "decode": {70}, "forward": {70}}
    assert (result.files, result.distinct_images, result.model) == (70, 64, "resnet18.c2l_open26k")
    result.save(tmp_path / "embed.json")
    assert json.loads((tmp_path / "embed.json").read_text())["ratios"] == result.ratios


def test_the_ratios_are_of_rates(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"embed": (4.0, 5.0, 10.0), "decode": (1.0, 2.0, 3.0), "forward": (2.0, 2.0, 9.0)}
    monkeypatch.setattr(module, "time_alternately", lambda *_: taken)
    result = time_embed(tiny_folder, files=2, device="cpu", progress=False)
    assert (result.sequential, result.overlapped) == ((3, 4, 12), (2, 2, 9))
    assert result.ratios == {"sequential": 0.8, "overlapped": 0.5}


def test_prepared_batches_are_the_networks_input(tiny_folder: Path) -> None:
    weights = get_weights("resnet18.c2l_open26k")
    paths = sorted(tiny_folder.rglob("*.png"))[:3]
    batches = prepared_batches(paths, weights, 8, 4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 1, 128, 128), (4, 1, 128, 128)]
    expected = torch.stack([weights.transform(in_chans=1)(paths[n % 3]) for n in range(8)])
    assert torch.equal(torch.cat(batches), expected)
    assert [len(batch) for batch in prepared_batches(paths, weights, 5, 4)] == [4, 1]


def test_a_film_that_cannot_be_read_is_no_benchmark(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no film")
    with pytest.raises(DatasetError, match="1 images cannot be read"):
        module._embed([tmp_path / "a.png"], _network(), 2)


def _network() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.pretrained_cfg = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
    return network
