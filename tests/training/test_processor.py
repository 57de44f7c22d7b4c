"""Processors with and without bfloat16."""

from dataclasses import replace

import pytest
import torch

from c2l_models.training import processor
from c2l_models.training.pretrain import pretrain
from c2l_models.training.processor import instructions, slow_precision
from c2l_models.training.run_files import log

CPU = torch.device("cpu")


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Sets the flags of the processor."""

    def put(text):
        (tmp_path / "cpuinfo").write_text(f"model name : X\nflags : {text}\n")
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")

    return put


@pytest.mark.parametrize(
    ("has", "precision", "device", "slow"),
    [
        ("avx2 avx512f", "bfloat16", "cpu", True),
        ("avx2 avx512f", "float32", "cpu", False),
        ("avx2 avx512f", "bfloat16", "cuda", False),
        ("avx512f avx512_bf16", "bfloat16", "cpu", False),
        ("avx512f amx_bf16 amx_tile", "bfloat16", "cpu", False),
        ("asimd bf16", "bfloat16", "cpu", False),
    ],
)
def test_a_precision_that_is_slow_here(flags, has, precision, device, slow):
    flags(has)
    assert bool(slow_precision(precision, torch.device(device))) == slow


def test_an_unknown_processor_is_not_called_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "missing")
    assert slow_precision("bfloat16", CPU) == ""


def test_the_instructions_name_bfloat16_and_the_limit(flags, monkeypatch):
    flags("avx512f avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert instructions().endswith(" avx512_bf16 oneDNN: AVX2")


@pytest.mark.usefixtures("small_networks")
def test_a_run_notes_it(flags, tiny_recipe, tiny_store, tmp_path):
    flags("avx2")
    recipe = replace(tiny_recipe, precision="bfloat16", steps=1, probe_every=0)
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    (note,) = [line for line in log.read(run) if line["kind"] == "note"]
    assert "--recipe.precision float32" in note["text"]
