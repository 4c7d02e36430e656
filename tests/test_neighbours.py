"""Like pictures lie near one another, and the index finds the nearest of them."""

import numpy as np
import pytest
from scenes import scene
from scipy.spatial.distance import cdist

from models.embedding import embed
from tasks.neighbours import Neighbours

RANDOM = np.random.default_rng(0)


def test_the_nearest_are_those_by_mahalanobis_distance() -> None:
    vectors = RANDOM.standard_normal((300, 5)) @ (np.eye(5) + 0.3 * RANDOM.standard_normal((5, 5))) * [1, 1, 1, 1, 9]
    queries = vectors[:7] + 0.1
    distances, rows = Neighbours(vectors).nearest(queries, 4)
    expected = cdist(queries, vectors, "mahalanobis", VI=np.linalg.inv(np.cov(vectors.T)))
    np.testing.assert_array_equal(rows, expected.argsort(axis=1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :4], rtol=1e-3)


def test_no_vector_is_its_own_neighbour() -> None:
    vectors = np.repeat(RANDOM.standard_normal((4, 3)), 5, axis=0)
    distances, rows = Neighbours(vectors).of_each_other(3)
    assert rows.shape == distances.shape == (20, 3)
    assert (rows != np.arange(20)[:, None]).all()
    np.testing.assert_array_equal(rows // 5, np.repeat(np.arange(20) // 5, 3).reshape(20, 3))
    np.testing.assert_allclose(distances, 0, atol=1e-3)


@pytest.mark.parametrize("vectors", [np.ones((3, 4)), np.array([[1.0], [2.0]])])
def test_sets_without_spread_or_of_two(vectors: np.ndarray) -> None:
    distances, rows = Neighbours(vectors).of_each_other(5)
    assert np.isfinite(distances).all() and rows.shape == (len(vectors), len(vectors) - 1)


def test_a_picture_is_nearer_to_itself_changed_a_little_than_to_others() -> None:
    pictures = np.stack([scene(seed, 96, 96) for seed in range(12)])
    changed = np.clip(pictures.astype(int) + RANDOM.integers(-6, 7, pictures.shape), 0, 255).astype(np.uint8)
    vectors = embed([pictures[:5], pictures[5:]])
    assert vectors.shape == (12, 416)
    _, rows = Neighbours(vectors).nearest(embed([changed]), 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(12))
