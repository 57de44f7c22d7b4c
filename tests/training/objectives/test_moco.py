"""MoCo against a query-by-query restatement, and against the first term of C2L."""

import math
from dataclasses import replace

import pytest
import torch
from oracles import moco as oracle
from runs import Small
from torch.nn import functional

from c2l_models.errors import RecipeError
from c2l_models.training.objectives import build, momentum_teacher
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.objectives.moco import MoCo
from c2l_models.training.pretrain import pretrain, train_step
from c2l_models.training.recipe import Objective, Recipe
from c2l_models.training.run_files import checkpoint

RECIPE = Recipe("small", size=4, method="moco", batch_size=6, batch_norm_group=3, queue_length=19, feature_dim=5)


@pytest.fixture
def moco(monkeypatch):
    monkeypatch.setattr(momentum_teacher, "Encoder", Small)
    torch.manual_seed(0)
    method = build(RECIPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return method


@pytest.fixture
def views():
    return torch.randn(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(5))


def test_the_loss_query_by_query(moco, views):
    assert type(moco) is MoCo
    step = moco(*views, torch.Generator().manual_seed(9))
    queries, keys = moco.student(views[0]), moco.teacher(views[1])
    expected = oracle.loss(queries.detach().numpy(), keys.detach().numpy(), moco.queue.keys.numpy(), 0.07)
    assert step.loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert list(step.metrics()) == ["loss", "top1", "spread"]
    torch.testing.assert_close(step.keys[0], functional.normalize(keys).detach())


def test_it_is_c2ls_first_term(moco, views):
    c2l = C2L(replace(RECIPE, method="c2l"))
    c2l.load_state_dict(moco.state_dict())
    loss = moco(*views, torch.Generator().manual_seed(9)).loss.total
    of_c2l = c2l(*views, torch.Generator().manual_seed(9)).loss
    torch.testing.assert_close(loss, of_c2l.loss_a)
    assert not math.isclose(loss.item(), of_c2l.total.item(), rel_tol=1e-3)


def test_a_step_moves_the_teacher_and_fills_the_queue_with_one_batch(moco):
    optimizer = torch.optim.SGD(moco.student.parameters(), lr=0.1)
    student, teacher = (net.layer[0].weight.detach().clone() for net in (moco.student, moco.teacher))
    batch = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    train_step(moco, optimizer, batch, torch.Generator().manual_seed(3))
    assert moco.queue.pointer == 6
    assert not torch.equal(moco.student.layer[0].weight, student)
    torch.testing.assert_close(moco.teacher.layer[0].weight, 0.999 * teacher + 0.001 * moco.student.layer[0].weight)


def test_what_a_sane_step_can_cost(moco):
    highest = math.log(1 + 19) + 1 / 0.07
    sound = moco.plausible({"loss": torch.tensor([1.0, highest - 0.01, highest + 0.01, math.nan])})
    assert sound.tolist() == [True, True, False, False]


def test_keys_of_c2ls_objective_are_refused():
    with pytest.raises(RecipeError, match=r"^method: expected c2l, because a key of \[objective\] .* found 'moco'"):
        replace(RECIPE, objective=Objective(shuffle_bn=False))


@pytest.mark.usefixtures("small_networks")
def test_a_run_stopped_and_resumed_is_the_run_that_went_through(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(tiny_recipe, method="moco")
    whole = pretrain(recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
    stopped = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    assert checkpoint.load(stopped).state["step"] == 1
    pretrain(recipe, tiny_store, stopped, "cpu", resume=True, progress=False)
    ends = [checkpoint.load(folder).state["method"] for folder in (whole, stopped)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
