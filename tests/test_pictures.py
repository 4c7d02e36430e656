"""Pictures: decoding, crops, digests, and what belongs together."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from scenes import encoded, scene

from models.errors import UserError
from models.light import LIGHT
from tasks import pictures
from tasks.ingest import split_of
from tasks.pictures import Unfit
from tasks.stage_params import Split

SHARES = Split(val=0.15, test=0.2)
KEYS = st.text("0123456789abcdef", min_size=8, max_size=8)


def test_turning_the_hue_moves_colour_and_leaves_light() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    assert pictures.turn_hue(red, 120)[0, 0].tolist() == [0, 200, 0]
    assert np.array_equal(pictures.turn_hue(red, 0), red)
    assert np.array_equal(pictures.turn_hue(red, 360), red)


def light_of(code: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """sRGB in [0,1] -> linear light (IEC 61966-2-1), between the 256 codes too."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@example(stops=0.9, gamma=0.9140625)  # a code near white, whose halves hold unequal light
@given(st.floats(-3, 2.5), st.floats(0.75, 1.35))
def test_exposure_moves_light_by_stops_and_gamma(stops: float, gamma: float) -> None:
    ramp = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    seen = pictures.expose(ramp, stops, gamma)
    expected = np.clip(LIGHT * 2**stops, 0, 1) ** gamma
    # The nearest of the 256 codes: what was expected lies between the light of half a code less and half a code more.
    half_codes = light_of(np.clip(seen[:, 0, 0, None] + np.array([-0.5, 0.5]), 0, 255) / 255)
    assert ((half_codes[:, 0] - 1e-5 <= expected) & (expected <= half_codes[:, 1] + 1e-5)).all()
    assert (np.diff(seen[:, 0, 0].astype(int)) >= 0).all() and (seen[..., 0] == seen[..., 1]).all()


def test_exposure_by_a_stop_doubles_and_halves_the_mean_light() -> None:
    dim = scene(4) // 3
    for stops in (1, -1):
        assert LIGHT[pictures.expose(dim, stops, 1.0)].mean() == pytest.approx(LIGHT[dim].mean() * 2**stops, rel=0.02)
    assert np.array_equal(pictures.expose(scene(4), 0.0, 1.0), scene(4))


def test_exif_rotation_is_honoured() -> None:
    pixels = scene(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = pictures.decode_picture(encoded(pixels, exif=exif))
    assert np.array_equal(upright, np.rot90(pixels, -1))


def test_transparency_becomes_white() -> None:
    layered = np.dstack([scene(1), np.zeros((64, 80), dtype=np.uint8)])
    assert (pictures.decode_picture(encoded(layered)) == 255).all()


def test_a_phone_photo_with_a_preview_is_no_animation() -> None:
    preview = Image.fromarray(scene(2))
    data = encoded(scene(1), "MPO", save_all=True, append_images=[preview])
    assert pictures.decode_picture(data).shape == (64, 80, 3)


def test_a_decompression_bomb_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene(1))
    for limit in (4000, 2000):  # Pillow warns above the limit and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Unfit, match="huge"):
            pictures.decode_picture(data)


@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=12), st.lists(KEYS, max_size=6), st.integers(0, 9))
def test_groups_hold_whatever_is_added_that_is_not_near(old: list[tuple[str, str]], new: list[str], seed: int) -> None:
    # Old hashes have the low half of their bits, new ones the high half all set and odd ones below: 32 bits apart.
    keys = [key for key, _ in old]
    hashes = [(int(low, 16), int(low, 16)) for _, low in old]
    added = ["x" + key for key in new]
    far = [((0xFFFFFFFF << 32) | int(key, 16),) * 2 for key in new]
    before = pictures.groups(keys, hashes, 10)
    after = pictures.groups([*added, *keys], [*far, *hashes], 10)[len(added) :]
    assert after == before
    assert [split_of(key, seed, SHARES) for key in after] == [split_of(key, seed, SHARES) for key in before]


@given(st.permutations(range(6)))
def test_groups_do_not_depend_on_the_order(order: list[int]) -> None:
    keys = ["b", "a", "d", "c", "c", "e"]  # two pictures of one clip, c
    plain = [0b1, 0b11, 0xFF << 40, 0xFF << 20, 0b111, 0xF << 50]
    mirrored = [1 << 63 | 0xF << 8 * i for i in range(5)] + [0xFF << 20]
    hashes = list(zip(plain, mirrored, strict=True))
    found = pictures.groups([keys[i] for i in order], [hashes[i] for i in order], 1)
    # b - a - c by the hashes, e - c because e's mirror image is c's first picture; d is far from all.
    assert [found[order.index(i)] for i in range(6)] == ["a", "a", "d", "a", "a", "a"]


def test_a_damaged_input_is_refused(tmp_path: Path) -> None:
    pixels = scene(1)
    digest = pictures.pixel_digest(pixels)
    with pytest.raises(UserError, match="missing"):
        pictures.read_input(tmp_path, digest)
    pictures.write_input(tmp_path, digest, pixels)
    assert np.array_equal(pictures.read_input(tmp_path, digest), pixels)
    (tmp_path / f"{digest}.png").write_bytes(encoded(scene(2)))
    with pytest.raises(UserError, match="does not hold the pixels"):
        pictures.read_input(tmp_path, digest)
    (tmp_path / f"{digest}.png").write_bytes(b"x")
    with pytest.raises(UserError, match="is damaged"):
        pictures.read_input(tmp_path, digest)


def test_crops_keep_to_the_picture() -> None:
    pixels = scene(1)
    assert np.array_equal(pictures.crop_and_resize(pixels, (8, 0, 64), 64), pixels[:, 8:72])
    assert pictures.crop_and_resize(pixels, (0, 0, 50), 32).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="does not lie in"):
        pictures.crop_and_resize(pixels, (40, 0, 64), 64)
