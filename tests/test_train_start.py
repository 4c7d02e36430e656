"""Start weights: many effects share a body, the same step draws the same batch, filters make pictures."""

import numpy as np
import torch
from test_students import SMALL

from models.students import build_student
from tasks.train_start import BATCH, CROP, EFFECTS, FILTERS, batch, filtered, made_of, with_heads, with_one_head


def test_each_sample_has_the_picture_of_its_own_head() -> None:
    torch.manual_seed(0)
    student = with_heads(build_student(SMALL, 64)).eval()
    x, effects = torch.rand(3, 3, 64, 64), torch.tensor([0, 4, 2])
    made = made_of(student, x, effects)
    for place, effect in enumerate(effects.tolist()):
        alone = made_of(student, x[place : place + 1], torch.tensor([effect]))
        torch.testing.assert_close(made[place : place + 1], alone, rtol=1e-4, atol=1e-5)
    one = with_one_head(student, 4)
    torch.testing.assert_close(one(x[1:2]), made[1:2].clamp(0, 1), rtol=1e-4, atol=1e-5)
    assert set(one.state_dict()) == set(build_student(SMALL, 64).state_dict())


def test_a_batch_is_of_its_step_and_targets_are_those_of_the_effect() -> None:
    random = np.random.default_rng(0)
    photos = random.integers(0, 256, (4, CROP + 8, CROP + 8, 3), dtype=np.uint8)
    styles = np.stack([255 - photos, photos // 2, photos // 4], axis=1)
    first, second = (batch(photos, styles, 7, 0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    x, y, effects = first
    assert x.shape == (BATCH, 3, CROP, CROP)
    for picture, target, effect in zip(x, y, effects.tolist(), strict=True):
        if EFFECTS[effect] == "oil":
            torch.testing.assert_close(target, 1 - picture)
        elif EFFECTS[effect] in FILTERS:
            torch.testing.assert_close(target, filtered(EFFECTS[effect], picture[None])[0])


def test_filters_stay_pictures_and_differ() -> None:
    x = torch.rand(1, 3, 32, 32)
    made = {name: filtered(name, x) for name in FILTERS}
    assert torch.equal(made["as it is"], x)
    for name, picture in made.items():
        assert picture.shape == x.shape and 0 <= picture.min() and picture.max() <= 1
        assert name == "as it is" or not torch.equal(picture, x)
