"""Which patients are kept from what: the only place that decides it.

Every part of a data set is drawn patient by patient, by a hash of the patient's id and a stream. Parts of different
streams are independent: of the patients who are held out of pretraining, a probe's tuning part holds its usual share.
Were two parts drawn from one stream, the smaller would lie inside the larger, and a probe could be left with nobody
to tune on. The numbers must not change, because they decide who is in the parts of released results.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .seeding import seed_of

_LOW_32_BITS = 2**32

STREAMS: Mapping[str, Callable[[int], int]] = {
    # Held out of pretraining (`hold_out` of a recipe), and judge a recipe search: one part for all seeds.
    "pretraining": lambda seed: 0,
    # Evaluates a detector. The pretraining stream on purpose: patients held out of pretraining are evaluated on first.
    "detection": lambda seed: 0,
    # A probe on a share of the labels, in `c2l reproduce`: one part for all seeds.
    "few_labels": lambda seed: 1_000_000,
    # The k-NN monitor's queries while pretraining runs: one part for all seeds.
    "monitor": lambda seed: 1_000_001,
    # Tunes the penalty of a linear probe.
    "probe_tuning": lambda seed: 2_000_000 + seed,
    # Fine-tuning: the share of the labels that is learned from, and the patients who choose the epoch.
    "finetuning_labels": lambda seed: seed_of(seed, 0) % _LOW_32_BITS,
    "finetuning_held_out": lambda seed: seed_of(seed, 1) % _LOW_32_BITS,
}
"""Each stream's number, by the seed of the run that draws from it."""


def split_patients(
    patients: NDArray[np.str_] | Sequence[str], fraction: float, stream: str, seed: int = 0
) -> NDArray[np.bool_]:
    """Draw about a fraction of the patients, each patient with all images.

    A patient is drawn by the hash of stream, seed and id alone, so neither the order of the rows nor the other
    patients matter, and a smaller fraction is part of a larger one.

    Args:
        patients: the patient id of each image, [N].
        fraction: share of the patients, from 0 to 1.
        stream: one of `STREAMS`.
        seed: of the run; some streams ignore it.

    Returns:
        Mask, bool [N], of the images of the drawn patients.
    """
    number = STREAMS[stream](seed)
    names, inverse = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    digests = [hashlib.sha256(f"{number}:{name}".encode()).digest() for name in names]
    uniform = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    drawn: NDArray[np.bool_] = (uniform < fraction)[inverse]
    return drawn
