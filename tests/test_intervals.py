"""Bootstrap intervals over photos: what is drawn, that pairs are kept together, and that equal sums give equal ends."""

import math

import numpy as np
import pytest

from tasks.intervals import explained_interval, figure_intervals, gain_interval

RNG = np.random.default_rng(0)
PHOTOS = 12
CHANGE = RNG.uniform(0.5, 1.5, PHOTOS)
HARD = RNG.uniform(0.2, 0.6, PHOTOS)  # share of the change that is left, very different from photo to photo


def test_the_interval_holds_the_pooled_figure() -> None:
    interval = explained_interval(HARD * CHANGE, CHANGE)
    assert interval is not None
    assert interval.low < 1 - (HARD * CHANGE).sum() / CHANGE.sum() < interval.high
    assert (interval.level, interval.photos, interval.resamples) == (0.95, PHOTOS, 2000)
    assert interval == explained_interval(HARD * CHANGE, CHANGE)


def test_it_is_the_textbook_bootstrap() -> None:
    # With equal changes the effect is a mean, whose standard error is known.
    values = RNG.normal(0.5, 0.1, 200)
    interval = explained_interval(1 - values, np.ones(200))
    assert interval is not None
    error = 1.96 * values.std() / math.sqrt(200)
    assert interval.low == pytest.approx(values.mean() - error, abs=0.002)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.002)


def test_every_pooled_figure_has_the_interval_of_its_photos() -> None:
    from models.metrics import pool

    names = (
        "psnr_db",
        "ssim",
        "ms_ssim",
        "error",
        "change",
        "sharpness",
        "teacher_sharpness",
        "chroma",
        "teacher_chroma",
    )
    columns = {name: RNG.uniform(0.5, 1.5, 3 * PHOTOS) for name in names}
    photos = [f"photo {row // 3:02}" for row in range(3 * PHOTOS)]
    found, figures = figure_intervals(columns, photos), pool(columns)
    assert found.keys() == figures.keys()
    for name, interval in found.items():
        assert interval.low < figures[name] < interval.high and interval.photos == PHOTOS
    sums = [columns[key].reshape(PHOTOS, 3).sum(axis=1) for key in ("error", "change")]
    textbook = explained_interval(*sums)
    assert textbook and found["explained_effect"].low == pytest.approx(textbook.low, abs=1e-5)
    assert figure_intervals({name: values[:3] for name, values in columns.items()}, photos[:3]) == {}


def test_more_photos_are_surer_than_more_crops_of_few() -> None:
    many = explained_interval(np.repeat(HARD, 4), np.ones(4 * PHOTOS))
    few = explained_interval(4 * HARD, np.full(PHOTOS, 4.0))
    assert many is not None and few is not None
    assert few.high - few.low > 1.7 * (many.high - many.low)


def test_the_gain_is_paired() -> None:
    # A little better on every photo: sure of each photo, though the photos differ far more than the two students.
    gain = gain_interval(0.95 * HARD * CHANGE, HARD * CHANGE, CHANGE)
    own = explained_interval(HARD * CHANGE, CHANGE)
    assert gain is not None and own is not None
    assert 0 < gain.low < 0.05 * HARD.mean() < gain.high
    assert gain.high - gain.low < 0.2 * (own.high - own.low)


def test_no_gain_over_itself() -> None:
    gain = gain_interval(HARD, HARD, CHANGE)
    assert gain is not None and gain.low == gain.high == 0.0


def test_a_gain_on_one_photo_alone_is_not_sure() -> None:
    better = HARD * CHANGE
    better[0] = 0.0
    gain = gain_interval(better, HARD * CHANGE, CHANGE)
    assert gain is not None and gain.low == 0.0 < gain.high


@pytest.mark.parametrize("photos", [0, 1])
def test_one_photo_says_nothing_about_others(photos: int) -> None:
    assert explained_interval([0.1] * photos, [1.0] * photos) is None
    assert gain_interval([0.1] * photos, [0.2] * photos, [1.0] * photos) is None


def test_photos_that_the_teacher_left_alone_do_not_raise() -> None:
    interval = explained_interval([0.1, 1e6], [1.0, 0.0])
    assert interval is not None and not interval.low >= 0
