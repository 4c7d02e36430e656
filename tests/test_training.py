"""Training: learns, resumes to the same bits, stops on NaN; batches depend on the seed and the step alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_students import SMALL

from models.batches import Batches
from models.camera import Camera
from models.errors import UserError
from models.students import build_student
from models.terms import Pictures, Term
from models.torch_setup import prepare_torch
from models.training import Line, Recipe, Training, begin, moving_average, rate, resume, run
from models.validation import on_pairs

LOSSES = {"pixel": 1.0, "structure": 0.2, "gradient": 0.5, "chroma": 0.5}

NOTHING = {"blur": 0.0, "noise": 0.0, "compression": 0.0}
CAMERA = {"blur": 0.5, "noise": 0.5, "compression": 0.5}


def recipe(**change: Any) -> Recipe:
    settings: dict[str, Any] = {
        "steps": 12,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "checkpoint_every": 4,
        "validate_every": 6,
    }
    return Recipe(**{**settings, **change})


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    inputs = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return inputs, 255 - inputs[..., ::-1]


def train(
    folder: Path,
    pairs: tuple[np.ndarray, np.ndarray],
    settings: Recipe,
    stop_after: int | None = None,
    terms: Sequence[Term] | None = None,
    camera: Camera | None = None,
) -> Training:
    prepare_torch(1)
    torch.manual_seed(0)
    training = begin(build_student(SMALL, 64), settings, [Pictures(LOSSES)] if terms is None else terms)
    resume(training, folder / "checkpoint.safetensors")
    batches = Batches(*pairs, batch_size=4, crop=64, seed=3, camera=camera)

    def show(training: Training, line: Line) -> None:
        if stop_after == training.step:
            raise KeyboardInterrupt

    checkpoint = folder / "checkpoint.safetensors"
    run(training, batches, on_pairs(pairs), settings, Accelerator(cpu=True), checkpoint, show)
    return training


def test_overfits_four_pairs(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    training = train(tmp_path, pairs, recipe(steps=150, ema_decay=0.5, checkpoint_every=1000, validate_every=1000))
    assert training.curve[-1]["val_explained_effect"] > 0.9
    assert training.curve[-2]["loss"] < 0.4 * training.curve[0]["loss"]


@pytest.mark.parametrize("by", [{}, {"optimizer": "sgd", "milestones": (0.5,)}])
def test_stopped_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray], by: dict[str, Any]
) -> None:
    camera = Camera(**CAMERA)
    whole = train(tmp_path / "whole", pairs, recipe(**by), camera=camera)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", pairs, recipe(**by), stop_after=6, camera=camera)
    parts = train(tmp_path / "parts", pairs, recipe(**by), camera=camera)
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, parts.average.state_dict()[name]), name
    assert whole.curve == parts.curve


def test_a_run_that_is_over_only_hands_out_its_result(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    first = train(tmp_path, pairs, recipe())
    again = train(tmp_path, pairs, recipe())
    assert again.step == 12
    assert all(torch.equal(a, b) for a, b in zip(first.average.parameters(), again.average.parameters(), strict=True))


def test_nan_stops_with_the_step_and_the_part(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+ \(pixel"):
        train(tmp_path, pairs, recipe(learning_rate=1e30), terms=[Pictures({"pixel": 1.0})])


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    settings = recipe(steps=100, warmup_steps=10)
    rates = [rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1)
    assert rates[-1] < 0.004


def test_learning_rate_falls_to_a_tenth_at_each_milestone() -> None:
    settings = recipe(steps=240, warmup_steps=0, milestones=(150 / 240, 180 / 240, 210 / 240))
    rates = [rate(step, settings) for step in range(240)]
    assert [rates.count(one) for one in sorted(set(rates), reverse=True)] == [150, 30, 30, 30]
    assert rates[239] == pytest.approx(1e-3)


def test_a_batch_is_a_function_of_seed_and_step(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (Batches(*pairs, batch_size=3, crop=32, seed=5) for _ in range(2))
    for step in (7, 2, 7):
        for a, b in zip(first.batch(step), second.batch(step), strict=True):
            assert torch.equal(a, b)
    other = Batches(*pairs, batch_size=3, crop=32, seed=6)
    assert not torch.equal(first.batch(7)[0], other.batch(7)[0])


def test_input_and_target_are_cut_and_mirrored_alike(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    inputs, targets = Batches(*pairs, batch_size=16, crop=32, seed=0).batch(0)
    assert torch.allclose(targets, 1 - inputs.flip(1))
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_shows_every_pair_once(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    batches = Batches(*pairs, batch_size=2, crop=32, seed=0)
    assert sorted(np.concatenate([batches.rows(0), batches.rows(1)])) == [0, 1, 2, 3]
    assert sorted(np.concatenate([batches.rows(2), batches.rows(3)])) == [0, 1, 2, 3]


def test_a_camera_degrades_the_inputs_and_neither_targets_nor_places(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    settings: dict[str, Any] = {"batch_size": 16, "crop": 32, "seed": 0}
    clean, blind = (Batches(*pairs, **settings, camera=camera) for camera in (None, Camera(**NOTHING)))
    noisy = Batches(*pairs, **settings, camera=Camera(**NOTHING | {"noise": 1.0}))
    for step in range(3):
        inputs, targets = clean.batch(step)
        seen, same = noisy.batch(step)
        assert torch.equal(same, targets)  # 255 - inputs in another order of channels: mirrored crops included
        assert torch.equal(blind.batch(step)[0], inputs)
        changed = (seen - inputs).abs().flatten(1)
        assert (changed.amax(1) > 0).all() and (changed.mean(1) < 0.12).all()  # another place differs by a third
        again = Batches(*pairs, **settings, camera=noisy.camera).batch(step)[0]
        assert torch.equal(again, seen)


def test_processes_share_a_batch(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    batches = Batches(*pairs, batch_size=4, crop=32, seed=0, camera=Camera(**CAMERA))
    whole = batches.batch(3)[0]
    parts = [batches.batch(3, slice(rank, None, 2))[0] for rank in range(2)]
    assert torch.equal(whole[0::2], parts[0])
    assert torch.equal(whole[1::2], parts[1])


def test_a_short_training_s_average_forgets_where_it_began() -> None:
    average = [torch.zeros(1)]
    update = moving_average(0.99)
    for count in range(1, 51):
        update(average, [torch.ones(1)], torch.tensor(count))
    assert average[0].item() > 0.99  # a fixed decay of 0.99 leaves 0.39
    update(average, [torch.zeros(1)], torch.tensor(10_000))
    assert average[0].item() == pytest.approx(0.99, abs=0.01)
