"""Helpers for tests of runs and recipes, and a small network."""

import json

import torch
from torch import nn


def to_toml(values, section=""):
    """A recipe as TOML."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and key != "name"}
    lines = [f"[{section}]"] * bool(section) + [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    tables = [to_toml(value, key) for key, value in values.items() if isinstance(value, dict)]
    return "\n".join(lines + tables) + "\n"


def same(one, other, where=""):
    """Assert that two nested values are equal to the bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for n, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{n}]")
    else:
        assert one == other, where


class Small(nn.Module):
    """A linear network in place of backbone and projection. Without batch norm, images are independent."""

    def __init__(self, architecture, feature_dim, *projection):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(16, feature_dim), nn.Tanh())

    def forward(self, x):
        return self.layer(x.flatten(1))
