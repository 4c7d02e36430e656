"""How often the split check errs: the figures of docs/decisions/0020-coverage.md.

`python tests/split_figures.py PHOTOS CLIPS` in the repository's root. Photos in a folder have nothing to do with one
another, so each fit between them is chance; cut-outs of them are made here. Of the clips each shows one person.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from tasks import cutouts, videos
from tasks.faces import FACE_SIDE, cut_face, find_faces, load_embedding
from tasks.params import load_params
from tasks.pictures import Pixels, Unfit, decode_picture, near, perceptual_hashes, scale_down
from tasks.sources import walk

LIMITS = (0.9, 0.92, 0.93, 0.95)
KEPT = (0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.62)  # of both sides
EACH, NEAREST, HASH_BITS = 60, 2, 10
RNG = np.random.default_rng(0)


def photos(folder: Path) -> list[Pixels]:
    found = []
    for path in walk(folder):
        try:
            found.append(scale_down(decode_picture(path.read_bytes()), 640))
        except Unfit:
            continue
    return found


def mirrored(pictures: list[Pixels]) -> list[Pixels]:
    return [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]


def cut(picture: Pixels, kept: float) -> Pixels:
    height, width = (round(side * kept) for side in picture.shape[:2])
    top, left = (
        round((side - part) * RNG.random()) for side, part in zip(picture.shape[:2], (height, width), strict=True)
    )
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def quantiles(values: np.ndarray) -> str:
    return ", ".join(f"{value:.3f}" for value in np.quantile(values, [0.5, 0.95, 0.99, 1]))


def of_photos(pictures: list[Pixels]) -> None:
    order = RNG.permutation(len(pictures))
    held, rest = ([pictures[row] for row in rows] for rows in np.split(order, [len(order) // 6]))
    thumbnails, others = ([scale_down(one, 96) for one in some] for some in (held, rest))
    vectors = cutouts.vectors_of(others)

    def proposed(some: list[Pixels]) -> list[list[int]]:
        return cutouts.likest(cutouts.vectors_of(some), cutouts.vectors_of(mirrored(some)), vectors, NEAREST)

    chance = np.array(
        [
            cutouts.fit(one, others[row])
            for one, rows in zip(thumbnails, proposed(thumbnails), strict=True)
            for row in rows
        ]
    )
    told = ", ".join(f"{(chance >= limit).sum()} from {limit}" for limit in LIMITS)
    print(f"{len(chance)} fits by chance: median, 95 %, 99 %, highest {quantiles(chance)}; {told}")
    print("| kept of both sides | by hash | proposed | found from " + " | ".join(map(str, LIMITS)) + " |")
    print("|---|" + "---|" * (2 + len(LIMITS)))
    for kept in KEPT:
        rows = RNG.permutation(len(rest))[:EACH]
        cuts = [cut(rest[row], kept) for row in rows]
        hashed = [
            near(np.array(perceptual_hashes(rest[row]), np.uint64), perceptual_hashes(one)[0], HASH_BITS).size > 0
            for row, one in zip(rows, cuts, strict=True)
        ]
        small = [scale_down(one, 96) for one in cuts]
        there = np.array([row in found for row, found in zip(rows, proposed(small), strict=True)])
        fits = np.array([cutouts.fit(others[row], one) for row, one in zip(rows, small, strict=True)])
        shares = [f"{(there & (fits >= limit)).mean():.2f}" for limit in LIMITS]
        print(f"| {kept} | {np.mean(hashed):.2f} | {there.mean():.2f} | " + " | ".join(shares) + " |", flush=True)


def of_faces(clips: Path) -> None:
    people, vectors_of = {}, load_embedding(load_params().splits.faces)
    for path in sorted(clips.glob("*.mp4")):
        frames = [scale_down(pixels, 640) for _, pixels in videos.sample_frames(path, 2.0, 30)]
        faces = [cut_face(frame, find_faces(frame)[0]) for frame in frames if find_faces(frame)]
        people[path.stem] = vectors_of(np.stack(faces))
    for name, faces in people.items():
        alike = (faces @ faces.T)[np.triu_indices(len(faces), 1)]
        half = len(faces) // 2
        highest = float((faces[:half] @ faces[half:].T).max())
        print(f"{name}: frames of one clip: {quantiles(alike)}; the most alike of its two halves {highest:.3f}")
        for other in (one for one in people if one > name):
            print(f"{name} and {other}: {quantiles((faces @ people[other].T).ravel())}")
    small = (data.lfw_subset()[:100] * 255).astype(np.uint8)
    strangers = [np.asarray(Image.fromarray(one).convert("RGB").resize((FACE_SIDE, FACE_SIDE))) for one in small]
    vectors = vectors_of(np.stack(strangers))
    print(f"100 strangers of 25 pixels: {quantiles((vectors @ vectors.T)[np.triu_indices(100, 1)])}")


def main() -> None:
    of_photos(photos(Path(sys.argv[1])))
    of_faces(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
