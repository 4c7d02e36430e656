"""Faces in pictures, and how alike two of them look, without a download.

Faces are found by the cascades of Haar-like features that OpenCV carries (Viola & Jones 2001; Lienhart & Maydt 2002):
upright ones, seen from the front or in profile, that take about a fifth of the picture's width or more. They see a face
now and then where there is none (a dog), and overlook half of those there are: docs/decisions/0021-faces.md.

What says who it is can be chosen: `gradients` needs nothing; `onnx` is a file of yours, such as an ArcFace model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.errors import UserError
from tasks.curate_params import Gradients, OnnxEmbedding
from tasks.files import sha256_bytes
from tasks.pictures import Pixels

Box = tuple[int, int, int]  # left, top, side in pixels
Vectors = npt.NDArray[np.float32]
Embedding = Callable[[Pixels], Vectors]  # (N,F,F,3) faces -> (N,C) of unit length

FRONTAL, PROFILE, EYE = "haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml", "haarcascade_eye.xml"
POSES = ("frontal", "turned left", "turned right")  # as who looks at the picture sees it
SEARCH_SIDE = 128  # pixels of the shorter side at which faces are looked for
SMALLEST = 24  # of them
STEP = 1.1  # between the sizes that are looked for
VOTES = 3  # windows that have to agree on a face
CLEARLY = 2  # times the votes of the frontal cascade: it finds faces that are turned a little too
SAME = 0.3  # intersection over union from which two boxes are of one face
EYES_SIDE = 160  # pixels of a face in which eyes are looked for
EYES_ABOVE = 0.6  # of it, from the top
SMALLEST_EYE = 24
EYE_STEP, EYE_VOTES = 1.05, 2  # finer and laxer: the place is known, and what is covered has none even so
FACE_SIDE = 64  # pixels of a face that is cut out
MARGIN = 0.1  # of the box's side, added on each side where the picture goes on: hair and chin


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face that was found."""

    box: Box
    pose: str  # of POSES
    votes: int  # windows that agree on it


def find_faces(pixels: Pixels) -> list[Box]:
    """The faces seen from the front in a picture (H,W,3), largest first, then by place; empty where none is found."""
    return [face.box for face in _in_order(_seen(pixels, _shrunk(pixels), "frontal"))]


def find_posed(pixels: Pixels) -> list[Face]:
    """As find_faces, with those in profile: four times the time.

    A face that both cascades find is turned where the profile one has more than CLEARLY times the votes.
    """
    small = _shrunk(pixels)
    found = [face for pose in POSES for face in _seen(pixels, small, pose)]
    kept: list[Face] = []
    # A stable sort, and frontal ones come first.
    for face in sorted(found, key=lambda one: -one.votes * (CLEARLY if one.pose == "frontal" else 1)):
        if all(_overlap(face.box, other.box) < SAME for other in kept):
            kept.append(face)
    return _in_order(kept)


def count_eyes(pixels: Pixels, box: Box) -> int:
    """In how many halves, left and right, of a frontal face an eye is found: 0, 1 or 2."""
    left, top, side = box
    area = (left, top, left + side, top + side)
    face = Image.fromarray(pixels).convert("L").resize((EYES_SIDE, EYES_SIDE), Image.Resampling.BICUBIC, box=area)
    found = _cascade(EYE).detectMultiScale(
        np.asarray(face)[: round(EYES_SIDE * EYES_ABOVE)],
        scaleFactor=EYE_STEP,
        minNeighbors=EYE_VOTES,
        minSize=(SMALLEST_EYE, SMALLEST_EYE),
    )
    return len({bool(x + wide / 2 > EYES_SIDE / 2) for x, _, wide, _ in found})


def _shrunk(pixels: Pixels) -> Image.Image:
    """The picture in grey, its shorter side SEARCH_SIDE."""
    height, width = pixels.shape[:2]
    scale = SEARCH_SIDE / min(height, width)
    size = (max(SEARCH_SIDE, round(width * scale)), max(SEARCH_SIDE, round(height * scale)))
    return Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX)


def _seen(pixels: Pixels, small: Image.Image, pose: str) -> list[Face]:
    mirrored = pose == "turned right"  # the profile cascade knows those that look to the left
    light = np.asarray(small)
    found, votes = _cascade(FRONTAL if pose == "frontal" else PROFILE).detectMultiScale2(
        np.ascontiguousarray(light[:, ::-1]) if mirrored else light,
        scaleFactor=STEP,
        minNeighbors=VOTES,
        minSize=(SMALLEST, SMALLEST),
    )
    height, width = pixels.shape[:2]
    scale = SEARCH_SIDE / min(height, width)
    faces = []
    for (x, y, side, _), count in zip(found, votes, strict=True):
        left = small.width - x - side if mirrored else x
        faces.append(Face(box=_box(left / scale, y / scale, side / scale, width, height), pose=pose, votes=int(count)))
    return faces


@cache
def _cascade(name: str) -> Any:
    import cv2.data  # takes a tenth of a second

    # OpenCV would start a thread for each core in each of the stage's processes, and find boxes in another order.
    cv2.setNumThreads(1)
    return cv2.CascadeClassifier(cv2.data.haarcascades + name)


def _box(left: float, top: float, side: float, width: int, height: int) -> Box:
    whole = min(round(side), width, height)
    return min(max(round(left), 0), width - whole), min(max(round(top), 0), height - whole), whole


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide, tall = (
        max(0, min(one[axis] + one[2], other[axis] + other[2]) - max(one[axis], other[axis])) for axis in (0, 1)
    )
    return wide * tall / (one[2] ** 2 + other[2] ** 2 - wide * tall)


def _in_order(faces: list[Face]) -> list[Face]:
    """Largest first, then by place."""
    return sorted(faces, key=lambda face: (-face.box[2], face.box))


def cut_face(pixels: Pixels, box: Box) -> Pixels:
    """The face in `box` with a margin, as (FACE_SIDE,FACE_SIDE,3); of equal boxes the cuts lie pixel on pixel."""
    left, top, side = box
    room = round(side * MARGIN)
    height, width = pixels.shape[:2]
    area = (max(left - room, 0), max(top - room, 0), min(left + side + room, width), min(top + side + room, height))
    return np.asarray(Image.fromarray(pixels).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.LANCZOS, box=area))


def gradients(faces: Pixels, blur: float) -> Vectors:
    """(N,F,F,3) -> (N,C): histograms of the directions of edges in cells of 8 pixels, of unit length.

    `blur` is in pixels.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.feature import hog

    found = np.empty((len(faces), 0), np.float32)
    rows = []
    for face in faces:
        light = gaussian_filter(np.asarray(Image.fromarray(face).convert("L"), np.float64), blur)
        rows.append(hog(light, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)))
    return _unit(np.array(rows, np.float32)) if rows else found


def onnx_embedding(path: str, sha256: str) -> Embedding:
    """The embedding of an ONNX file; a UserError unless it is there, is the pinned one and takes faces."""
    import onnxruntime

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"face embedding: cannot read {path} ({error.strerror}): put the file there") from None
    if sha256_bytes(data) != sha256:
        found = sha256_bytes(data)
        raise UserError(f"face embedding: {path} has sha256 {found}, expected {sha256}: restore it or change the pin")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 each of its errors is a class of its own, without a common base
        raise UserError(f"face embedding: {path} cannot be loaded ({str(error).splitlines()[0]})") from None
    taken, given = session.get_inputs(), session.get_outputs()
    shape = taken[0].shape
    if len(taken) != 1 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not isinstance(shape[2], int):
        raise UserError(f"face embedding: {path} takes {[one.shape for one in taken]}, not one of (N,3,S,S)")

    def embed(faces: Pixels) -> Vectors:
        rows = []
        for face in faces:  # one by one: the file may have a fixed batch of 1
            sized = np.asarray(Image.fromarray(face).resize((shape[2], shape[2]), Image.Resampling.BICUBIC))
            values = sized.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
            rows.append(np.ravel(session.run([given[0].name], {taken[0].name: values})[0]))
        return _unit(np.array(rows, np.float32))

    return embed


def load_embedding(settings: Gradients | OnnxEmbedding) -> Embedding:
    """What turns faces into vectors, by the block of params.yaml that names it."""
    if isinstance(settings, OnnxEmbedding):
        return onnx_embedding(settings.path, settings.sha256)
    return partial(gradients, blur=settings.blur)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), np.float32)
