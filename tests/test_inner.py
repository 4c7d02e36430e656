"""What a teacher holds inside: an ONNX file's tensors by name, nothing computed beyond them, unknown names refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_onnx import NCHW, NHWC, affine_bytes, graph_bytes, pinned
from torch.nn import functional

from models.errors import UserError
from models.teachers.inner import inner_features


@pytest.fixture
def network(tmp_path: Path) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
    """A teacher of two convolutions, the first to 5 channels; its pin and weights."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(5, 3, 1, 1)), random.normal(size=(3, 5, 1, 1))
    nodes = [("Conv", ("x", "a"), "hidden"), ("Relu", ("hidden",), "active"), ("Conv", ("active", "b"), "y")]
    data = graph_bytes(nodes, shape=NCHW, constants={"a": first, "b": second})
    return pinned(tmp_path / "t.onnx", data), first, second


def test_tensors_by_name_in_the_order_asked_for(network: tuple[dict[str, object], np.ndarray, np.ndarray]) -> None:
    pin, first, _ = network
    x = torch.rand(2, 3, 8, 8)
    active, hidden, again = inner_features(pin, ["active", "hidden", "active"])(x)
    expected = functional.conv2d(x, torch.tensor(first, dtype=torch.float32))
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(active, expected.relu())
    assert again is active


def test_channels_last_comes_back_channels_first(tmp_path: Path) -> None:
    pin = pinned(tmp_path / "t.onnx", affine_bytes(0.5, 0.25, shape=NHWC))
    x = torch.rand(2, 3, 4, 6)
    [half] = inner_features(pin, ["m"])(x)
    torch.testing.assert_close(half, x / 2)


def test_an_unknown_tensor_is_refused_with_the_nearest(
    network: tuple[dict[str, object], np.ndarray, np.ndarray],
) -> None:
    with pytest.raises(UserError, match="teacher tiny v1 has no tensor 'hiden'; near: hidden"):
        inner_features(network[0], ["hiden"])


def test_other_bytes_and_other_kinds_are_refused(network: tuple[dict[str, object], np.ndarray, np.ndarray]) -> None:
    pin = network[0]
    with pytest.raises(UserError, match="has sha256"):
        inner_features(pin | {"sha256": "0" * 64}, ["hidden"])
    with pytest.raises(UserError, match="a painter teacher has no features to learn from"):
        inner_features({"kind": "painter", "style": "oil", "name": "a", "version": 1}, ["hidden"])
