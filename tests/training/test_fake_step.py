"""The estimate of a step's memory, against the allocator of a real step on the CPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from c2l_models.training.benchmark.frozen_run import noise_in_memory
from c2l_models.training.distributed import ALONE
from c2l_models.training.fake_step import StepMemory, step_memory
from c2l_models.training.pretrain import train_step
from c2l_models.training.recipe import Optimizer, Recipe
from c2l_models.training.run import Run

CPU = torch.device("cpu")
SMALL = Recipe("small", size=64, batch_size=32, batch_norm_group=8, queue_length=4096)


def estimate_of(recipe: Recipe, processes: int = 1) -> StepMemory:
    found = step_memory(recipe, train_step, processes)
    assert found is not None
    return found


def allocated(recipe: Recipe) -> int:
    """The largest number of bytes that a third step allocates beyond those before it, from torch's allocator."""
    store = noise_in_memory(recipe.batch_size, recipe.size, CPU)
    run = Run(recipe, store, np.arange(len(store)), Path(), ALONE, CPU)
    images = store[np.arange(len(store))]
    for _ in range(2):
        train_step(run.model, run.optimizer, images, run.seeded(0))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train_step(run.model, run.optimizer, images, run.seeded(0))
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


TINY = replace(SMALL, architecture="test_resnet", size=32)
CASES = {
    "c2l": SMALL,
    "bfloat16": replace(SMALL, precision="bfloat16"),
    "checkpointed": replace(SMALL, gradient_checkpointing=True),
    "model genesis": replace(SMALL, method="model_genesis"),
}


@pytest.mark.parametrize("case", CASES)
def test_activations_are_what_a_step_allocates(case):
    """oneDNN also copies some weights, which the estimate does not count."""
    recipe = CASES[case]
    estimate, measured = estimate_of(recipe), allocated(recipe)
    assert estimate.activations <= measured * 1.02
    assert measured - estimate.activations <= 0.6 * estimate.networks


def test_parts_of_the_memory_are_counted_by_hand():
    estimate = estimate_of(replace(TINY, optimizer=Optimizer(name="adamw")))
    run = Run(TINY, noise_in_memory(32, 32, CPU), np.arange(32), Path(), ALONE, CPU)
    student, teacher = (sum(p.nbytes for p in network.parameters()) for network in run.method.networks)
    statistics = sum(b.nbytes for network in run.method.networks for b in network.buffers())
    assert estimate.queue == 4096 * 128 * 4 + 8  # and its pointer
    assert estimate.networks == 2 * student + teacher + statistics
    assert estimate.optimizer == pytest.approx(2 * student, rel=1e-4)  # AdamW's two averages, and its counters
    assert str(estimate).startswith(f"{estimate.total / 1e9:.2f} GB (activations ")


def test_processes_share_the_activations():
    alone, shared = (estimate_of(TINY, processes) for processes in (1, 4))
    assert shared.activations < alone.activations / 2
    assert shared.networks == alone.networks


def test_the_largest_views_count():
    early = replace(TINY, size=16, early_sizes=(32,), early_shares=(0.5,))
    assert estimate_of(early) == estimate_of(TINY)


def test_distillation_counts_its_source():
    recipe = replace(TINY, method="distillation", batch_size=8)
    assert estimate_of(recipe).queue == 0


def test_a_fake_step_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    estimate_of(TINY)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_method_that_needs_values_has_no_estimate():
    def reads(model, optimizer, batch, generator):
        return batch.float().mean().item()

    assert step_memory(TINY, reads) is None
