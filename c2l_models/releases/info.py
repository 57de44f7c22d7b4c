"""A release's record and provenance as text: in groups, aligned, nothing left out."""

from collections.abc import Iterator, Mapping
from typing import Any

from .provenance import read_provenance
from .registry import Weights

GROUPS: dict[str, tuple[str, ...]] = {
    "Weights": ("release", "architecture", "tag", "num_params", "license", "file", "sha256", "golden_embedding"),
    "Input": ("input_size", "mean", "std", "interpolation", "crop_pct"),
    "Training": ("trained_on", "patients", "recipe"),
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
"""What stands under which heading; keys that are under none stand at the end."""

OTHERS = "Others"


def release_info(weights: Weights) -> dict[str, Any]:
    """All that is known of a release, under one key each: its record and its provenance, whose recipe is a table."""
    record = {"release": weights.name, **weights.config, "file": str(weights.path()), "sha256": weights.sha256}
    return record | {"metrics": dict(weights.metrics)} | read_provenance(weights)


def shown(info: Mapping[str, Any]) -> str:
    """`release_info` as lines: headings, and below them names and values in two columns."""
    grouped = {key for keys in GROUPS.values() for key in keys}
    groups = GROUPS | {OTHERS: tuple(key for key in info if key not in grouped)}
    blocks = []
    for heading, keys in groups.items():
        rows = [row for key in keys if key in info for row in _rows(key, info[key])]
        width = max((len(name) for name, _ in rows), default=0)
        if rows:
            blocks.append("\n".join([heading, *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)]))
    return "\n\n".join(blocks)


def figure_text(figure: Any) -> str:
    """A figure with its 95 % interval."""
    return f"{figure['value']:.4f} ({figure['low']:.4f}–{figure['high']:.4f})"


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Name and text of each line that a value takes."""
    if name == "patients":
        yield from ((name, f"{len(ids):,} of {dataset}, listed: c2l check-leakage") for dataset, ids in value.items())
    elif name == "golden_embedding":
        yield name, f"{len(value)} numbers: c2l verify"
    elif name == "first_steps":
        made = f"torch {value['torch']}, {value['instructions']}, {value['machine']}, threads {value['threads']}"
        yield name, f"losses of {len(value['losses'])}, {made}: c2l reproduce release --check"
    elif name == "metrics":
        yield from ((key, figure_text(figure)) for key, figure in value.items())
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
