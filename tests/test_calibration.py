"""Thresholds that keep what they promise, and figures that others' code agrees with."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from tasks.calibration import auroc, auroc_interval, false_alarms, share_interval, threshold


def many(photos: int, crops: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Scores whose logarithms are normal, between photos and within."""
    random = np.random.default_rng(seed)
    logs = random.normal(0, 0.3, (photos, 1)) + random.normal(0, 0.1, (photos, crops))
    return np.exp(logs).ravel(), [f"photo {number}" for number in range(photos) for _ in range(crops)]


def test_as_many_photos_as_it_takes_vouch_for_a_rate() -> None:
    for photos, by in ((19, "photos"), (18, "extrapolation")):
        assert threshold(*many(photos, 2), 0.05).by == by
    scores, names = many(99, 1)
    assert threshold(scores, names, 0.01).score == scores.max()


def test_a_photo_counts_once_however_many_crops_it_has() -> None:
    scores = np.concatenate([np.arange(1.0, 40.0), np.full(5000, 100.0)])
    names = [f"photo {number}" for number in range(39)] + ["odd"] * 5000
    assert threshold(scores, names, 0.1).score == 37.0  # 4 of 41 lie above: two photos, the odd one, the one to come


@pytest.mark.parametrize(("photos", "rate"), [(6, 0.05), (8, 0.01), (40, 0.05), (120, 0.01)])
def test_pictures_of_other_photos_exceed_it_no_more_often_than_asked(photos: int, rate: float) -> None:
    unseen, _ = many(4000, 2, seed=99)
    rates = [float((unseen > threshold(*many(photos, 3, seed), rate).score).mean()) for seed in range(200)]
    assert np.mean(rates) <= 1.15 * rate
    assert np.mean(rates) >= 0.2 * rate, "a threshold that nothing exceeds would find nothing"


def test_rarer_alarms_take_higher_thresholds() -> None:
    scores, names = many(30, 2)
    found = [threshold(scores, names, rate).score for rate in (0.4, 0.2, 0.1, 0.05, 0.02)]
    assert found == sorted(found)


def test_scores_of_zero_have_a_threshold_above_zero() -> None:
    for photos in (5, 50):
        assert threshold(np.zeros(photos), [str(number) for number in range(photos)], 0.05).score > 0


def test_auroc_and_false_alarms_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    usual, shifted = random.normal(0, 1, 60).round(1), random.normal(1, 1, 80).round(1)
    truth = np.r_[np.zeros(60), np.ones(80)]
    assert auroc(usual, shifted) == pytest.approx(roc_auc_score(truth, np.r_[usual, shifted]))
    alarms, hits, _ = roc_curve(truth, np.r_[usual, shifted], drop_intermediate=False)
    assert false_alarms(usual, shifted) == pytest.approx(alarms[np.searchsorted(hits, 0.95)], abs=0.05)


def test_an_interval_is_wider_where_photos_are_few() -> None:
    (few, names), (lots, more) = many(6, 5), many(60, 5)
    narrow = auroc_interval(lots, 1.3 * lots, more, more)
    wide = auroc_interval(few, 1.3 * few, names, names)
    assert narrow and wide and wide[1] - wide[0] > narrow[1] - narrow[0]
    assert narrow[0] <= auroc(lots, 1.3 * lots) <= narrow[1]
    assert auroc_interval(few[:20], few[:20], names[:20], names[:20]) is None
    assert auroc_interval(lots, few + 9, more, [f"drawing {name}" for name in names]) == [1.0, 1.0]


def test_a_share_has_an_interval_by_photo() -> None:
    assert share_interval([0.0, 1.0, 0.0, 0.0]) == pytest.approx([0.0063, 0.8059], abs=1e-4)
    assert share_interval([0.0] * 2) == pytest.approx([0.0, 0.8419], abs=1e-4)
    assert share_interval([1.0] * 2)[1] == 1.0 and share_interval([0.5] * 50)[0] > 0.35
