"""The nearest of many vectors, exactly, by Faiss: for duplicates, outliers, clusters and what a picture was taught by.

Vectors are standardised and then whitened on their principal components: of features that rise and fall together each
counts once, and none for its unit.
100,000 vectors are searched for the nearest of each other in about a minute on two cores.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
DIMENSIONS = 48
FITTED_ON = 20_000  # vectors, evenly over the set
LEAST_SHARE = 1e-3  # of the first component's variance: below it is noise, which whitening would raise


class Neighbours:
    """An index of (N,C) vectors, N at least 2."""

    def __init__(self, vectors: npt.NDArray[Any], dimensions: int = DIMENSIONS) -> None:
        import faiss

        values = np.asarray(vectors, np.float64)
        step = -(-len(values) // FITTED_ON)
        fitted = values[::step]
        self._mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
        own_unit = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0)  # what never varies has no say
        variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(((fitted - self._mean) * own_unit).T)))
        variances, axes = variances[::-1][:dimensions], axes[:, ::-1][:, :dimensions]
        kept = variances > max(LEAST_SHARE * variances[0], 1e-12)
        # Where all are the same there is one axis of no length, and all distances are 0.
        kept[0] = True
        self._axes = own_unit[:, None] * axes[:, kept] / np.sqrt(np.maximum(variances[kept], 1e-12))
        self.vectors = self.whitened(values)
        self._index = faiss.IndexFlatL2(self.vectors.shape[1])
        self._index.add(self.vectors)

    def whitened(self, vectors: npt.NDArray[Any]) -> Vectors:
        """(M,C) -> (M,D) float32: what distances are taken between."""
        return np.ascontiguousarray((np.asarray(vectors, np.float64) - self._mean) @ self._axes, np.float32)

    def nearest(self, vectors: npt.NDArray[Any], count: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Of each of (M,C) the distances to its nearest, ascending, and their rows: (M,count) both."""
        squares, rows = self._index.search(self.whitened(vectors), min(count, len(self.vectors)))
        return np.sqrt(np.maximum(squares, 0)), rows

    def of_each_other(self, count: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The same of every vector in the index, itself left out."""
        squares, rows = self._index.search(self.vectors, min(count + 1, len(self.vectors)))
        distances = np.sqrt(np.maximum(squares, 0))
        own = rows == np.arange(len(rows))[:, None]
        own[~own.any(axis=1), -1] = True  # one with more twins than were asked for
        shape = (len(rows), rows.shape[1] - 1)
        return distances[~own].reshape(shape), rows[~own].reshape(shape)
