"""The photographs behind a student's pairs, read again for tasks/splits.py: hashes, faces and a thumbnail of each.

Reads data/inputs. Nothing is taken over from what ingest measured but which clip and group an input is said to be of.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import UserError
from tasks.faces import cut_face, find_faces
from tasks.ingest import INPUTS
from tasks.pictures import Pixels, perceptual_hashes, read_input, scale_down
from tasks.records import Input, SplitName, Verdict, read_records

FRAME = re.compile(r"(.+)#\d+\.\d+")
THUMBNAIL = 96  # pixels of the longer side: what cut-outs are looked for in
FACES_OF_A_CLIP = 5  # frames, evenly over it, in which faces are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """An input that a kept pair of this side was cut from."""

    input: Input
    side: SplitName
    thumbnail: Pixels
    hashes: tuple[int, int]
    faces: Pixels  # (N,F,F,3)

    @property
    def told(self) -> str:
        """Which it is, in words."""
        return f"{self.input.origin} ({self.side})"


def read_photos(kept: Sequence[Verdict], with_faces: bool) -> list[Photo]:
    """The inputs of the kept pairs once a side, read again and measured; those the teacher drew have none."""
    inputs = {one.digest: one for one in read_records(INPUTS / "inputs.jsonl", Input)}
    used = {(one.input, one.split) for one in kept if one.input}
    unknown = [digest for digest, _ in used if digest not in inputs]
    if unknown:
        raise UserError(f"splits: pairs of {len(unknown)} inputs that {INPUTS} does not hold: run dvc repro")
    photos = sorted(((inputs[digest], side) for digest, side in used), key=lambda one: (one[0].origin, one[1]))
    searched = _searched([one for one, _ in photos]) if with_faces else set()
    return [_measured(one, side, one.digest in searched) for one, side in photos]


def _searched(inputs: Sequence[Input]) -> set[str]:
    """The digests of the inputs in which faces are looked for: photos, and some frames of each clip."""
    of_clip: dict[str, list[str]] = {}
    for one in inputs:
        of_clip.setdefault(clip_of(one) or one.digest, []).append(one.digest)
    return {
        digests[round(place)]
        for digests in of_clip.values()
        for place in np.linspace(0, len(digests) - 1, min(len(digests), FACES_OF_A_CLIP))
    }


def _measured(one: Input, side: SplitName, with_faces: bool) -> Photo:
    pixels = read_input(INPUTS / "images", one.digest)
    faces = [cut_face(pixels, box) for box in find_faces(pixels)] if with_faces else []
    return Photo(
        input=one,
        side=side,
        thumbnail=scale_down(pixels, THUMBNAIL),
        hashes=perceptual_hashes(pixels),
        faces=np.stack(faces) if faces else np.empty((0, 0, 0, 3), np.uint8),
    )


def clip_of(one: Input) -> str:
    """The video a frame is of, by its origin or else by its record; "" for a photo."""
    named = FRAME.fullmatch(one.origin)
    return named[1] if named else one.clip
