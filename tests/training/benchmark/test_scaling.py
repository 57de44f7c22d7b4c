"""Bytes and hours compared with hand calculations; test_distributed.py compares the bytes with a real job."""

from dataclasses import replace

import pytest
import torch

from c2l_models.training.benchmark.frozen_run import frozen_run, noise_in_memory
from c2l_models.training.benchmark.roofline import count_cost
from c2l_models.training.benchmark.scaling import count_parameters, counted_step, estimate_scaling, table, traffic
from c2l_models.training.pretrain import train_step
from c2l_models.training.recipe import Objective, Recipe

RECIPE = replace(Recipe("scale"), precision="bfloat16")


def test_parameters_are_the_networks():
    """ImageNet's ResNet-18 has 11,689,512. The student has one input channel, and a projection instead of its head."""
    resnet18 = 11_689_512 - 513 * 1000 - 2 * 64 * 7 * 7
    assert count_parameters(RECIPE) == resnet18 + 513 * 128
    assert count_parameters(replace(RECIPE, projection="mlp")) == resnet18 + 513 * 512 + 513 * 128


def test_one_process_receives_nothing():
    assert traffic(RECIPE, 1).total == 0


def test_eight_processes():
    """224 of the 256 images come from other processes, twice: 224 x 224 values of two bytes, and keys of 128 values."""
    found = traffic(RECIPE, 8)
    assert found.images == 2 * 224 * 224 * 224 * 2
    assert found.keys == 2 * 224 * 128 * 2
    assert found.gradients == pytest.approx(2 * 7 / 8 * 4 * count_parameters(RECIPE), rel=1e-6)
    assert traffic(replace(RECIPE, precision="float32"), 8).images == 2 * found.images


def test_hours():
    """727,053 images in batches of 256: 2,840 steps per epoch, 681,600 in all; 12.1 hours at 4,000 images/s."""
    one = estimate_scaling(RECIPE, 1, 727_053, 4000, 100)
    assert one.steps == 681_600
    assert one.computing == pytest.approx(681_600 * 256 / 4000 / 3600)
    assert one.sending == 0
    eight = estimate_scaling(RECIPE, 8, 727_053, 4000, 100)
    assert eight.computing == pytest.approx(one.computing / 8)
    assert eight.sending == pytest.approx(681_600 * eight.step_traffic.total / 1e11 / 3600)
    assert table([one, eight], "hours").row_count == 2


def test_only_what_the_objective_needs_travels():
    whole = traffic(RECIPE, 8)
    one = traffic(replace(RECIPE, objective=Objective(terms=("mixed",))), 8)
    assert (one.images, one.keys, one.gradients) == (whole.images / 2, whole.keys / 2, whole.gradients)
    assert traffic(replace(RECIPE, objective=Objective(terms=("clean", "feature"))), 8) == one
    assert traffic(replace(RECIPE, objective=Objective(shuffle_bn=False)), 8).images == 0


def test_model_genesis_sends_gradients_alone():
    """Gradients of the encoder and its decoder: five 3 x 3 convolutions with batch norm, and one 1 x 1 convolution."""
    genesis = replace(RECIPE, method="model_genesis")
    widths = ((512 + 256, 128), (128 + 128, 64), (64 + 64, 32), (32 + 64, 16), (16, 16))
    decoder = sum(9 * before * after + 2 * after for before, after in widths) + 16 + 1
    assert count_parameters(genesis) == 11_689_512 - 513 * 1000 - 2 * 64 * 7 * 7 + decoder
    found = traffic(genesis, 8)
    assert (found.images, found.keys) == (0, 0)
    assert found.gradients == pytest.approx(2 * 7 / 8 * 4 * count_parameters(genesis), rel=1e-6)


def test_a_step_is_counted_without_values_as_with_them():
    recipe = Recipe("tiny", architecture="test_resnet", size=32, batch_size=8, batch_norm_group=4, queue_length=64)
    store = noise_in_memory(8, 32, torch.device("cpu"))
    run = frozen_run(recipe, store, torch.device("cpu"))
    for _ in range(2):  # the first step creates the optimizer's state
        real = count_cost(lambda: train_step(run.model, run.optimizer, store[range(8)], run.seeded(0)))
    cost, memory = counted_step(recipe, 1)
    assert cost.flops == real.flops
    assert cost.bytes == pytest.approx(real.bytes, rel=0.02)
    assert memory is not None
    assert counted_step(recipe, 2)[0].flops < real.flops
