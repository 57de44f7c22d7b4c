"""Features are computed once for all that they depend on."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from c2l_models.training.features import extract_features, recalibrate
from c2l_models.training.networks import random_network
from c2l_models.training.probing import feature_cache
from c2l_models.training.probing.feature_cache import cached_features

ROWS = np.array([3, 1, 2])


@pytest.fixture
def computed(monkeypatch):
    """The networks whose features were computed, one for each call."""
    networks = []

    def noted(network, *rest):
        networks.append(network)
        return extract_features(network, *rest)

    monkeypatch.setattr(feature_cache, "extract_features", noted)
    return networks


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_the_second_time_features_are_read_bit_by_bit(store, computed, architecture):
    first, second = (cached_features(random_network(architecture, 0), store, ROWS, 32, 0.5, 0.25) for _ in range(2))
    assert len(computed) == 1
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, extract_features(computed[0], store, ROWS, 32, 0.5, 0.25))


def test_whatever_changes_features_is_in_the_key(store, computed):
    network = random_network("resnet18", 0)
    other_weights, other_statistics = random_network("resnet18", 1), random_network("resnet18", 0)
    recalibrate(other_statistics, store, ROWS, 32, 0.5, 0.25)
    other_structure = random_network("resnet18", 0)
    other_structure.act1 = nn.Identity()
    calls = [
        (network, store, ROWS, 32, 0.5, 0.25),
        (other_weights, store, ROWS, 32, 0.5, 0.25),
        (other_statistics, store, ROWS, 32, 0.5, 0.25),
        (other_structure, store, ROWS, 32, 0.5, 0.25),
        (network, replace(store, sha256="1" * 64), ROWS, 32, 0.5, 0.25),
        (network, replace(store, images=store.images[:, ::2, ::2]), ROWS, 32, 0.5, 0.25),
        (network, store, ROWS[::-1], 32, 0.5, 0.25),
        (network, store, ROWS, 48, 0.5, 0.25),
        (network, store, ROWS, 32, 0.4, 0.25),
        (network, store, ROWS, 32, 0.5, 0.3),
    ]
    for call in calls * 2:
        np.testing.assert_array_equal(cached_features(*call), extract_features(*call))
    assert len(computed) == len(calls)


def test_the_longest_unused_files_make_room(store, monkeypatch):
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(1024, 4, bias=seed > 0)) for seed in range(3)]
    size = 3 * 4 * 4 + 128  # of the file of three images
    monkeypatch.setattr(feature_cache, "LIMIT", 2 * size)
    files = []
    for age, network in zip((30, 20, 10), networks, strict=True):
        with torch.no_grad():
            cached_features(network, store, ROWS, 32, 0.5, 0.25)
        [new] = set((store.path / "features").iterdir()) - set(files)
        files.append(new)
        os.utime(new, (new.stat().st_mtime - age, new.stat().st_mtime - age))
        if len(files) == 2:
            cached_features(networks[0], store, ROWS, 32, 0.5, 0.25)  # used again: the second one is now the oldest
    assert [file.is_file() for file in files] == [True, False, True]


def test_a_damaged_file_or_a_folder_without_permission_only_costs_time(store, computed, monkeypatch):
    network = random_network("resnet18", 0)
    expected = cached_features(network, store, ROWS, 32, 0.5, 0.25)
    [file] = (store.path / "features").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(cached_features(network, store, ROWS, 32, 0.5, 0.25), expected)

    def refused(*_):
        raise PermissionError

    file.unlink()
    monkeypatch.setattr(feature_cache, "write_atomically", refused)
    np.testing.assert_array_equal(cached_features(network, store, ROWS, 32, 0.5, 0.25), expected)
    assert len(computed) == 3
    assert not list((store.path / "features").iterdir())
