"""Every metric with an interval in README.md, MODEL_CARD.md and two pages of docs occurs in a stored result.

Every ratio and coverage in docs/benchmarks.md occurs in a stored benchmark."""

import json
import re
from pathlib import Path

import pytest

METRIC = re.compile(r"[+−-]?\d\.\d{3} \([+−-]?\d\.\d{3}(?:–| to )[+−-]?\d\.\d{3}\)")
COLUMNS = re.compile(r"\| (\d\.\d{3}) \| (\d\.\d{3}–\d\.\d{3}) \|")
"""A value and its interval in two columns of a table."""


def metrics_in(text: str) -> set[str]:
    in_columns = {f"{value} ({interval})" for value, interval in COLUMNS.findall(text)}
    return {metric.replace("−", "-") for metric in METRIC.findall(text)} | in_columns


@pytest.mark.parametrize("page", ["README.md", "MODEL_CARD.md", "docs/comparison.md", "docs/downstream.md"])
def test_figures_are_those_of_the_stored_results(repository: Path, page: str) -> None:
    stored = [metrics_in(file.read_text(encoding="utf-8")) for file in (repository / "results").rglob("*.md")]
    stated = metrics_in((repository / page).read_text(encoding="utf-8"))
    assert len(stated) >= 3, "the pattern finds the page's metrics"
    assert not stated - set().union(*stored)


def test_ratios_are_those_of_the_stored_benchmarks(repository: Path) -> None:
    stored = set()
    for file in (repository / "results" / "benchmarks").glob("*.json"):
        benchmark = json.loads(file.read_text())
        ratios = [*benchmark.get("ratios", {}).values(), benchmark.get("ratio"), benchmark.get("compiled_ratio")]
        stored |= {f"{ratio:.{digits}f}" for ratio in ratios if ratio for digits in (0, 2)}
    stated = re.findall(r"\*\*([\d.]+)\*\*", (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    assert len(stated) >= 10, "the pattern finds the page's ratios"
    assert set(stated) <= stored


def test_coverages_are_those_of_the_stored_simulation(repository: Path) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    stored = json.loads((repository / "results" / "benchmarks" / "interval_coverage.json").read_text())
    for case in stored["cases"]:
        shares = [case["coverage"].get(method) for method in ("percentile", "BCa", "studentized", "expanded")]
        row = next(line for line in page.splitlines() if line.startswith(f"| {case['name']} |"))
        assert [cell.split()[0] for cell in row.split(" | ")[1:]] == [f"{x:.3f}" if x else "–" for x in shares]
