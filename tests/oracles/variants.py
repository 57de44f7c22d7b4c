"""Ablations of lines 2 and 7 to 18 of Algorithm 1, image by image in float64, for networks that take one image."""

import torch

from .c2l import cross_entropy_of_first, mixed, predictions, unit
from .memory_queue import SlowQueue


def step(x1, x2, student, teacher, past, draws, terms, temperature, interleaved, mixed_after_norm, summed):
    """One forward pass.

    Args:
        x1, x2: the two views' images.
        past: Q's rows, the oldest first.
        draws: (λ, permutation) of the first view and of the second.
        terms: the terms in use, among "clean", "mixed" and "feature".

    Returns:
        total, loss_A, loss_M, each term's keys in the order in which they enter Q, and Q's rows afterwards.
    """
    (lam1, order1), (lam2, order2) = draws
    keys_a = [teacher(x) for x in x2]
    mixable = [unit(key) for key in keys_a] if mixed_after_norm else keys_a
    sides = {
        "clean": ([student(x) for x in x1], keys_a),
        "mixed": ([student(x) for x in mixed(x1, lam1, order1)], [teacher(x) for x in mixed(x2, lam2, order2)]),
        "feature": ([student(x) for x in mixed(x1, lam1, order1)], mixed(mixable, lam2, order2)),
    }
    queue, waiting, sums = SlowQueue(past), [], {}
    for term in ("clean", "mixed", "feature"):
        if term not in terms:
            continue
        queries, keys = ([unit(v) for v in side] for side in sides[term])
        sums[term] = torch.zeros((), dtype=torch.float64)
        for query, key in zip(queries, keys, strict=True):
            sums[term] = sums[term] + cross_entropy_of_first(predictions(query, key, queue.rows, temperature))
        waiting.append(keys)
        if interleaved:
            queue.insert(keys)
    if not interleaved:
        queue.insert(*waiting)
    loss_a = sums.get("clean", 0.0) / len(x1)
    loss_m = (sums.get("mixed", 0.0) + sums.get("feature", 0.0)) / len(x1)
    total = sum(sums.values())
    if not summed:
        total = total / len(x1) / len(terms)
    return total, loss_a, loss_m, waiting, queue.rows
