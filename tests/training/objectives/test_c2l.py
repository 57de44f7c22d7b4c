"""The objective against Algorithm 1 restated image by image in float64."""

import copy

import pytest
import torch
from oracles import c2l as oracle
from runs import Small

from c2l_models.training import mixup
from c2l_models.training.objectives import momentum_teacher
from c2l_models.training.objectives.c2l import C2L, c2l_loss
from c2l_models.training.objectives.contrastive import contrast_top1
from c2l_models.training.recipe import Recipe


def unit_rows(count, dim, generator, dtype=torch.float64):
    rows = torch.randn(count, dim, dtype=torch.float64, generator=generator)
    return (rows / rows.norm(dim=1, keepdim=True)).to(dtype)


def features(batch=5, dim=6, length=11, seed=0):
    """v1_a, v1_m, v2_a, v2_m, v_m and the queue."""
    generator = torch.Generator().manual_seed(seed)
    return [unit_rows(count, dim, generator) for count in (batch,) * 5 + (length,)]


@pytest.mark.parametrize(("batch", "dim", "length", "temperature"), [(5, 6, 11, 0.07), (1, 3, 4, 1.0), (4, 8, 7, 0.2)])
def test_values_and_gradients(batch, dim, length, temperature):
    fast, slow = features(batch, dim, length), features(batch, dim, length)
    for v in fast[:5] + slow[:5]:
        v.requires_grad_()
    result = c2l_loss(*fast, temperature)
    expected = oracle.loss(*slow, temperature)
    for value, reference in zip(result, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)
    result.total.backward()
    expected[0].backward()
    for v, reference in zip(fast[:5], slow[:5], strict=True):
        torch.testing.assert_close(v.grad, reference.grad, rtol=1e-10, atol=1e-12)


def test_student_gradients_by_finite_differences():
    v1_a, v1_m, *keys = features(3, 4, 6)
    v1_a.requires_grad_()
    v1_m.requires_grad_()
    c2l_loss(v1_a, v1_m, *keys, 0.3).total.backward()
    step = 1e-6
    for v, place in ((v1_a, 0), (v1_m, 1)):
        for j in range(3):
            for d in range(4):
                there = []
                for sign in (1, -1):
                    moved = [v1_a.detach().clone(), v1_m.detach().clone()]
                    moved[place][j, d] += sign * step
                    there.append(oracle.loss(*moved, *keys, 0.3)[0])
                assert v.grad[j, d].item() == pytest.approx(((there[0] - there[1]) / (2 * step)).item(), abs=1e-7)


def test_scale_against_the_papers_sums():
    v = features(batch=4)
    loss_a, loss_m = oracle.sums(*v, 0.2)
    assert c2l_loss(*v, 0.2).total.item() == pytest.approx(((loss_a + loss_m) / (3 * 4)).item(), rel=1e-12)


def test_by_hand():
    """Query equal to its key, one past feature at a right angle: CE = log(1 + exp(-1 / t)), three times."""
    key, past = (
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, 1.0]], dtype=torch.float64),
    )
    result = c2l_loss(key, key, key, key, key, past, 0.5)
    once = torch.log1p(torch.exp(torch.tensor(-2.0, dtype=torch.float64)))
    torch.testing.assert_close(torch.stack(result), torch.stack([once, once, 2 * once]))


def test_each_teacher_batch_has_its_own_term():
    v = features()
    base = c2l_loss(*v, 0.2)
    for place, a_changes in ((2, True), (3, False), (4, False)):
        changed = list(v)
        changed[place] = v[place].roll(1, dims=0)
        other = c2l_loss(*changed, 0.2)
        assert (other.loss_a != base.loss_a) == a_changes
        assert (other.loss_m != base.loss_m) == (not a_changes)


def test_float32_agrees_and_large_logits_do_not_overflow():
    v = features(batch=8, dim=16, length=50)
    narrow = c2l_loss(*(x.float() for x in v), 0.07)
    assert narrow.total.dtype == torch.float32
    torch.testing.assert_close(narrow.total.double(), oracle.loss(*v, 0.07)[0], rtol=1e-5, atol=1e-5)
    assert torch.isfinite(c2l_loss(*(x.float() for x in v), 1e-3).total)


def test_top1_counts_queries_nearest_to_their_key():
    query = torch.eye(3)
    key = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0, -1.0]])
    past = torch.tensor([[0.0, 0.9, 0.1]])
    assert contrast_top1(query, key, past).item() == pytest.approx(1 / 3)
    assert contrast_top1(query, query, past).item() == 1


@pytest.fixture
def small_c2l(monkeypatch):
    """A C2L of small networks, with a teacher that differs from the student."""
    monkeypatch.setattr(momentum_teacher, "Encoder", Small)
    torch.manual_seed(0)
    recipe = Recipe("small", size=4, batch_size=6, batch_norm_group=3, queue_length=19, feature_dim=5)
    method = C2L(recipe, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return method


def test_a_whole_forward_pass(small_c2l):
    generator = torch.Generator().manual_seed(5)
    x1, x2 = (torch.randn(6, 1, 4, 4, generator=generator) for _ in range(2))
    drawing = torch.Generator().manual_seed(9)
    m = mixup.draw(6, 1.0, drawing.clone_state())
    exact = copy.deepcopy(small_c2l).double()
    expected, keys = oracle.forward(
        x1.double().flatten(1),
        x2.double().flatten(1),
        exact.student.layer,
        exact.teacher.layer,
        exact.queue.keys,
        m.lam,
        m.permutation,
        small_c2l.recipe.temperature,
    )
    before = copy.deepcopy(small_c2l.state_dict())
    step = small_c2l(x1, x2, drawing)
    for value, reference in zip(step.loss, expected, strict=True):
        assert value.item() == pytest.approx(reference.item(), rel=1e-5)
    for rows, reference in zip(step.keys, keys, strict=True):
        torch.testing.assert_close(rows.double(), torch.stack(reference), rtol=1e-5, atol=1e-6)
        assert not rows.requires_grad
    # A forward pass alone changes neither queue nor networks (lines 17 and 18 come after the update).
    for name, value in small_c2l.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_only_the_student_learns(small_c2l):
    x = torch.randn(6, 1, 4, 4)
    small_c2l(x, x + 0.1, torch.Generator().manual_seed(0)).loss.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in small_c2l.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in small_c2l.teacher.parameters())


def test_the_teacher_begins_as_the_student():
    method = C2L(Recipe("small", batch_size=8, batch_norm_group=4, queue_length=24))
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[key], teacher[key]) for key in student)
    assert not {p.data_ptr() for p in method.student.parameters()} & {p.data_ptr() for p in method.teacher.parameters()}
