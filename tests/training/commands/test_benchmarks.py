"""`c2l benchmark`: flags become arguments, the table is printed, the JSON file is written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from c2l_models.cli import main
from c2l_models.training.benchmark import embed_speed as embed
from c2l_models.training.benchmark import input_speed as input
from c2l_models.training.benchmark import interval_coverage as coverage
from c2l_models.training.benchmark import peer_speed as peer
from c2l_models.training.benchmark import prepare_speed as prepare
from c2l_models.training.benchmark import step_speed as step
from c2l_models.training.benchmark import timing


@dataclass(frozen=True)
class Result:
    """Replaces a benchmark's result."""

    seconds: float = 1.5

    def __rich__(self) -> str:
        return "a table of timings"

    def save(self, path: Path) -> None:
        timing.save_json(self, path)


@pytest.mark.parametrize(
    ("arguments", "module", "function", "expected"),
    [
        (
            "step --batch-size 8 --size 32 --precision float32 --repeats 2 --device cpu --compile",
            step,
            "time_step",
            ("open15k-resnet18", "float32", 8, 32, 2, "cpu", True),
        ),
        (
            "input --store stores/mine --batch-size 8 --size 32 --repeats 2 --device cpu",
            input,
            "time_input",
            ("open15k-resnet18", "bfloat16", Path("stores/mine"), 8, 32, 2, "cpu"),
        ),
        (
            "prepare --images films --size 64 --files 10 --workers 3 --repeats 2 --kind JPEG",
            prepare,
            "time_prepare",
            (Path("films"), 64, 10, 3, 2, "JPEG"),
        ),
        (
            "embed --images films --architecture densenet121 --files 10 --batch-size 8 --workers 3 --repeats 2 "
            "--device cpu",
            embed,
            "time_embed",
            (Path("films"), "densenet121", 10, 8, 3, 2, "cpu"),
        ),
        (
            "peer --peer-python peer/bin/python --images films --recipe smoke --batch-size 8 --size 32 --files 10 "
            "--steps 4 --workers 3 --repeats 2 --device cpu",
            peer,
            "time_peer",
            ("smoke", "float32", Path("films"), Path("peer/bin/python"), 8, 32, 10, 4, 3, 2, "cpu"),
        ),
        ("coverage --simulations 10 --resamples 50 --seed 3", coverage, "simulate_coverage", (10, 50, 3)),
    ],
)
def test_each_benchmark_gets_its_flags(
    arguments: str,
    module: Any,
    function: str,
    expected: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    passed: list[Any] = []
    monkeypatch.setattr(module, function, lambda *values: passed.extend(values) or Result())
    main(["benchmark", *arguments.split(), "--out", str(tmp_path / "result.json")])
    if function not in ("time_prepare", "time_embed", "simulate_coverage"):
        recipe = passed.pop(0)
        passed[:0] = [recipe.name, recipe.precision]
    assert tuple(passed) == expected
    assert "a table of timings" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text()) == {"seconds": 1.5}
