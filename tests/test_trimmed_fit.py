"""Least trimmed squares: the plain fit where nothing is wrong, the right one where much is, columns of any unit."""

import numpy as np
import pytest

from models.trimmed_fit import robust_deviation, trimmed_fit

TRUE = np.array([[1.0, -200.0], [0.5, 300.0]])
SCALE = np.array([0.01, 1.0])


def answers(known: np.ndarray, seed: int = 0) -> np.ndarray:
    return known @ TRUE + np.random.default_rng(seed).normal(size=(len(known), 2)) * SCALE


@pytest.fixture
def known() -> np.ndarray:
    return np.stack([np.ones(200), np.random.default_rng(1).normal(size=200)], axis=1)


def test_with_a_share_of_all_it_is_the_plain_fit(known: np.ndarray) -> None:
    target = answers(known)
    weights, heard = trimmed_fit(known, target, SCALE, 1.0)
    assert heard.all()
    np.testing.assert_allclose(weights, np.linalg.lstsq(known, target, rcond=None)[0])


@pytest.mark.parametrize("column", [0, 1])
def test_wrong_answers_have_no_say_in_whichever_unit_they_are_wrong(known: np.ndarray, column: int) -> None:
    target = answers(known)
    wrong = known[:, 1] > np.quantile(known[:, 1], 0.8)
    target[wrong, column] += 100 * SCALE[column]
    weights, heard = trimmed_fit(known, target, SCALE / 10, 0.75)
    assert not heard[wrong].any() and heard.mean() == pytest.approx(0.75)
    assert (np.abs(weights - TRUE) < 0.5 * SCALE).all()


def test_deviations_are_of_the_bulk_and_never_less_than_the_least() -> None:
    rest = np.random.default_rng(0).normal(size=(4000, 2)) * [3.0, 1e-9]
    rest[:400] = 1e6
    found = robust_deviation(rest, np.array([0.1, 0.1]))
    assert found[0] == pytest.approx(3.0, rel=0.2) and found[1] == 0.1
