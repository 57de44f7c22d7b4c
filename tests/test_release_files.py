"""The files of a release: CITATION.cff and constraints.txt agree with pyproject.toml, and with their formats."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_has_the_required_keys_of_its_format(repository: Path, project: dict[str, Any]) -> None:
    """Citation File Format 1.2.0: the required keys, of software and paper. `cffconvert --validate` checks the rest."""
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in {"software", "dataset"}
    assert all(isinstance(citation[key], str) and citation[key] for key in ("message", "title", "version"))
    assert citation["version"] == project["version"]
    assert citation["license"] in project["license"]
    paper = citation["preferred-citation"]
    assert paper["type"] in {"article", "conference", "conference-paper"}
    assert paper["title"].startswith("Comparing to Learn")
    assert paper["year"] == 2020
    assert paper["conference"]["name"]
    for author in [*citation["authors"], *paper["authors"]]:
        assert {"name"} == set(author) or {"family-names", "given-names"} <= set(author)


def test_constraints_name_every_dependency_within_its_range(repository: Path, project: dict[str, Any]) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(re.fullmatch(r"([\w.-]+)==([\w.!]+)", line).groups() for line in lines)  # type: ignore[union-attr]
    versions = {plain(name): version for name, version in pins.items()}
    assert len(versions) == len(lines)
    for text in (*project["dependencies"], *chain(*project["optional-dependencies"].values())):
        required = Requirement(text)
        if plain(required.name) in {"c2l-models", "setuptools"}:  # itself; `pip freeze` leaves out setuptools
            continue
        version = versions[plain(required.name)]
        assert required.specifier.contains(version), f"{text}: make constraints wrote {version}"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
