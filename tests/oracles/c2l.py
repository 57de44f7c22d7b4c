"""Lines 9 to 15 of Algorithm 1, one image and one inner product at a time, in float64."""

import torch


def inner(a, b):
    """a^T b, component by component."""
    total = torch.zeros((), dtype=torch.float64)
    for left, right in zip(a, b, strict=True):
        total = total + left * right
    return total


def cross_entropy_of_first(predictions):
    """CE of a set of predictions against gt = {1, 0, ..., 0}: -log(exp(p_0) / sum of exp(p_n))."""
    denominator = torch.zeros((), dtype=torch.float64)
    for prediction in predictions:
        denominator = denominator + torch.exp(prediction)
    return -torch.log(torch.exp(predictions[0]) / denominator)


def predictions(query, positive, queue, temperature):
    """Equations 3 and 4: the N + 1 inner products of one image, over the temperature."""
    products = [inner(query, positive)]
    for past in queue:
        products.append(inner(query, past))
    return [product / temperature for product in products]


def sums(v1_a, v1_m, v2_a, v2_m, v_m, queue, temperature):
    """(loss_A, loss_M) as the paper prints them: sums over the batch."""
    loss_a = torch.zeros((), dtype=torch.float64)  # line 9
    loss_m = torch.zeros((), dtype=torch.float64)
    for j in range(len(v1_a)):  # line 10
        loss_a = loss_a + cross_entropy_of_first(predictions(v1_a[j], v2_a[j], queue, temperature))  # line 12
        loss_m = loss_m + cross_entropy_of_first(predictions(v1_m[j], v2_m[j], queue, temperature))  # line 13
        loss_m = loss_m + cross_entropy_of_first(predictions(v1_m[j], v_m[j], queue, temperature))
    return loss_a, loss_m


def loss(v1_a, v1_m, v2_a, v2_m, v_m, queue, temperature):
    """(total, loss_A, loss_M) with this project's scale: means over the batch, and a third of the sum in line 15."""
    loss_a, loss_m = sums(v1_a, v1_m, v2_a, v2_m, v_m, queue, temperature)
    loss_a, loss_m = loss_a / len(v1_a), loss_m / len(v1_a)
    return (loss_a + loss_m) / 3, loss_a, loss_m


def unit(vector):
    """A vector divided by its length."""
    return vector / torch.sqrt(inner(vector, vector))


def mixed(rows, lam, permutation):
    """Equation 1, row by row: lam * row + (1 - lam) * its partner."""
    return [lam * rows[j] + (1 - lam) * rows[permutation[j]] for j in range(len(rows))]


def forward(x1_a, x2_a, student, teacher, queue, lam, permutation, temperature):
    """Lines 2 and 7 to 15 for networks that take one image: the loss, and the three batches that enter Q.

    The teacher's features are mixed first, and normalised afterwards.
    """
    x1_m, x2_m = mixed(x1_a, lam, permutation), mixed(x2_a, lam, permutation)  # line 2
    v1_a, v1_m = [student(x) for x in x1_a], [student(x) for x in x1_m]  # line 7
    v2_a, v2_m = [teacher(x) for x in x2_a], [teacher(x) for x in x2_m]  # line 8
    v_m = mixed(v2_a, lam, permutation)
    v1_a, v1_m, v2_a, v2_m, v_m = ([unit(v) for v in rows] for rows in (v1_a, v1_m, v2_a, v2_m, v_m))
    return loss(v1_a, v1_m, v2_a, v2_m, v_m, queue, temperature), (v2_a, v2_m, v_m)
