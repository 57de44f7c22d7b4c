"""Class-activation maps, one position at a time, and nearest neighbours, one pair at a time."""

import math

import torch


def class_activation(network, image, label):
    """Map [h][w] of a label for an image [1, S, S]: the input of the pooling, weighted by the head's weights."""
    seen = []
    hook = network.global_pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        network(image[None])
    hook.remove()
    weights = network.get_classifier().weight[label].tolist()
    channels, height, width = seen[0].shape
    values = seen[0].double().tolist()
    return [
        [math.fsum(weights[c] * values[c][y][x] for c in range(channels)) for x in range(width)] for y in range(height)
    ]


def neighbours(features, patients, query, query_patient, k):
    """The k features of other patients that are most similar to the query: (position, cosine), best first."""
    found = []
    for position, (feature, patient) in enumerate(zip(features, patients, strict=True)):
        if patient != query_patient:
            dot = math.fsum(a * b for a, b in zip(feature, query, strict=True))
            found.append((-dot / (math.hypot(*feature) * math.hypot(*query)), position))
    return [(position, -cosine) for cosine, position in sorted(found)[:k]]
