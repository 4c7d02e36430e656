"""What was measured of one bundle's int8 LiteRT file, the file a phone runs: names, digests and numbers, no pictures.

Written into report/quality.json by tasks/evaluate.py and into a file of its own by tasks/compare.py; judged by
tasks/gate.py. None stands for "not measured", and what was not measured is not known to be good.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from models.errors import UserError
from tasks.records import Record

# Halves of the test set that evidence must tell of, be it with no samples (tasks/slices.py makes them).
SLICES = ("dark", "bright", "plain", "detailed", "grey", "colourful")


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
class Evidence(Record):
    """Everything measured of one file on the test pairs, and of which file, on which pairs."""

    # Identity.
    pairs: str | None = None  # digest of the pairs whose test part was used
    teacher: str | None = None  # digest of the teacher whose pictures are the reference
    measured_sha256: str | None = None  # of the file that was measured
    shipped_sha256: str | None = None  # of the file in the bundle, as its manifest says
    timed_with: str | None = None  # sha256 of the file it was timed in turn with, in one run

    # Figures.
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
    p90_ms: float | None = None  # on one thread of `target`
    target: str = "local"  # of the benchmark's targets the one that the gate asks for
    target_note: str = ""  # of another than local: which file there, or why there is no p90
    p90_in_turn_ms: float | None = None  # on one thread here, with `timed_with`, where the target is not here
    file_bytes: float | None = None
    bundle_mib: float | None = None  # all model files
    test_samples: float | None = None

    photos: tuple[Photo, ...] = ()
    slices: tuple[Slice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; JSON has no NaN, and what is not finite was not measured."""
        return dict(_finite(asdict(self)))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The evidence a JSON object stands for; a UserError when its keys are not this version's."""
        try:
            nested = {
                "photos": tuple(Photo.from_json(one) for one in value["photos"]),
                "slices": tuple(Slice.from_json(one) for one in value["slices"]),
            }
            return cls(**value | nested)
        except (TypeError, KeyError) as error:
            raise UserError(f"the evidence does not fit this version ({error}): run dvc repro evaluate") from None


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
