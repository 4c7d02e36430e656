"""The block `gate` of a student in params.yaml."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.schema import Fraction, Positive, PositiveFloat, Section, Weight
from tasks.target import LOCAL, check_target


class TargetLimits(Section):
    """What a student of any task must reach on its target, and against the champion's file."""

    target: Annotated[str, AfterValidator(check_target)] = LOCAL  # where max_p90_ms is to hold; of benchmark.targets
    max_p90_ms: PositiveFloat  # of the int8 LiteRT file on one thread; in a browser of the float32 ONNX file
    max_bundle_mib: PositiveFloat
    max_p90_over_champion: PositiveFloat  # ratio, both timed in turn in one run
    max_size_over_champion: PositiveFloat  # ratio of the int8 LiteRT files


class PictureLimits(Section):
    """What a student's pictures must reach."""

    # Quality, against the (new) teacher's pictures of the test inputs.
    min_explained_effect: Fraction
    min_explained_effect_low: Fraction  # the lower end of its 95 % bootstrap interval over photos
    min_above_colour_affine: Fraction  # explained effect beyond the best global colour map's
    min_worst_slice: Annotated[float, Field(ge=-1, le=1)]  # explained effect on the slice where it is least
    min_sharpness_ratio: Weight  # Laplacian energy over the teacher's
    max_sharpness_ratio: PositiveFloat
    min_chroma_ratio: Weight
    min_int8_psnr_db: PositiveFloat  # int8 against the same student's float output, mean over test images
    max_banding: PositiveFloat  # levels of 255: what int8 adds to smooth gradients and plain areas (models/banding.py)
    max_flicker: PositiveFloat  # levels of 255: what changes under camera motion beyond the motion itself
    # Ratio, the worst of the kinds that tasks/video.py makes from stills; not judged where the teacher was not asked.
    max_flicker_over_teacher: PositiveFloat
    # Share of the test inputs on which the detector has the effect fade; not judged where the stage is left out.
    max_detector_false_positives: Fraction
    max_dropped: Fraction  # of all the teacher's answers, dropped by curation for what they show
    # Of the test pictures (tasks/failures.py); not judged where there are too few pairs to say what is usual.
    max_copied_failures: Fraction  # on which the student repeats a failure of its teacher's
    max_invented_failures: Fraction  # on which it fails and its teacher does not
    min_test_samples: Positive
    # Quality against the champion, both on the same inputs; not judged where there is no champion.
    min_gain_over_champion: float  # explained effect of the new teacher: the lower end of the paired 95 % interval
    min_worst_slice_gain: float  # the least gain over all slices
    max_flicker_over_champion: PositiveFloat  # ratio
    max_structure_drop: Weight  # of the input's edges kept, champion minus candidate; asks no teacher


class Gate(TargetLimits, PictureLimits):  # the later base's keys come first
    """What a student must reach, and what it must reach against the champion; see tasks/gate.py."""
