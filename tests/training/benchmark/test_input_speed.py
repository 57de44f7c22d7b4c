"""The input benchmark on the tiny store: which images it reads, and from where; not the speed."""

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from c2l_models.errors import DatasetError
from c2l_models.training.batches import batch_rows
from c2l_models.training.benchmark import input_speed as module
from c2l_models.training.benchmark import timing
from c2l_models.training.benchmark.frozen_run import endless_batches, map_again
from c2l_models.training.benchmark.input_speed import (
    InputBenchmark,
    build_workloads,
    drop_from_cache,
    time_input,
)
from c2l_models.training.recipe import Recipe
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import IMAGES

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small_networks: None) -> None:
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)


@pytest.mark.usefixtures("quick")
def test_each_way_is_timed_beside_the_step(tiny_recipe: Recipe, tiny_store_folder: Path, tmp_path: Path) -> None:
    result = time_input(tiny_recipe, tiny_store_folder, 8, 32, 2, "cpu", progress=False)
    assert list(result.inputs) == ["resident", "mapped", "cold"]
    assert (result.images, result.side, result.size) == (64, 32, 32)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in (result.step, *result.inputs.values()))
    result.save(tmp_path / "input.json")
    assert json.loads((tmp_path / "input.json").read_text())["ratios"] == result.ratios


@pytest.mark.usefixtures("quick")
def test_without_a_store_noise_is_read(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_BYTES", 20 * 32 * 32)
    result = time_input(tiny_recipe, None, 8, 28, 1, "cpu", progress=False)
    assert (result.store, result.images, result.side, result.size) == ("noise", 20, 32, 28)


def test_seconds_are_of_a_batch_and_ratios_of_pairs(
    tiny_recipe: Recipe, tiny_store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of an input workload reads the 64 images in 8 batches of 8."""
    taken = {"step": (2.0, 8.0, 4.0), "resident": (4.0, 4.0, 4.0), "cold": (8.0, 16.0, 32.0)}
    monkeypatch.setattr(module, "build_workloads", lambda *_: dict.fromkeys(taken, float))
    monkeypatch.setattr(module, "time_alternately", lambda *_: taken)
    result = time_input(tiny_recipe, tiny_store_folder, 8, 32, 3, "cpu", progress=False)
    assert result.step == taken["step"]
    assert result.inputs == {"resident": (0.5, 0.5, 0.5), "cold": (1.0, 2.0, 4.0)}
    assert result.ratios == {"resident": 8.0, "cold": 2.0}
    rows = shown(result)
    assert rows["input, resident"] == ["0.5000", "16", "8.0 (4.0 to 16.0)"]
    assert rows["pretraining step"] == ["4.0000", "2", "1"]


def shown(result: InputBenchmark) -> dict[str, list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.usefixtures("small_networks")
def test_every_way_delivers_a_runs_batches(
    tiny_recipe: Recipe, tiny_store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views and the steps get the same images as a run on all rows."""
    expected = [
        torch.from_numpy(np.array(tiny_store.images[batch_rows(np.arange(64), tiny_recipe, i)])) for i in range(8)
    ]
    given: list[Tensor] = []
    monkeypatch.setattr(module, "two_views", lambda images, *_: given.append(images))
    monkeypatch.setattr(module, "train_step", lambda model, optimizer, images, generator: given.append(images))
    forgotten: list[Path] = []
    monkeypatch.setattr(module, "drop_from_cache", forgotten.append)
    workloads = build_workloads(tiny_recipe, tiny_store, CPU)
    for way in ("resident", "mapped", "cold"):
        assert not forgotten
        given.clear()
        workloads[way]()
        assert [images.squeeze(1).tolist() for images in given] == [images.tolist() for images in expected], way
    assert forgotten == [tiny_store.path / IMAGES]
    given.clear()
    workloads["step"]()
    workloads["step"]()
    assert [images.squeeze(1).tolist() for images in given] == [images.tolist() for images in expected[:2]]


def test_batches_never_end(tiny_recipe: Recipe, tiny_store: ImageStore) -> None:
    recipe = replace(tiny_recipe, epochs=1)
    batches: Iterator[Tensor] = endless_batches(recipe, tiny_store, CPU)
    assert sum(1 for _, _ in zip(range(20), batches, strict=False)) == 20  # an epoch has 8 batches


def test_a_cold_file_is_read_from_the_disk(tmp_path: Path) -> None:
    """Uses the kernel's count of bytes that it read from the disk for this process."""
    counts = Path("/proc/self/io")
    if not counts.is_file():
        pytest.skip("this system does not count what a process reads from its disks")
    store = ImageStore(tmp_path, np.empty((0, 0, 0), np.uint8), None, "")
    np.save(tmp_path / IMAGES, np.zeros((1024, 64, 64), np.uint8))

    def fetched() -> int:
        before = int(counts.read_text(encoding="utf-8").split("read_bytes: ")[1].split()[0])
        map_again(store, tmp_path / IMAGES)[np.arange(1024)]
        return int(counts.read_text(encoding="utf-8").split("read_bytes: ")[1].split()[0]) - before

    with (tmp_path / IMAGES).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if not fetched():
        pytest.skip("this folder is not on a disk")
    assert fetched() < mmap.PAGESIZE * 16
    drop_from_cache(tmp_path / IMAGES)
    assert fetched() >= 1024 * 64 * 64


def test_a_store_smaller_than_a_batch_is_refused(tiny_recipe: Recipe, tiny_store_folder: Path) -> None:
    with pytest.raises(DatasetError, match="expected at least one batch of 128 images, found 64"):
        time_input(replace(tiny_recipe, queue_length=1024), tiny_store_folder, 128, 32, 1, "cpu", progress=False)
