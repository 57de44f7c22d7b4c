"""All patient-level splits: held-out, tuning, evaluation and label-efficiency parts.

A patient is drawn by a hash of the patient's id and a stream's number. Splits of different streams are independent: a
probe's tuning part takes the same share of the patients held out of pretraining as of all other patients. Splits of
one stream are nested: the smaller lies inside the larger. If tuning used the stream of the held-out part, a probe on
the other patients could have no tuning patients. The numbers must not change, because released results depend on them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .seeding import seed_of

_LOW_32_BITS = 2**32

STREAMS: Mapping[str, Callable[[int], int]] = {
    # Held out of pretraining (a recipe's `hold_out`), also to compare recipes in a search: one part for all seeds.
    "pretraining": lambda seed: 0,
    # Evaluation of a detector. The same number as "pretraining", so that patients held out of pretraining come first.
    "detection": lambda seed: 0,
    # Training patients of a probe on a share of the labels, in `c2l reproduce`: one part for all seeds.
    "few_labels": lambda seed: 1_000_000,
    # Queries of the k-NN monitor during pretraining: one part for all seeds.
    "monitor": lambda seed: 1_000_001,
    # Test folds of tasks that are measured on out-of-fold predictions: one partition for all seeds.
    "out_of_fold": lambda seed: 1_000_002,
    # Tuning folds of a linear probe's penalty.
    "probe_tuning": lambda seed: 2_000_000 + seed,
    # Labelled images of a draw of `c2l few-shot`. The seed is the number of the draw.
    "few_shot": lambda seed: 3_000_000 + seed,
    # Fine-tuning: training patients on a share of the labels, and patients to choose the best epoch on.
    "finetuning_labels": lambda seed: seed_of(seed, 0) % _LOW_32_BITS,
    "finetuning_held_out": lambda seed: seed_of(seed, 1) % _LOW_32_BITS,
}
"""Each stream's number, as a function of the run's seed."""


def split_patients(
    patients: NDArray[np.str_] | Sequence[str], fraction: float, stream: str, seed: int = 0
) -> NDArray[np.bool_]:
    """Draw about a fraction of the patients, each with all images of the patient.

    Whether a patient is drawn depends on stream, seed and id alone, not on the order of the rows or on other patients.
    A smaller fraction is a part of a larger one.

    Args:
        patients: the patient id of each image, [N].
        fraction: share of the patients, from 0 to 1.
        stream: one of `STREAMS`.
        seed: the run's seed. Some streams ignore it.

    Returns:
        bool [N], True for the images of drawn patients.
    """
    drawn: NDArray[np.bool_] = _uniform(patients, stream, seed) < fraction
    return drawn


def patient_folds(
    patients: NDArray[np.str_] | Sequence[str], folds: int, stream: str, seed: int = 0
) -> NDArray[np.int64]:
    """Divide the patients into folds, each with all images of the patient.

    The fold of a patient depends on stream, seed and id alone. Folds therefore differ in size by chance, and a fold of
    few patients can be empty. Fold 0 of K is the part that `split_patients` draws with the fraction 1/K.

    Args:
        patients: the patient id of each image, [N].
        folds: number of folds K.
        stream, seed: as for `split_patients`.

    Returns:
        int64 [N], the number of each image's fold, from 0 to K - 1.
    """
    return (_uniform(patients, stream, seed) * folds).astype(np.int64)


def order_images(patients: NDArray[np.str_] | Sequence[str], stream: str, seed: int = 0) -> NDArray[np.int64]:
    """Draw an order of the images in which every patient comes once before any patient comes again.

    The first n images are a draw of n images, and part of every larger draw.

    Args:
        patients: the patient id of each image, [N].
        stream, seed: as for `split_patients`.

    Returns:
        int64 [N], positions among the images. The order of the patients depends on stream, seed and ids alone. A
        patient's images are in random order, which depends on the order of the rows too.
    """
    patient = _uniform(patients, stream, seed)
    by_patient = np.lexsort([np.random.default_rng(STREAMS[stream](seed)).random(len(patient)), patient])
    first = np.searchsorted(patient[by_patient], patient[by_patient], side="left")
    earlier = np.arange(len(patient)) - first  # images of the same patient that come before
    return by_patient[np.lexsort([patient[by_patient], earlier])]


def _uniform(patients: NDArray[np.str_] | Sequence[str], stream: str, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each image, the same for all images of a patient: float64 [N]."""
    number = STREAMS[stream](seed)
    names, inverse = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    digests = [hashlib.sha256(f"{number}:{name}".encode()).digest() for name in names]
    return np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])[inverse]
