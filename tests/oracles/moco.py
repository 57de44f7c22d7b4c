"""MoCo's loss, one query at a time, in plain Python."""

import math

import numpy as np


def loss(queries: np.ndarray, keys: np.ndarray, queue: np.ndarray, temperature: float) -> float:
    """The mean over queries of -log(exp(q·k/T) / (exp(q·k/T) + Σ exp(q·Q/T))); rows are normalised here."""

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / math.sqrt(sum(float(x) ** 2 for x in vector))

    losses = []
    for query, key in zip(queries, keys, strict=True):
        q, k = unit(query), unit(key)
        positive = math.exp(float(q @ k) / temperature)
        negatives = sum(math.exp(float(q @ past) / temperature) for past in queue)
        losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)
