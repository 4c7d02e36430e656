"""Pictures in clusters of like ones: k-means of their embeddings, with the root of a tenth of their number as k.

The silhouette says how far the clusters are apart; it is not what k is chosen by, as it asks for two clusters of
photographs, which tell nothing (docs/decisions/0020-coverage.md).

For the coverage report (tasks/coverage.py) and for training that draws its clusters evenly (tasks/taught.py). One
thread throughout, so that equal pictures give equal clusters in whichever process it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from models.embedding import SIDE, embed
from tasks.neighbours import Neighbours
from tasks.pictures import Pixels

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

DIMENSIONS = 16  # of the whitened embedding: more of them drown the likeness that clusters are made of
MOST = 12  # clusters: as many as a reader can look through
LEAST = 20  # pictures: fewer are one cluster
SCORED_ON = 1000  # pictures, evenly over the set
TRIES = 4  # starts of k-means, of which the best counts
BATCH = 64


@contextmanager
def one_thread() -> Iterator[None]:
    """Numpy's, scikit-learn's and torch's sums in one order."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def embedded(squares: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N,S,S,3) uint8, perhaps memory-mapped -> (N,C)."""
    from PIL import Image

    def small(picture: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))

    return embed(
        np.stack([small(np.asarray(picture)) for picture in squares[at : at + BATCH]])
        for at in range(0, len(squares), BATCH)
    )


def cluster_count(pictures: int) -> int:
    """How many clusters so many pictures are put in: the root of a tenth of them, from 2 to MOST."""
    return min(MOST, max(2, round((pictures / 10) ** 0.5))) if pictures >= LEAST else 1


class Clusters:
    """Clusters of (N,C) vectors, the largest first; `labels` (N,) says which each is in."""

    def __init__(self, vectors: npt.NDArray[np.float32], seed: int) -> None:
        self.labels: Labels = np.zeros(len(vectors), np.int64)
        self.score = 0.0  # mean silhouette (Rousseeuw 1987): 1 is far apart, 0 overlapping
        self._space: Neighbours | None = None
        if cluster_count(len(vectors)) > 1:
            with one_thread():
                self._space = Neighbours(vectors, DIMENSIONS)
                self._fit(np.asarray(self._space.vectors, np.float64), seed)
        else:
            self.centres: Values = np.zeros((1, 1))

    def _fit(self, points: Values, seed: int) -> None:
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score

        count = min(cluster_count(len(points)), len(np.unique(points, axis=0)))
        best = KMeans(count, n_init=TRIES, random_state=seed).fit(points)
        scored = slice(None, None, -(-len(points) // SCORED_ON))
        if len(set(best.labels_[scored].tolist())) > 1:
            self.score = float(silhouette_score(points[scored], best.labels_[scored]))
        order = np.argsort(-np.bincount(best.labels_, minlength=best.n_clusters), kind="stable")
        self.centres = best.cluster_centers_[order]
        self.labels = np.argsort(order)[best.labels_].astype(np.int64)

    def __len__(self) -> int:
        return len(self.centres)

    def distances(self, vectors: npt.NDArray[np.float32]) -> Values:
        """(M,C) -> (M,clusters): how far each is from each centre."""
        if self._space is None:
            return np.zeros((len(vectors), len(self)))
        points = np.asarray(self._space.whitened(vectors), np.float64)
        return np.asarray(np.linalg.norm(points[:, None] - self.centres[None], axis=2))


def even(labels: Labels, cap: float) -> Values:
    """How often, from 1 to `cap`, an epoch is to show each picture for all slices to be as large as the largest."""
    sizes = np.bincount(labels)
    times: Values = np.clip(sizes.max() / np.maximum(sizes, 1), 1.0, cap)
    return times[labels]
