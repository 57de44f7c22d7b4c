"""FLOPs and bytes compared with hand counts."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from c2l_models.training.benchmark import roofline
from c2l_models.training.benchmark.roofline import Ceilings, Cost, ceiling_workloads, ceilings, count_cost

X = torch.ones(10, 10)  # 400 bytes
FOUR = torch.ones(4)  # 16 bytes
ROWS = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("workload", "moved"),
    [
        (lambda: X + X, 3 * 400),  # both read, one written
        (lambda: X.exp(), 2 * 400),
        (lambda: X.to(torch.float64), 400 + 800),
        (lambda: X.add_(1), 2 * 400),
        (lambda: torch.mul(X, X, out=torch.empty(10, 10)), 3 * 400),
        (lambda: (X.t(), X[2:], X.view(100), X.detach()), 0),
        (lambda: torch.empty(1000), 0),
        (lambda: FOUR.expand(100, 4).exp(), 16 + 1600),  # the expanded tensor is not copied
        (lambda: X[:1].exp(), 2 * 40),
        (lambda: X[ROWS], 2 * 80),  # the selected rows, not the whole tensor
        (lambda: torch._foreach_lerp_([FOUR, FOUR], [FOUR, FOUR], 0.5), 2 * 3 * 16),
        (lambda: torch.cat([X, X]), 2 * 800),
        (lambda: torch.topk(FOUR, 2), 16 + 2 * 4 + 2 * 8),  # two results
    ],
)
def test_bytes(workload: Callable[[], object], moved: int) -> None:
    assert count_cost(workload) == Cost(0, moved)


def test_rows_that_are_put_count_alone() -> None:
    value = torch.ones(2, 10)
    assert count_cost(lambda: X.index_put_((ROWS,), value)).bytes == 2 * 80


def test_a_matrix_product() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_cost(lambda: a @ b) == Cost(2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_a_convolution_forward_and_backward() -> None:
    """Batch 2, 3 to 4 channels, a 3 x 3 kernel, 8 x 8 to 6 x 6 pixels."""
    image, kernel = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3, requires_grad=True)
    forward = 2 * 2 * (4 * 6 * 6) * (3 * 3 * 3)
    in_and_out = 4 * (2 * 3 * 64 + 4 * 27 + 2 * 4 * 36)
    assert count_cost(lambda: functional.conv2d(image, kernel)) == Cost(forward, in_and_out)

    out = functional.conv2d(image, kernel)
    backward = count_cost(lambda: out.backward(torch.ones_like(out)))
    assert backward.flops == forward  # the kernel's gradient only: the image has none
    image.requires_grad_()
    out = functional.conv2d(image, kernel)
    assert count_cost(lambda: out.backward(torch.ones_like(out))).flops == 2 * forward


def test_the_roofline_is_the_slower_of_computing_and_moving() -> None:
    best = Ceilings(flops=100.0, bytes=10.0)
    assert best.seconds(Cost(flops=400, bytes=20)) == 4
    assert best.bound(Cost(flops=400, bytes=20)) == "compute"
    assert best.seconds(Cost(flops=100, bytes=50)) == 5
    assert best.bound(Cost(flops=100, bytes=50)) == "memory"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "MATRIX_SIDE", {"cpu": 8})
    monkeypatch.setattr(roofline, "CONVOLUTION", {"cpu": (2, 4, 6)})
    monkeypatch.setattr(roofline, "VECTOR_LENGTH", {"cpu": 100})


MATMUL, CONVOLUTION, TRIAD = 2 * 8**3, 2 * (2 * 4 * 6 * 6) * (4 * 9), 3 * 400


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_ceilings_are_measured_with(precision: str) -> None:
    workloads = ceiling_workloads(torch.device("cpu"), precision)
    size = getattr(torch, precision).itemsize
    assert count_cost(workloads["matmul"]) == Cost(MATMUL, 3 * 64 * size)
    assert count_cost(workloads["convolution"]) == Cost(CONVOLUTION, (2 * 288 + 4 * 4 * 9) * size)
    assert count_cost(workloads["triad"]) == Cost(0, TRIAD)


@pytest.mark.usefixtures("small")
def test_the_ceiling_is_the_best_round_of_the_better_kernel() -> None:
    workloads = ceiling_workloads(torch.device("cpu"), "float32")
    seconds = {"matmul": (8.0, 4.0), "convolution": (1e9, 1e9), "triad": (5.0, 3.0)}
    assert ceilings(workloads, seconds) == Ceilings(MATMUL / 4.0, TRIAD / 3.0)
    assert ceilings(workloads, seconds | {"convolution": (0.5, 2.0)}).flops == CONVOLUTION / 0.5
