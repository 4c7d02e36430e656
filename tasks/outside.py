"""Which of your pictures a student's detector takes for unusual, and what an app would do in your videos.

Reads data/students/NAME/detector and a folder of photos and videos. Of every photo it prints the score and the share of
the effect; of every video the least share, and for how long the effect is gone, as models/fade.py makes it of ten
frames a second. The furthest outside come first. Writes nothing.

Command: python -m tasks.outside --student NAME --folder PHOTOS
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.fade import FADES_AT, Fade, weight
from tasks.detector import scorer
from tasks.features import centre_square
from tasks.files import check_sha256
from tasks.pictures import SUFFIXES, Pixels, Unfit, decode_picture
from tasks.records import read_detector
from tasks.sources import walk
from tasks.stage import STUDENTS, guarded
from tasks.videos import SUFFIXES as VIDEO_SUFFIXES
from tasks.videos import sample_frames

FRAMES_PER_SECOND = 10.0

Score = Callable[[Pixels], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A photo or video and what was found."""

    score: float  # of a video the median frame's
    share: float  # of the effect; of a video the least
    words: str


def outside(name: str, folder: Path) -> list[Told]:
    """What is told of every photo and video below a folder, the furthest outside first.

    Raises a UserError where there is no detector, no such folder, or nothing in it.
    """
    record = read_detector(STUDENTS / name / "detector")
    if record["without"]:
        raise UserError(f"{name} has no detector: {record['without']}")
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}: name one with photos or videos")
    score = open_score(STUDENTS / name / "detector", record)
    found = list(_each(folder, score, record["passes_at"]))
    if not found:
        raise UserError(f"{folder} holds no photo or video that can be read")
    return sorted(found, key=lambda one: -one.score)


def open_score(folder: Path, record: Mapping[str, Any]) -> Score:
    """The detector of a folder as a function of a picture (H,W,3) uint8, whose middle it looks at.

    `record` is its detector.json, which has a detector. UserError for a file that is not the one it names.
    """
    file = record["files"][0]
    check_sha256(folder / file["file"], file["sha256"], "detector")
    model = scorer(folder / file["file"], file["runtime"])
    return lambda pixels: float(model(centre_square(pixels, record["size"])[None])[0])


def _each(folder: Path, score: Score, passes_at: float) -> Iterator[Told]:
    for path in walk(folder):
        shown = path.relative_to(folder).as_posix()
        try:
            if path.suffix.lower() in SUFFIXES:
                found = score(decode_picture(path.read_bytes()))
                yield Told(score=found, share=weight(found, passes_at), words=shown)
            elif path.suffix.lower() in VIDEO_SUFFIXES:
                yield of_video(path, shown, score, passes_at)
        except Unfit as error:
            print(f"outside: {shown} is left out: {error}", file=sys.stderr)


def of_video(path: Path, shown: str, score: Score, passes_at: float) -> Told:
    """A video's frames one after the other, as an app sees them."""
    fade, scores, shares = Fade(passes_at), list[float](), list[float]()
    before = gone = 0.0
    for time, pixels in sample_frames(path, FRAMES_PER_SECOND, sys.maxsize):
        gone += time - before if shares and shares[-1] == 0 else 0.0
        scores.append(score(pixels))
        shares.append(fade(scores[-1], time - before))
        before = time
    words = f"{shown} ({len(shares)} frames; the effect is gone for {gone:.1f} s)"
    return Told(score=sorted(scores)[len(scores) // 2], share=min(shares), words=words)


def tell(found: list[Told]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"{'score':>7}  {'share of the effect':>19}"]
    lines += [f"{one.score:7.2f}  {one.share:19.0%}  {one.words}" for one in found]
    fades = sum(one.share < 1 for one in found)
    return [*lines, f"the effect fades on {fades} of {len(found)}; scores above {FADES_AT:g} are unusual"]


def main() -> None:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tasks.outside")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, made")
    parser.add_argument("--folder", type=Path, required=True, help="photos and videos")
    asked: Any = parser.parse_args()
    guarded("outside", lambda: print("\n".join(tell(outside(asked.student, asked.folder)))), asked.student)


if __name__ == "__main__":
    main()
