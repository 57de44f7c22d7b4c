"""Every ablation of the objective against a restatement image by image in float64."""

import copy
from dataclasses import replace

import pytest
import torch
from oracles import variants as oracle
from runs import Small
from torch import nn

from c2l_models.training import mixup
from c2l_models.training.objectives import build, momentum_teacher
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.objectives.variants import Variant
from c2l_models.training.recipe import Objective, Recipe
from c2l_models.training.recipe_files import load_recipe

RECIPE = Recipe("small", size=4, batch_size=6, batch_norm_group=3, queue_length=19, feature_dim=5, temperature=0.3)


class SmallWithBatchNorm(Small):
    """A network with batch norm, whose output depends on the other images in a group."""

    def __init__(self, architecture, feature_dim, *projection):
        super().__init__(architecture, feature_dim)
        self.layer = nn.Sequential(nn.Linear(16, feature_dim), nn.BatchNorm1d(feature_dim), nn.Tanh())


@pytest.fixture
def variant(monkeypatch):
    """Make the method of an objective, with a teacher that differs from the student."""

    def make(objective, encoder=Small, kind=Variant):
        monkeypatch.setattr(momentum_teacher, "Encoder", encoder)
        torch.manual_seed(0)
        method = kind(replace(RECIPE, objective=objective), torch.Generator().manual_seed(0))
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.3 * torch.randn_like(p))
        return method

    return make


def seeded(seed=9):
    return torch.Generator().manual_seed(seed)


def views():
    generator = seeded(5)
    return tuple(torch.randn(6, 1, 4, 4, generator=generator) for _ in range(2))


def restated(method, objective, draws):
    """The oracle's loss and keys, and the gradient of the student's parameters."""
    exact, (x1, x2) = copy.deepcopy(method).double(), (x.double().flatten(1) for x in views())
    total, loss_a, loss_m, keys, queue = oracle.step(
        x1,
        x2,
        exact.student.layer,
        lambda x: exact.teacher.layer(x).detach(),
        exact.queue.keys,
        draws,
        objective.terms,
        RECIPE.temperature,
        objective.queue_update == "interleaved",
        objective.feature_mixup == "after_norm",
        objective.reduction == "sum",
    )
    total.backward()
    return (total, loss_a, loss_m), keys, queue, [p.grad for p in exact.student.parameters()]


OBJECTIVES = [
    Objective(),
    Objective(terms=("clean",)),
    Objective(terms=("mixed",)),
    Objective(terms=("feature",)),
    Objective(terms=("mixed",), mixup="separate"),
    Objective(terms=("clean", "mixed")),
    Objective(terms=("feature", "clean")),
    Objective(mixup="separate"),
    Objective(mixup_lambda="max"),
    Objective(mixup_lambda="max", queue_update="interleaved"),
    Objective(queue_update="interleaved"),
    Objective(terms=("mixed", "feature"), queue_update="interleaved", mixup="separate"),
    Objective(feature_mixup="after_norm"),
    Objective(reduction="sum"),
    Objective(terms=("clean", "mixed"), reduction="sum"),
]


def departures(objective):
    return " ".join(str(v) for k, v in vars(objective).items() if v != getattr(Objective(), k)) or "the method"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=departures)
def test_against_the_restatement(variant, objective):
    method, drawing = variant(objective), seeded()
    ahead = drawing.clone_state()
    draws = [mixup.draw(6, 1.0, ahead) for _ in range(2 if objective.mixup == "separate" else 1)] * 2
    draws = [(float(m.lam), m.permutation) for m in draws[:2]]
    assert draws[0][0] < 0.5  # so that max(λ, 1 - λ) differs from λ
    if objective.mixup_lambda == "max":
        draws = [(max(lam, 1 - lam), order) for lam, order in draws]

    losses, keys, queue, gradients = restated(method, objective, draws)
    before = method.queue.keys.clone()
    step = method(*views(), drawing)
    step.loss.total.backward()
    for value, expected in zip(step.loss, losses, strict=True):
        assert value.item() == pytest.approx(torch.as_tensor(expected).item(), rel=1e-5)
    for p, expected in zip(method.student.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert len(step.keys) == len(objective.terms)
    for rows, expected in zip(step.keys, keys, strict=True):
        torch.testing.assert_close(rows.double(), torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert torch.equal(method.queue.keys, before)  # line 18 belongs to the loop
    method.queue.insert(*step.keys)
    torch.testing.assert_close(method.queue.keys.double(), torch.stack(queue), rtol=1e-5, atol=1e-6)


def test_every_departure_changes_the_loss(variant):
    """The tolerance above is sharp: no two objectives agree by chance."""
    totals = [variant(objective)(*views(), seeded()).loss.total.item() for objective in OBJECTIVES]
    distances = [abs(a - b) / b for i, a in enumerate(totals) for b in totals[:i]]
    assert min(distances) > 1e-4


@pytest.mark.parametrize("encoder", [Small, SmallWithBatchNorm])
def test_the_default_is_the_method_to_the_bit(variant, encoder):
    """Loss and keys to the bit; gradients to rounding, because C2L adds two terms' gradients before it uses Q."""
    one, other = variant(Objective(), encoder), variant(Objective(), encoder, C2L)
    steps = [method(*views(), seeded()) for method in (one, other)]
    for step in steps:
        step.loss.total.backward()
    for mine, expected in zip(*((*step.loss, *step.keys, step.top1) for step in steps), strict=True):
        assert torch.equal(mine, expected)
    for p, expected in zip(one.student.parameters(), other.student.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, rtol=1e-5, atol=1e-6)


def test_lambda_and_its_complement_give_one_loss(variant, monkeypatch):
    """(λ, π) with "beta" and (λ, π⁻¹) with "max": same loss and gradients, and the same rows of Q in another order."""
    order = torch.tensor([2, 4, 1, 0, 5, 3])
    outcomes = []
    for objective, permutation in ((Objective(), order), (Objective(mixup_lambda="max"), order.argsort())):
        drawn = mixup.Mix(torch.tensor(0.3, dtype=torch.float64), permutation)
        monkeypatch.setattr(mixup, "draw", lambda *arguments, drawn=drawn: drawn)
        method = variant(objective)
        step = method(*views(), seeded())
        step.loss.total.backward()
        outcomes.append((step, [p.grad for p in method.student.parameters()]))
    (beta, gradients), (largest, others) = outcomes
    torch.testing.assert_close(beta.loss.total, largest.loss.total, rtol=1e-6, atol=0)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-6)
    assert torch.equal(beta.keys[0], largest.keys[0])
    for rows, other in zip(beta.keys[1:], largest.keys[1:], strict=True):
        assert not torch.allclose(rows, other)
        torch.testing.assert_close(rows[order.argsort()], other, rtol=1e-5, atol=1e-6)


def test_without_shuffle_the_teachers_groups_are_the_batchs(variant):
    plain = variant(Objective(shuffle_bn=False), SmallWithBatchNorm)
    x2 = views()[1]
    keys = plain(*views(), seeded()).keys[0]
    for rows in (slice(0, 3), slice(3, 6)):  # groups of three in the batch's order
        alone = nn.functional.normalize(plain.teacher(x2[rows]).detach(), dim=1)
        torch.testing.assert_close(keys[rows], alone)
    shuffled = variant(Objective(), SmallWithBatchNorm)(*views(), seeded()).keys[0]
    assert not torch.allclose(keys, shuffled, atol=1e-3)


def test_a_term_that_is_not_asked_for_is_not_computed(variant):
    method, passes = variant(Objective(terms=("clean",))), []
    method.student.register_forward_hook(lambda *_: passes.append("student"))
    method.teacher.register_forward_hook(lambda *_: passes.append("teacher"))
    method(*views(), seeded())
    assert sorted(passes) == ["student", "teacher"]


@pytest.mark.parametrize(
    ("name", "kind"), [("table1-c2l", C2L), ("table1-mix", Variant), ("released-code-resnet18", Variant)]
)
def test_a_recipe_gets_the_method_or_its_variant(monkeypatch, name, kind):
    monkeypatch.setattr(momentum_teacher, "Encoder", Small)
    method = build(replace(load_recipe(name), queue_length=1024))
    assert type(method) is kind
    assert method.recipe.objective == load_recipe(name).objective
