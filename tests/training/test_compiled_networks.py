"""Compiled networks: one graph each, without a break, and the numbers of uncompiled ones.

Their graphs run in PyTorch ("aot_eager"), because compiling them to machine code takes minutes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from c2l_models.training.benchmark.frozen_run import noise_in_memory
from c2l_models.training.distributed import ALONE
from c2l_models.training.pretrain import train_step
from c2l_models.training.recipe import Optimizer, Recipe
from c2l_models.training.run import Run

CPU = torch.device("cpu")
SMALL = Recipe(
    "small",
    architecture="test_resnet",  # timm's smallest ResNet
    size=32,
    batch_size=8,
    batch_norm_group=2,
    queue_length=64,
    feature_dim=16,
    optimizer=Optimizer(lr=0.03),
)
STEPS = 2


@pytest.fixture
def whole_graphs(monkeypatch):
    """Let `compile` raise at a graph break, and count its graphs."""
    compiled = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compiled(self, backend="aot_eager", fullgraph=True, **options)
    )
    torch.compiler.reset()
    counters.clear()
    yield counters
    torch.compiler.reset()


def losses(recipe: Recipe, sizes: tuple[int, ...] = (32,) * STEPS) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of a few steps with views of these sides, and the method's state after them."""
    store = noise_in_memory(32, 32, CPU)
    run = Run(recipe, store, np.arange(32), Path(), ALONE, CPU)
    found = []
    for step, size in enumerate(sizes):
        run.method.recipe = replace(recipe, size=size)
        rows = np.arange(8 * step, 8 * step + 8)
        found.append(train_step(run.model, run.optimizer, store[rows], run.seeded(step)).metrics()["loss"].item())
    return found, run.method.state_dict()


CASES = {
    "c2l, bfloat16": replace(SMALL, precision="bfloat16"),
    "c2l, checkpointed": replace(SMALL, gradient_checkpointing=True),
    "model genesis": replace(SMALL, method="model_genesis"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_network_is_one_graph(case, whole_graphs):
    recipe = CASES[case]
    expected, state = losses(recipe)
    assert not whole_graphs["stats"]
    found, same_state = losses(replace(recipe, compile=True))
    assert whole_graphs["stats"]["unique_graphs"] == (1 if recipe.method == "model_genesis" else 2)
    assert not whole_graphs["graph_break"]
    assert found == pytest.approx(expected, rel=2e-2 if recipe.precision == "bfloat16" else 1e-3)
    assert len(set(found)) == STEPS
    assert state.keys() == same_state.keys()  # checkpoints of compiled runs are those of any run
    for name, value in state.items():
        if "running" in name:
            torch.testing.assert_close(same_state[name], value, rtol=0.05, atol=0.05, msg=name)


def test_each_side_of_the_views_is_one_graph(whole_graphs):
    losses(replace(SMALL, method="model_genesis", compile=True), sizes=(32, 64, 32))
    assert whole_graphs["stats"]["unique_graphs"] == 2
    assert not whole_graphs["graph_break"]
