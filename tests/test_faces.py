"""faces: found where there is one, at its place, at any size; who it is, by edges or by an ONNX file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

from models.errors import UserError
from tasks.curate_params import Gradients, OnnxEmbedding
from tasks.faces import FACE_SIDE, cut_face, find_faces, load_embedding
from tasks.files import sha256_file
from tasks.pictures import Pixels


def astronaut() -> Pixels:
    """A person from the chest up; her face is about 90 pixels wide about (220, 110)."""
    return np.asarray(data.astronaut()[:350, 50:400])


@pytest.mark.parametrize("side", [128, 256, 350])
def test_a_face_is_found_at_its_place_whatever_the_size(side: int) -> None:
    pixels = np.asarray(Image.fromarray(astronaut()).resize((side, side)))
    left, top, width = find_faces(pixels)[0]
    scale = 350 / side
    assert (left + width / 2) * scale == pytest.approx(170, abs=25)
    assert (top + width / 2) * scale == pytest.approx(115, abs=25)


def test_boxes_lie_in_the_picture_when_it_is_no_square() -> None:
    wide = np.asarray(data.astronaut()[:300])
    for left, top, side in find_faces(wide):
        assert left >= 0
        assert top >= 0
        assert left + side <= wide.shape[1]
        assert top + side <= wide.shape[0]
    assert find_faces(wide)


def test_no_face_is_an_empty_list() -> None:
    assert find_faces(np.asarray(data.coffee()[:256, :256])) == []
    assert find_faces(np.full((64, 64, 3), 128, np.uint8)) == []


def test_gradients_know_a_repainted_face_from_another() -> None:
    embedding = load_embedding(Gradients(kind="gradients", blur=3.0))
    pixels = astronaut()
    box = find_faces(pixels)[0]
    own = cut_face(pixels, box)
    repainted = cut_face(np.clip(pixels[..., ::-1].astype(int) // 48 * 48 + 20, 0, 255).astype(np.uint8), box)
    other = (data.lfw_subset()[3] * 255).astype(np.uint8)
    other = np.asarray(Image.fromarray(other).convert("RGB").resize((FACE_SIDE, FACE_SIDE)))
    same, different = (float(a @ b) for a, b in (embedding(np.stack([own, one])) for one in (repainted, other)))
    assert same > different + 0.1
    assert embedding(np.empty((0, FACE_SIDE, FACE_SIDE, 3), np.uint8)).shape[0] == 0


def write_mean_colour(path: Path, channels: int = 3) -> str:
    """An ONNX file that gives the mean of each channel; its sha256."""
    shape = ["n", channels, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels, 1, 1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return sha256_file(path)


def test_an_onnx_file_can_say_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "faces.onnx"
    embed = load_embedding(OnnxEmbedding(kind="onnx", path=str(path), sha256=write_mean_colour(path)))
    red = np.zeros((2, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    red[..., 0] = 255
    assert embed(red) == pytest.approx(np.array([[1, -1, -1]] * 2) / 3**0.5, abs=1e-6)


def test_an_onnx_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faces.onnx"
    sha256 = write_mean_colour(path, channels=4)
    with pytest.raises(UserError, match=r"not one of \(N,3,S,S\)"):
        load_embedding(OnnxEmbedding(kind="onnx", path=str(path), sha256=sha256))
    with pytest.raises(UserError, match="restore it or change the pin"):
        load_embedding(OnnxEmbedding(kind="onnx", path=str(path), sha256="0" * 64))
    with pytest.raises(UserError, match="put the file there"):
        load_embedding(OnnxEmbedding(kind="onnx", path=str(tmp_path / "none"), sha256=sha256))
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_embedding(OnnxEmbedding(kind="onnx", path=str(path), sha256=sha256_file(path)))
