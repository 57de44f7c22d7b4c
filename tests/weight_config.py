"""The configuration of a weight file that tests write."""

from typing import Any

CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "tag": "test",
    "mean": 0.4,
    "std": 0.2,
    "input_size": [3, 64, 64],
    "trained_on": ["one", "two"],
    "recipe": "smoke",
}
