"""What was measured of one bundle's int8 LiteRT file that makes pictures: names, digests and numbers, no pictures.

Written into report/quality.json by tasks/evaluate.py and into a file of its own by tasks/compare.py; judged by
tasks/gate.py. None stands for "not measured", and what was not measured is not known to be good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from models.errors import UserError
from tasks.file_evidence import FileEvidence, known
from tasks.intervals import LEAST_PHOTOS
from tasks.records import Record

# Halves of the test set that evidence must tell of, be it with no samples (tasks/slices.py makes them).
SLICES = ("dark", "bright", "plain", "detailed", "grey", "colourful")
SUMS_AGREE = 1e-3  # how far the photos' pooled effect may lie from the explained effect: rounding, no more
CHANGE_AGREES = 1e-3  # relative: how far the teacher changes the inputs is one number, but for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo(Record):
    """The test crops of one photo, or of one clip or cluster of near-duplicates; sums over its crops."""

    name: str  # Input.group
    count: int
    error: float  # sum of MSE(student, teacher)
    change: float  # sum of MSE(input, teacher)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(Record):
    """The test crops that have something in common; sums over them."""

    name: str
    samples: int
    error: float
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(FileEvidence):
    """Everything measured of one file on the test pairs, and of which file, on which pairs."""

    kind: ClassVar[str] = "pictures"

    explained_effect: float | None = None  # 1 - MSE(student, teacher) / MSE(input, teacher)
    colour_affine_explained: float | None = None  # the same figure of the best global colour map
    sharpness_ratio: float | None = None  # Laplacian energy over the teacher's
    chroma_ratio: float | None = None  # over the teacher's
    int8_psnr_db: float | None = None  # int8 against float output, mean
    banding: float | None = None  # levels of 255 that int8 adds to smooth areas (models/banding.py)
    flicker: float | None = None  # levels of 255, root mean square (models/stability.py)
    flicker_over_teacher: float | None = None  # ratio of the worst kind (tasks/video.py)
    without_teacher: str = ""  # why there is no such ratio, where the teacher was not asked for video
    detector_false_positives: float | None = None  # share of the test inputs on which the effect fades
    detector_note: str = ""  # of how many inputs and photos that is, or why there is no detector
    without_detector: bool = False  # the stage is left out, so that nothing is to be judged
    dropped: float | None = None  # share of the teacher's answers that curation dropped for what they show
    copied_failures: float | None = None  # share of the test pictures on which it repeats its teacher's failure
    invented_failures: float | None = None  # and on which it fails where its teacher does not (tasks/failures.py)
    failures_note: str = ""  # of how many pictures
    without_failures: str = ""  # why nothing could be judged
    structure_kept: float | None = None  # of the input's edges; 1 all, 0 none (models/stability.py)

    photos: tuple[Photo, ...] = ()
    slices: tuple[Slice, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The evidence a JSON object stands for; a UserError when its keys are not this version's."""
        try:
            nested = {
                "photos": tuple(Photo.from_json(one) for one in value["photos"]),
                "slices": tuple(Slice.from_json(one) for one in value["slices"]),
            }
            return cls(**{key: inner for key, inner in value.items() if key != "kind"} | nested)
        except (TypeError, KeyError) as error:
            raise UserError(f"the evidence does not fit this version ({error}): run dvc repro evaluate") from None

    def unlike(self, champion: Self) -> str:
        """Why the two were not measured on the same photos; "" where they were."""
        for who, evidence in (("candidate", self), ("champion", champion)):
            told = photos_of(evidence)
            if isinstance(told, str):
                return f"the evidence of the {who} {told}"
        mine, its = ({photo.name: photo.change for photo in one.photos} for one in (self, champion))
        if mine.keys() != its.keys() or not all(_near(mine[name], its[name]) for name in mine):
            return "candidate and champion were measured on different photos"
        return ""


def photos_of(evidence: Evidence) -> Sequence[Photo] | str:
    """The photos, by name, if they are those of the figures beside them; else why they cannot be used."""
    photos = sorted(evidence.photos, key=lambda photo: photo.name)
    if len({photo.name for photo in photos}) < max(LEAST_PHOTOS, len(photos)):
        return f"needs at least {LEAST_PHOTOS} photos, each told once, and has {len(photos)}"
    if not all(known(number) for photo in photos for number in (photo.count, photo.error, photo.change)):
        return "has a photo whose sums are not finite numbers"
    change = sum(photo.change for photo in photos)
    if sum(photo.count for photo in photos) != evidence.test_samples or not change > 0:
        return "has photos that do not make up the test samples"
    pooled = 1 - sum(photo.error for photo in photos) / change
    if not known(evidence.explained_effect) or not abs(pooled - evidence.explained_effect) <= SUMS_AGREE:
        return "has photos that do not add up to the explained effect"
    return photos


def _near(a: float, b: float) -> bool:
    return known(a) and known(b) and abs(a - b) <= CHANGE_AGREES * max(abs(a), abs(b))
