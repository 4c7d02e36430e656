"""The painter: repeatable, mirrored pictures give mirrored paintings, and the look is pinned by golden figures."""

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from models.teachers.painter import Painter


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    small = resize(data.astronaut()[:400, :400], (128, 128), anti_aliasing=True)
    return (small * 255).round().astype(np.uint8)


@pytest.mark.parametrize("style", ["oil", "sketch"])
def test_same_bits_alone_and_in_a_batch(style: str, photo: np.ndarray) -> None:
    teacher = Painter(style=style, name=style, version=1)
    other = photo[::-1].copy()
    both = teacher(np.stack([photo, other]), [0, 1])
    assert both.shape == (2, 128, 128, 3)
    assert both.dtype == np.float32
    assert 0 <= both.min() and both.max() <= 1
    assert np.array_equal(both[1], teacher(other[None], [7])[0])


@pytest.mark.parametrize("style", ["oil", "sketch"])
def test_mirrored_input_gives_the_mirrored_painting(style: str, photo: np.ndarray) -> None:
    teacher = Painter(style=style, name=style, version=1)
    painted, mirrored = teacher(np.stack([photo, photo[:, ::-1]]), [0, 0])
    assert np.abs(painted - mirrored[:, ::-1]).mean() < 2e-3


# mean and standard deviation of each channel; a change here means that CODE_VERSIONS must be raised
GOLDEN = {
    "oil": [0.6678, 0.4625, 0.3803, 0.3723, 0.3081, 0.2679],
    "sketch": [0.7387, 0.6182, 0.5597, 0.2806, 0.2517, 0.2258],
}


@pytest.mark.parametrize("style", ["oil", "sketch"])
def test_the_look_is_pinned(style: str, photo: np.ndarray) -> None:
    painted = Painter(style=style, name=style, version=1)(photo[None], [0])[0]
    found = [*painted.mean(axis=(0, 1)), *painted.std(axis=(0, 1))]
    assert found == pytest.approx(GOLDEN[style], abs=2e-3)


def test_digest_tells_style_and_version_apart() -> None:
    digests = {
        Painter(style=style, name="a", version=version).digest for style in ("oil", "sketch") for version in (1, 2)
    }
    assert len(digests) == 4
