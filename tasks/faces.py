"""Faces in pictures, and how alike two of them look, without a download.

Faces are found by the cascade of local binary patterns that scikit-image carries (Viola & Jones 2001; Liao et al.
2007): upright, frontal ones that take a quarter of the picture's width or more. It sees a face now and then where
there is none (a teddy bear), and overlooks those in profile, so "no face" means none of that kind.

What says who it is can be chosen: `gradients` needs nothing; `onnx` is a file of yours, such as an ArcFace model.
"""

from collections.abc import Callable
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

SEARCH_SIDE = 128  # pixels at which faces are looked for: about 9 ms a picture
SMALLEST = 32  # of them; a quarter
STEP = 1.15  # between the sizes that are looked for
FACE_SIDE = 64  # pixels of a face that is cut out
MARGIN = 0.1  # of the box's side, added on each side where the picture goes on: hair and chin


def find_faces(pixels: Pixels) -> list[Box]:
    """The faces in a picture (H,W,3), largest first, then by place; empty where none is found."""
    height, width = pixels.shape[:2]
    scale = SEARCH_SIDE / min(height, width)
    size = (max(SEARCH_SIDE, round(width * scale)), max(SEARCH_SIDE, round(height * scale)))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    found = _cascade().detect_multi_scale(
        small,
        scale_factor=STEP,
        step_ratio=1,
        min_size=(SMALLEST, SMALLEST),
        max_size=(min(size), min(size)),
    )
    boxes = [_box(one, scale, width, height) for one in found]
    return sorted(boxes, key=lambda box: (-box[2], box))


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())  # type: ignore[no-untyped-call]


def _box(found: dict[str, int], scale: float, width: int, height: int) -> Box:
    side = min(round(found["width"] / scale), width, height)
    left, top = round(found["c"] / scale), round(found["r"] / scale)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


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
