"""Class-activation maps by one position at a time, and nearest neighbours by one pair at a time."""

import math

import torch


def class_activation(network, film, label):
    """Map [h][w] of a label on a film [1, S, S]: the head's weights on what comes into the network's pooling."""
    seen = []
    hook = network.global_pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        network(film[None])
    hook.remove()
    weights = network.get_classifier().weight[label].tolist()
    channels, height, width = seen[0].shape
    values = seen[0].double().tolist()
    return [
        [math.fsum(weights[c] * values[c][y][x] for c in range(channels)) for x in range(width)] for y in range(height)
    ]


def neighbours(features, patients, query, query_patient, k):
    """The k most similar of the features that are not of the query's patient: (position, cosine), best first."""
    found = []
    for position, (feature, patient) in enumerate(zip(features, patients, strict=True)):
        if patient != query_patient:
            dot = math.fsum(a * b for a, b in zip(feature, query, strict=True))
            found.append((-dot / (math.hypot(*feature) * math.hypot(*query)), position))
    return [(position, -cosine) for cosine, position in sorted(found)[:k]]
