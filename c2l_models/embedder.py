"""`RadiographEmbedder`: `embed` as a scikit-learn transformer, for pipelines, cross-validation and grid search."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .embedding import BATCH_SIZE, embed, feature_count
from .errors import C2LError, RadiographError
from .readouts import Readout

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise C2LError("RadiographEmbedder needs scikit-learn, which is not installed: pip install scikit-learn") from error

SHOWN_FILES = 3
"""Number of unreadable files that an error lists."""


class RadiographEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Files to features: `make_pipeline(RadiographEmbedder(), LogisticRegression()).fit(paths, labels)`.

    The network is frozen, so `fit` learns nothing. In a pipeline with a `memory` folder, a grid search computes the
    features of each training list once, but those of each test list for every candidate. To compute them once, search
    on the features: `GridSearchCV(LogisticRegression(), …).fit(RadiographEmbedder().transform(paths), labels)`.

    Args:
        model: as for `c2l_models.embed`, like the next three.
        batch_size: images per forward pass.
        device: device to compute on.
        features: "pooled" or "multiscale".
        unreadable: "raise", or "nan" for a row of NaN in place of each file that cannot be read.
    """

    def __init__(
        self,
        model: Any = "resnet18",
        *,
        batch_size: int = BATCH_SIZE,
        device: Any = None,
        features: Readout = "pooled",
        unreadable: str = "raise",
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.device = device
        self.features = features
        self.unreadable = unreadable

    def fit(self, X: Any, y: Any = None) -> "RadiographEmbedder":
        """Count the features of the network. Neither files nor labels are read, nor the tensors of a release."""
        if self.unreadable not in ("raise", "nan"):
            raise C2LError(f"expected unreadable to be 'raise' or 'nan', found {self.unreadable!r}")
        self._n_features_out = feature_count(self.model, self.features)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """True: a new embedder can transform files, because `fit` learns nothing."""
        return True

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of files.

        Args:
            X: N paths: a list, an array, a Series, or a table with one column.

        Returns:
            float32 [N, D], in the order of the paths.

        Raises:
            RadiographError: a file cannot be read, and `unreadable` is "raise".
            MachineError: this machine cannot read a file: disk failure, too little memory, no decoder.
            C2LError: X is not a list of paths, or as for `c2l_models.embed`.
        """
        paths = as_paths(X)
        found = embed(paths, self.model, self.batch_size, self.device, features=self.features)
        if found.errors and self.unreadable == "raise":
            listed = "; ".join(f"{path}: {reason}" for path, reason in list(found.errors.items())[:SHOWN_FILES])
            raise RadiographError(
                f"{len(found.errors)} of {len(paths)} files cannot be read ({listed}); leave them out, or set "
                "unreadable='nan'"
            )
        rows = np.full((len(paths), found.features.shape[1]), np.nan, np.float32)
        rows[[row for row, path in enumerate(paths) if path not in found.errors]] = found.features
        return rows


def as_paths(column: Any) -> list[Path]:
    """The paths in a list, an array, a Series, or a table with one column. Raises C2LError for anything else."""
    array = np.asarray(column, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise C2LError(f"expected a list of paths, found an array of shape {array.shape}; pass one column of paths")
    wrong = [value for value in array if not isinstance(value, str | os.PathLike)]
    if wrong:
        raise C2LError(
            f"expected a list of paths, found a {type(wrong[0]).__name__} in it; pass the files, not the images"
        )
    return [Path(path) for path in array]
