"""Random seeds from a few integers, the same on every machine."""

import numpy as np


def seed_of(*words: int) -> int:
    """Hash non-negative integers, such as a run's seed, a use and a step, to one 64-bit seed.

    Different integers result in independent streams, so no stream depends on how much another has drawn.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
