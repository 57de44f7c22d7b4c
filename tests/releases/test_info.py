"""`c2l info` shows every value of the record and the provenance, under headings, in columns."""

import json
from typing import Any

import pytest

from c2l_models import cli, get_weights
from c2l_models.releases.info import format_info, release_info

NAME = "resnet18.c2l_open26k"


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    return [leaf for one in value for leaf in leaves(one)] if isinstance(value, list) else [value]


def forms(leaf: Any) -> list[str]:
    """The texts that may represent a value, without thousands separators."""
    if isinstance(leaf, bool):
        return ["yes" if leaf else "no"]
    return [f"{leaf:.4f}", f"{leaf:.6g}"] if isinstance(leaf, float) else [str(leaf).replace(",", "")]


def test_nothing_is_left_out() -> None:
    weights = get_weights(NAME)
    info = release_info(weights)
    provenance = json.loads(weights.path().with_suffix(".json").read_text())
    assert info.items() >= provenance.items()
    assert weights.config.keys() <= info.keys()
    text = format_info(info)
    ids, golden = info.pop("patients"), info.pop("golden_embedding")
    info.pop("first_steps", None)  # see the next test
    assert all(f"{len(people):,} of {dataset}" in text for dataset, people in ids.items())
    assert f"{len(golden)} numbers" in text
    assert "chestxray14:0" not in text
    spaced = text.replace(",", "")
    for leaf in leaves(info):
        assert any(form in spaced for form in forms(leaf)), leaf


def test_first_steps_take_a_line() -> None:
    steps = {"losses": [1.5, 2.5], "torch": "2.14.1", "instructions": "AVX2", "machine": "A processor", "threads": 1}
    assert format_info({"first_steps": steps}) == (
        "Made with\n"
        "  first_steps  2 losses, torch 2.14.1, AVX2, A processor, threads 1; see c2l reproduce release --check"
    )


def test_groups_are_aligned_and_the_unknown_stands_at_the_end() -> None:
    text = format_info(
        {"surprise": {"a": True, "longer": None}, "sha256": "00", "tag": "x", "trained_on": ["one", "two"]}
    )
    assert text == (
        "Weights\n  tag     x\n  sha256  00\n\n"
        "Training\n  trained_on  one\n              two\n\n"
        "Others\n  surprise.a       yes\n  surprise.longer  none"
    )


def test_json_is_the_whole_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", NAME, "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(release_info(get_weights(NAME))))
