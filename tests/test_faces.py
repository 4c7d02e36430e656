"""faces: found where there is one, at its place, at any size; how it is turned, if its eyes are seen; who it is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageDraw
from skimage import data

from models.errors import UserError
from tasks.curate_params import Gradients, OnnxEmbedding
from tasks.face_figures import measure_faces
from tasks.faces import FACE_SIDE, count_eyes, cut_face, find_faces, find_posed, load_embedding
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


def photographer() -> Pixels:
    """A man in profile who looks to the right, through a camera; his face is about 100 pixels wide."""
    grey = data.camera()[:220, 120:340]
    return np.repeat(grey[..., None], 3, axis=2)


def mirrored(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def test_a_face_in_profile_is_told_with_its_side_and_no_frontal_one() -> None:
    assert find_faces(photographer()) == []
    (face,), (other,) = find_posed(photographer()), find_posed(mirrored(photographer()))
    assert (face.pose, other.pose) == ("turned right", "turned left")
    left, top, side = face.box
    assert left + side / 2 == pytest.approx(110, abs=25) and top + side / 2 == pytest.approx(140, abs=25)
    assert other.box[0] + other.box[2] / 2 == pytest.approx(220 - left - side / 2, abs=10)


def test_a_frontal_face_is_frontal_from_either_side_and_counts_once() -> None:
    for pixels in (astronaut(), mirrored(astronaut())):
        (face,) = find_posed(pixels)
        assert face.pose == "frontal"
        assert [face.box] == find_faces(pixels)


def test_of_several_faces_the_largest_comes_first() -> None:
    whole = np.asarray(Image.fromarray(astronaut()).resize((260, 260)))
    both = np.full((350, 900, 3), 128, np.uint8)
    both[:260, :260] = whole
    both[:, 500:850] = astronaut()
    found = find_faces(both)
    assert [side for _, _, side in found] == sorted((side for _, _, side in found), reverse=True)
    assert [left > 450 for left, top, _ in found if top < 100] == [True, False]
    assert find_faces(both) == found


def covered(*ellipses: tuple[float, float, float, float]) -> Pixels:
    """The astronaut with something dark over parts of the face, in sides of its box."""
    left, top, side = find_faces(astronaut())[0]
    picture = Image.fromarray(astronaut())
    for x0, y0, x1, y1 in ellipses:
        at = (left + x0 * side, top + y0 * side, left + x1 * side, top + y1 * side)
        ImageDraw.Draw(picture).ellipse(at, fill=(22, 20, 24))
    return np.asarray(picture)


LENSES = (0.14, 0.26, 0.47, 0.52), (0.53, 0.26, 0.86, 0.52)


@pytest.mark.parametrize(("lenses", "seen"), [((), 2), (LENSES[:1], 1), (LENSES[1:], 1), (LENSES, 0)])
def test_eyes_that_are_covered_are_not_seen(lenses: tuple[tuple[float, ...], ...], seen: int) -> None:
    box = find_faces(astronaut())[0]
    assert count_eyes(covered(*lenses), box) == seen  # type: ignore[arg-type]


def test_dark_glasses_are_told_of_the_face_that_wears_them() -> None:
    bare, worn = measure_faces(covered()), measure_faces(covered(*LENSES))
    assert bare is not None and bare.eyes == "both seen"
    assert worn is not None and worn.eyes == "neither seen"


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (19, 19), (20, 300), (128, 128)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_small_and_plain_pictures_have_no_face(size: tuple[int, int], level: int) -> None:
    plain = np.full((*size, 3), level, np.uint8)
    assert find_faces(plain) == find_posed(plain) == []
    assert measure_faces(plain) is None


def test_a_small_face_box_has_no_eyes_and_is_no_error() -> None:
    assert count_eyes(astronaut(), (0, 0, 1)) == 0


def test_a_grey_picture_s_face_is_found_at_the_same_place() -> None:
    grey = np.repeat(np.asarray(Image.fromarray(astronaut()).convert("L"))[..., None], 3, axis=2)
    assert find_faces(grey) == find_faces(astronaut())


def test_looking_for_faces_starts_no_thread(repository: Path) -> None:
    """Stages look for faces in several processes: with a thread a core in each they would be in each other's way."""
    code = (
        "import psutil, numpy, cv2; from tasks.faces import find_faces; from skimage import data\n"
        "pixels = numpy.asarray(data.astronaut()[:350, 50:400])\n"
        "before = psutil.Process().num_threads()\n"
        "assert find_faces(pixels)\n"
        "print(cv2.getNumThreads(), psutil.Process().num_threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


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
