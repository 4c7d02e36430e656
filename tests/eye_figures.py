"""Do eyes that are found tell covered faces from open ones? The figures of docs/decisions/0021-faces.md.

`python tests/eye_figures.py PHOTOS CLIPS [SHEET]` in the repository's root. Frontal faces that are found in the photos,
in two frames of each clip and in scikit-image's astronaut are covered here by drawings in the place where people have
such things, and the picture is looked at again as tasks/coverage.py does. SHEET: a PNG of what was drawn.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from tasks import videos
from tasks.coverage import SIZE
from tasks.face_figures import EYES, tone_angle
from tasks.faces import Box, count_eyes, find_faces
from tasks.pictures import Pixels, Unfit, decode_picture, scale_down
from tasks.sources import walk

SMALLEST = 48  # pixels of a face in a picture of SIZE
DARK, CLOTH, SKIN = (22, 20, 24), (190, 210, 215), (190, 140, 115)
Places = Callable[..., list[tuple[float, float]]]


def glasses(draw: ImageDraw.ImageDraw, at: Places) -> None:
    for left in (0.14, 0.53):
        draw.ellipse(at((left, 0.26), (left + 0.33, 0.52)), fill=DARK)
    draw.line(at((0.4, 0.34), (0.6, 0.34)), fill=DARK, width=3)


# Places are in sides of the face's box, x to the right and y down.
COVERS: dict[str, Callable[[ImageDraw.ImageDraw, Places], None]] = {
    "nothing": lambda draw, at: None,
    "dark glasses": glasses,
    "a hand over one eye": lambda draw, at: draw.rounded_rectangle(at((0.5, 0.1), (1.1, 0.6)), 9, fill=SKIN),
    "a hand over both": lambda draw, at: draw.rounded_rectangle(at((-0.05, 0.22), (1.05, 0.56)), 9, fill=SKIN),
    "a mask over nose and mouth": lambda draw, at: draw.polygon(
        at((0.1, 0.55), (0.5, 0.48), (0.9, 0.55), (0.85, 0.98), (0.15, 0.98)), fill=CLOTH
    ),
}


def pictures(photos: Path, clips: Path) -> Iterator[Pixels]:
    yield np.asarray(data.astronaut()[:350, 50:400])
    for path in sorted(clips.glob("*.mp4")):
        yield from [pixels for _, pixels in videos.sample_frames(path, 2.0, 30)][::15]
    for path in walk(photos):
        try:
            yield decode_picture(path.read_bytes())
        except Unfit:
            continue


def people(photos: Path, clips: Path) -> list[tuple[Pixels, Box]]:
    """Pictures as coverage looks at them, with the largest face of each."""
    found = []
    for whole in pictures(photos, clips):
        pixels = scale_down(whole, SIZE)
        boxes = [box for box in find_faces(pixels) if box[2] >= SMALLEST and not np.isnan(tone_angle(pixels, box))]
        if boxes:
            found.append((pixels, boxes[0]))
    return found


def covered(pixels: Pixels, box: Box, what: str) -> Pixels:
    left, top, side = box
    picture = Image.fromarray(pixels)
    COVERS[what](ImageDraw.Draw(picture), lambda *places: [(left + x * side, top + y * side) for x, y in places])
    return np.asarray(picture)


def near(found: list[Box], box: Box) -> list[Box]:
    return [one for one in found if abs(one[0] - box[0]) + abs(one[1] - box[1]) < box[2] / 2]


def main() -> None:
    faces = people(Path(sys.argv[1]), Path(sys.argv[2]))
    sheet = []
    print(
        f"{len(faces)} faces\n| covered by | still found | " + " | ".join(reversed(EYES)) + " |\n|---|---|---|---|---|"
    )
    for what in COVERS:
        changed = [(covered(pixels, box, what), box) for pixels, box in faces]
        again = [(pixels, near(find_faces(pixels), box)) for pixels, box in changed]
        seen = Counter(count_eyes(pixels, boxes[0]) for pixels, boxes in again if boxes)
        shares = " | ".join(f"{seen[eyes] / max(1, seen.total()):.0%}" for eyes in (2, 1, 0))
        print(f"| {what} | {seen.total() / len(faces):.0%} | {shares} |", flush=True)
        cuts = [
            Image.fromarray(pixels[y : y + side, x : x + side]).resize((96, 96)) for pixels, (x, y, side) in changed
        ]
        sheet.append(np.concatenate([np.asarray(cut) for cut in cuts], axis=1))
    if len(sys.argv) > 3:
        Image.fromarray(np.concatenate(sheet)).save(sys.argv[3])


if __name__ == "__main__":
    main()
