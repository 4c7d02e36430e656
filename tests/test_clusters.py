"""Clusters of like pictures, and batches that draw slices of the pairs evenly."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import scene
from test_train import STUDENT, here  # noqa: F401 - a fixture

from models.batches import Batches
from tasks.clusters import LEAST, MOST, Clusters, cluster_count, embedded, even
from tasks.files import read_json
from tasks.params import load_params
from tasks.taught import often, slice_labels
from tasks.train import train
from tasks.training_params import Train

RANDOM = np.random.default_rng(0)


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """(400,6) vectors about six places, and which each is about; the sizes differ."""
    truth = np.repeat(np.arange(6), [150, 100, 60, 40, 30, 20])
    places = 8 * RANDOM.standard_normal((6, 6))
    return (places[truth] + RANDOM.standard_normal((400, 6))).astype(np.float32), truth


def test_clusters_are_found_the_largest_first_and_new_vectors_fall_into_them() -> None:
    vectors, truth = blobs()
    found = Clusters(vectors, seed=0)
    assert len(found) == cluster_count(400) == 6
    np.testing.assert_array_equal(found.labels, truth)
    assert found.score > 0.5
    np.testing.assert_array_equal(found.distances(vectors[::7]).argmin(axis=1), truth[::7])
    again = Clusters(vectors, seed=0)
    np.testing.assert_array_equal(again.labels, found.labels)


@pytest.mark.parametrize(
    ("pictures", "clusters"), [(0, 1), (1, 1), (LEAST - 1, 1), (LEAST, 2), (160, 4), (10**6, MOST)]
)
def test_how_many_clusters(pictures: int, clusters: int) -> None:
    assert cluster_count(pictures) == clusters


@pytest.mark.parametrize("vectors", [np.zeros((1, 3)), np.zeros((30, 3)), RANDOM.standard_normal((5, 3))])
def test_too_few_or_equal_pictures_are_not_taken_apart(vectors: np.ndarray) -> None:
    found = Clusters(vectors.astype(np.float32), seed=0)
    assert set(found.labels.tolist()) == {0}
    assert found.distances(vectors.astype(np.float32)).shape == (len(vectors), len(found))


def test_pictures_are_embedded_alike_whatever_their_size() -> None:
    large = np.stack([scene(seed, 128, 128) for seed in range(3)])
    small = large.reshape(3, 64, 2, 64, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    np.testing.assert_allclose(embedded(large), embedded(small), rtol=0.05, atol=0.01)


def test_slices_are_even_up_to_the_cap() -> None:
    labels = np.repeat([0, 1, 2], [12, 6, 1])
    times = even(labels, cap=4.0)
    assert [times[labels == slice_].sum() for slice_ in range(3)] == [12, 12, 4]
    assert (even(np.zeros(5, np.int64), 4.0) == 1).all()


def batches(count: int, times: np.ndarray | None, seed: int = 0) -> Batches:
    pictures = np.zeros((count, 32, 32, 3), np.uint8)
    return Batches(pictures, pictures, batch_size=4, crop=32, seed=seed, often=times)


def test_an_epoch_shows_each_pair_as_often_as_it_should() -> None:
    times = even(np.repeat([0, 1, 2], [12, 5, 1]), cap=4.0)  # 1, 2.4 and 4 times
    found = batches(18, times)
    assert found.epoch == 12 + 12 + 4
    shown = np.concatenate([found.rows(step) for step in range(7 * 20)]).reshape(20, 28)
    for epoch in shown:
        counts = np.bincount(epoch, minlength=18)
        assert (counts[:12] == 1).all() and counts[17] == 4
        assert set(counts[12:17]) <= {2, 3} and counts[12:17].sum() == 12
    mean = np.bincount(shown.ravel(), minlength=18) / 20
    assert mean[12:17] == pytest.approx(np.full(5, 2.4), abs=0.4)  # no pair is always the one left out


def test_balanced_batches_are_a_function_of_seed_and_step() -> None:
    times = even(np.repeat([0, 1], [12, 5]), cap=4.0)
    found, again = batches(17, times), batches(17, times)
    for step in (31, 2, 9):
        np.testing.assert_array_equal(found.rows(step), again.rows(step))
    assert any((batches(17, times, seed=1).rows(step) != found.rows(step)).any() for step in range(5))


def test_even_slices_and_none_are_the_very_same_batches() -> None:
    plain, ones = batches(9, None), batches(9, np.ones(9))
    for step in range(12):
        np.testing.assert_array_equal(plain.rows(step), ones.rows(step))


def balanced(settings: Any, by: str) -> Any:
    block = settings.student("oil")
    changed = Train.model_validate(block.train.model_dump() | {"balance": {"by": by, "cap": 3.0}})
    return block.model_copy(update={"train": changed})


@pytest.mark.parametrize("by", ["cluster", "luma", "detail", "chroma"])
def test_a_student_is_taught_on_even_slices(here: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    params = load_params()
    folder = here / "data/students/oil/pairs"
    assert often(folder, params.student("oil")) is None
    slice_labels.cache_clear()
    before = torch.get_num_threads()
    times = often(folder, balanced(params, by))
    assert torch.get_num_threads() == before
    assert times is not None and times.min() == 1 and times.max() <= 3
    assert f"slices by {by} of " in capsys.readouterr().out
    assert not STUDENT.exists()


def test_stopped_and_run_again_a_balanced_training_ends_with_the_same_bytes(
    here: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = balanced(load_params(), "luma")
    train(load_params(), "oil", block)
    whole = {path.name: path.read_bytes() for path in STUDENT.iterdir()}
    assert read_json(STUDENT / "student.json")["train"]["balance"] == {"by": "luma", "cap": 3.0}
    shutil.rmtree(STUDENT)
    shutil.rmtree(here / "data/.work")
    batch = Batches.batch

    def stops(self: Batches, step: int, *share: Any) -> Any:
        if step == 17:
            raise KeyboardInterrupt
        return batch(self, step, *share)

    monkeypatch.setattr(Batches, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        train(load_params(), "oil", block)
    monkeypatch.setattr(Batches, "batch", batch)
    train(load_params(), "oil", block)
    assert {path.name: path.read_bytes() for path in STUDENT.iterdir()} == whole
