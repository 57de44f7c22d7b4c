"""Batch mixup and feature mixup: values by hand, the distribution of λ, and one draw for both views."""

import pytest
import torch
from oracles import c2l as oracle
from scipy import stats

from c2l_models.training.mixup import Mix, draw, mix


def test_values_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])
    mixed = mix(x, Mix(0.75, torch.tensor([2, 0, 1])))
    assert mixed.tolist() == [[2.0, 3.5], [2.5, 3.5], [4.5, 7.0]]


@pytest.mark.parametrize("shape", [(5, 1, 3, 3), (5, 7)], ids=["images", "features"])
def test_images_and_features_row_by_row(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m = draw(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mix(x, m), torch.stack(oracle.mixed(x, m.lam, m.permutation)), rtol=0, atol=1e-15)


def test_one_draw_mixes_both_views_and_the_features_alike():
    m = draw(6, generator=torch.Generator().manual_seed(2))
    x = torch.randn(6, 1, 4, 4)
    assert torch.equal(mix(x, m), mix(x, m))
    torch.testing.assert_close(mix(x.flatten(1), m), mix(x, m).flatten(1), rtol=0, atol=0)
    # Mixup is linear: a linear network's features of mixed images are the mixture of its features.
    linear = torch.randn(16, 3)
    torch.testing.assert_close(mix(x, m).flatten(1) @ linear, mix(x.flatten(1) @ linear, m))


@pytest.mark.parametrize("alpha", [1.0, 0.4, 5.0])
def test_lambda_is_beta(alpha):
    generator = torch.Generator().manual_seed(0)
    lams = [draw(1, alpha, generator).lam for _ in range(3000)]
    assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_lambda_is_uniform_by_default_and_not_folded():
    generator = torch.Generator().manual_seed(1)
    lams = [draw(1, generator=generator).lam for _ in range(3000)]
    assert stats.kstest(lams, stats.uniform.cdf).pvalue > 0.01
    assert min(lams) < 0.01  # max(λ, 1 - λ) would not go below a half


def test_permutations_are_uniform():
    generator = torch.Generator().manual_seed(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(2400):
        permutation = tuple(draw(4, generator=generator).permutation.tolist())
        assert sorted(permutation) == [0, 1, 2, 3]
        counts[permutation] = counts.get(permutation, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_the_generator_decides():
    one, same, other = (draw(64, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one.lam == same.lam
    assert torch.equal(one.permutation, same.permutation)
    assert one.lam != other.lam
    assert not torch.equal(one.permutation, other.permutation)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    draw(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
