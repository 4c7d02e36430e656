"""Views and batches of classifiers are pure functions of their seeds, and show what the teacher was asked about."""

import numpy as np
import pytest
import torch

from models.classification.batches import PictureBatches, TextBatches
from models.classification.views import Viewer, Views

COUNT, SIZE, CLASSES, VIEWS = 10, 8, 3, 4


def pictures(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def views(**change: int) -> Views:
    return Views(**({"count": COUNT, "views": VIEWS, "pad": 2, "flip": True, "seed": 3} | change))


def test_a_view_is_a_moved_and_perhaps_mirrored_picture() -> None:
    shown, plain = Viewer(pictures(), views()), pictures()
    rows, which = np.repeat(np.arange(COUNT), VIEWS), np.tile(np.arange(VIEWS), COUNT)
    corners, mirrored = views().places()
    found = shown(rows, which)
    for place, (row, view) in enumerate(zip(rows, which, strict=True)):
        padded = np.pad(plain[row], ((2, 2), (2, 2), (0, 0)), mode="reflect")
        top, left = corners[row, view]
        expected = padded[top : top + SIZE, left : left + SIZE]
        np.testing.assert_array_equal(found[place], expected[:, ::-1] if mirrored[row, view] else expected)
    assert 0.2 < mirrored.mean() < 0.8 and len(np.unique(corners)) == 5


def test_more_views_or_rows_do_not_change_the_first_ones() -> None:
    corners, mirrored = views().places()
    more, more_mirrored = views(views=VIEWS + 3).places()
    np.testing.assert_array_equal(more[:, :VIEWS], corners)
    np.testing.assert_array_equal(more_mirrored[:, :VIEWS], mirrored)
    assert (views(seed=4).places()[0] != corners).any()


def test_without_views_pictures_are_shown_as_they_are() -> None:
    np.testing.assert_array_equal(Viewer(pictures(), None)(np.array([3, 1]), np.zeros(2, int)), pictures()[[3, 1]])
    assert not views(flip=False).places()[1].any() and not views(pad=0).places()[0].any()


def batches(**change: object) -> PictureBatches:
    settings = {
        "rows": np.array([0, 2, 3, 5, 7, 9]),
        "labels": np.arange(COUNT) % CLASSES,
        "logits": np.arange(COUNT * VIEWS * CLASSES, dtype=np.float32).reshape(COUNT, VIEWS, CLASSES),
        "pooled": None,
        "batch_size": 4,
        "seed": 1,
    }
    return PictureBatches(Viewer(pictures(), views()), **(settings | change))  # type: ignore[arg-type]


def test_a_batch_has_the_answers_to_the_very_views_it_shows() -> None:
    made = batches()
    seen = set()
    for step in range(6):
        batch = made.parts(made.batch(step))
        rows, which = made.rows(step)
        np.testing.assert_array_equal(batch.about["rows"], rows)
        np.testing.assert_array_equal(batch.about["labels"], made.labels[rows])
        np.testing.assert_array_equal(batch.targets, made.logits[rows, which])
        shown = made.viewer(rows, which)
        np.testing.assert_allclose(batch.inputs.permute(0, 2, 3, 1), shown / np.float32(255), atol=1e-6)
        seen |= set(rows.tolist())
    assert seen == {0, 2, 3, 5, 7, 9} and "pooled" not in batch.about


def test_epochs_show_every_row_once_and_steps_are_pure() -> None:
    made = batches(batch_size=3)
    for epoch in range(3):
        rows = np.concatenate([made.rows(step)[0] for step in (2 * epoch, 2 * epoch + 1)])
        assert sorted(rows) == [0, 2, 3, 5, 7, 9]
    again = batches(batch_size=3)
    for a, b in zip(made.batch(5), again.batch(5), strict=True):
        assert torch.equal(a, b)
    whole = made.batch(4)
    parts = [made.batch(4, slice(rank, None, 2)) for rank in range(2)]
    for place, every in enumerate(whole):
        assert torch.equal(every[0::2], parts[0][place]) and torch.equal(every[1::2], parts[1][place])


def test_pooled_features_come_where_they_are_kept() -> None:
    pooled = np.random.default_rng(0).random((COUNT, VIEWS, 5)).astype(np.float16)
    made = batches(pooled=pooled)
    batch = made.parts(made.batch(2))
    rows, which = made.rows(2)
    np.testing.assert_array_equal(batch.about["pooled"], pooled[rows, which].astype(np.float32))


@pytest.mark.parametrize("lengths", [[3, 1, 6, 2, 4, 5, 6, 1, 2, 3]])
def test_texts_are_cut_to_the_longest_of_a_batch(lengths: list[int]) -> None:
    ids = np.random.default_rng(0).integers(1, 50, (COUNT, 6))
    mask = (np.arange(6)[None] < np.array(lengths)[:, None]).astype(np.int64)
    settings = {"rows": np.arange(COUNT), "labels": np.zeros(COUNT, int), "pooled": None, "batch_size": 3, "seed": 0}
    made = TextBatches(ids, mask, logits=np.zeros((COUNT, 1, 2), np.float32), **settings)  # type: ignore[arg-type]
    for step in range(5):
        batch = made.parts(made.batch(step))
        rows, _ = made.rows(step)
        longest = max(lengths[row] for row in rows)
        assert batch.inputs.shape == (3, longest) and batch.controls[0].shape == (3, longest)
        np.testing.assert_array_equal(batch.inputs, ids[rows, :longest])
        assert (batch.controls[0].sum(dim=1).numpy() == [lengths[row] for row in rows]).all()
