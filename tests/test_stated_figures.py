"""Every figure that README.md and MODEL_CARD.md give with its interval stands in a stored result."""

import re
from pathlib import Path

import pytest

FIGURE = re.compile(r"[+−-]?\d\.\d{3} \([+−-]?\d\.\d{3}(?:–| to )[+−-]?\d\.\d{3}\)")


def figures_in(text: str) -> set[str]:
    return {figure.replace("−", "-") for figure in FIGURE.findall(text)}


@pytest.mark.parametrize("page", ["README.md", "MODEL_CARD.md"])
def test_figures_are_those_of_the_stored_results(repository: Path, page: str) -> None:
    stored = [figures_in(file.read_text(encoding="utf-8")) for file in (repository / "results").rglob("*.md")]
    stated = figures_in((repository / page).read_text(encoding="utf-8"))
    assert len(stated) >= 3, "the pattern finds what the page states"
    assert not stated - set().union(*stored)
