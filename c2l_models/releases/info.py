"""Collect a release's record and provenance, and format them as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from .provenance import read_provenance
from .record import Weights

GROUPS: dict[str, tuple[str, ...]] = {
    "Weights": ("release", "architecture", "tag", "num_params", "license", "file", "sha256", "golden_embedding"),
    "Input": ("input_size", "mean", "std", "interpolation", "crop_pct"),
    "Training": ("trained_on", "patients", "recipe", "training_seconds", "origin", "conversion"),
    "Metrics": ("metrics",),
    "Made with": (
        "code",
        "versions",
        "python",
        "device",
        "processes",
        "threads",
        "store_sha256",
        "store_size",
        "rounding",
        "first_steps",
    ),
    "Last lines of the log": ("log",),
}
"""The keys under each heading, in order."""

OTHERS = "Others"
"""Heading of the keys that no group names; it comes last."""


def release_info(weights: Weights) -> dict[str, Any]:
    """A release's record and provenance as one dictionary. Its `recipe` is the provenance's table, not the name."""
    record = {"release": weights.name, **weights.config, "file": str(weights.path()), "sha256": weights.sha256}
    return record | {"metrics": dict(weights.metrics)} | read_provenance(weights)


def format_info(info: Mapping[str, Any]) -> str:
    """Format `release_info` as text: headings, with names and values in two columns below them."""
    grouped = {key for keys in GROUPS.values() for key in keys}
    groups = GROUPS | {OTHERS: tuple(key for key in info if key not in grouped)}
    blocks = []
    for heading, keys in groups.items():
        rows = [row for key in keys if key in info for row in _rows(key, info[key])]
        width = max((len(name) for name, _ in rows), default=0)
        if rows:
            blocks.append("\n".join([heading, *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)]))
    return "\n\n".join(blocks)


def metric_lines(weights: Weights) -> list[str]:
    """A release's metrics with their 95 % intervals, one line per metric."""
    return [f"{name}: {_metric_text(metric)}" for name, metric in weights.metrics.items()]


def _metric_text(metric: Mapping[str, float]) -> str:
    return f"{metric['value']:.4f} ({metric['low']:.4f}–{metric['high']:.4f})"


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each line for one key."""
    if name == "patients":
        yield from ((name, f"{len(ids):,} of {dataset}; see c2l check-leakage") for dataset, ids in value.items())
    elif name == "golden_embedding":
        yield name, f"{len(value)} numbers; see c2l verify"
    elif name == "first_steps":
        made = f"torch {value['torch']}, {value['instructions']}, {value['machine']}, threads {value['threads']}"
        yield name, f"{len(value['losses'])} losses, {made}; see c2l reproduce release --check"
    elif name == "metrics":
        yield from ((key, _metric_text(metric)) for key, metric in value.items())
    elif name == "log":
        yield from (("", ", ".join(f"{key} {_text(one)}" for key, one in line.items())) for line in value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}", inner)
    elif isinstance(value, list) and any(isinstance(one, str) for one in value):
        yield from ((name if n == 0 else "", str(one)) for n, one in enumerate(value))
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
