"""The plan of a run, and the number of steps that fits into a time."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from c2l_models.cli import main
from c2l_models.errors import RecipeError, RunError
from c2l_models.training import run_plan
from c2l_models.training.recipe import Optimizer, Recipe
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_plan import RunPlan, fit_steps, plan_run

CPU = torch.device("cpu")
COSINE = Optimizer(lr=0.64, schedule="cosine", warmup=0.1)


@pytest.mark.usefixtures("small_networks")
def test_a_plan_is_measured_and_in_words(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(tiny_recipe, optimizer=COSINE, epochs=20, early_sizes=(16,), early_shares=(0.25,))
    plan = plan_run(recipe, tiny_store, CPU)
    assert all(plan.seconds_per_step[size] > 0 for size in (16, 32))
    plan = replace(plan, seconds_per_step={16: 36.0, 32: 72.0})
    assert 1e7 < plan.memory < 1e11
    assert plan.hours == pytest.approx(0.25 + 1.5)  # 25 and 75 steps
    text = "\n".join(plan.lines())
    assert "44, of which a step takes 8" in text
    assert "100 (20.0 epochs), 10 of them warm-up" in text
    assert "16 px from step 0, then 32 px from step 25" in text
    assert "0.02 per step at most" in text  # 0.64 * 8 / 256
    assert Image.open(plan.draw(tmp_path / "runs" / "plan.png")).size == (1000, 300)


@pytest.mark.usefixtures("small_networks")
def test_the_steps_that_fit(tiny_recipe, tiny_store, monkeypatch):
    """A step of 2 s by a clock that the measurement does not move: 5 % of 1,000 s stay free, so 475 steps fit."""
    recipe = replace(tiny_recipe, optimizer=COSINE)
    monkeypatch.setattr(run_plan, "plan_run", lambda *_: RunPlan(recipe, 44, {32: 2.0}, None, "cpu"))
    monkeypatch.setattr(run_plan.time, "monotonic", lambda: 7.0)
    assert fit_steps(recipe, tiny_store, CPU, 1000) == replace(recipe, steps=475)
    with pytest.raises(RecipeError, match=r"expected time for one step or more, found 2 s"):
        fit_steps(recipe, tiny_store, CPU, 2)
    with pytest.raises(RecipeError, match=r"optimizer.schedule: expected 'cosine'"):
        fit_steps(tiny_recipe, tiny_store, CPU, 1000)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="expected one process to measure"):
        fit_steps(recipe, tiny_store, CPU, 1000)


def test_the_command_fits_and_a_resumed_run_keeps_its_steps(tiny_store_folder, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    command = ["pretrain", "smoke", "--store", str(tiny_store_folder), "--out", str(run), "--device", "cpu"]
    command += ["--recipe.size", "32", "--recipe.batch-size", "8", "--recipe.queue-length", "37"]
    command += ["--recipe.optimizer.schedule", "cosine", "--recipe.probe-every", "0"]
    assert main([*command, "--plan"]) is None
    assert "rate" in capsys.readouterr().out
    assert (tmp_path / "run.plan.png").is_file()
    assert not run.exists()
    recipe = replace(Recipe("tiny"), size=32, batch_size=8, batch_norm_group=8)
    monkeypatch.setattr(run_plan, "plan_run", lambda *_: RunPlan(recipe, 44, {32: 10.0}, None, "cpu"))
    main([*command, "--fit-seconds", "50", "--max-seconds", "0"])
    assert json.loads((run / "recipe.json").read_text())["steps"] == 4
    main([*command, "--fit-seconds", "9999", "--resume"])
    assert checkpoint.load(run).state["step"] == 4
