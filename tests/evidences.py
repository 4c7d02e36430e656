"""Evidence as evaluate and compare give it, made up: of a good student, and of the champion it is compared with."""

import dataclasses
from typing import Any

from tasks.evidence import SLICES, Evidence, Photo, Slice

PHOTOS = ("a", "b", "c", "d")
CROPS = 10  # of each photo
CHANGE = 0.04  # the teacher's, of every crop
SAMPLES = CROPS * len(PHOTOS)
CANDIDATE_FILE, CHAMPION_FILE = "1" * 64, "2" * 64


def photos(*effects: float, change: float = CHANGE) -> tuple[Photo, ...]:
    """Photos with these explained effects."""
    return tuple(
        Photo(name=name, count=CROPS, error=CROPS * change * (1 - effect), change=CROPS * change)
        for name, effect in zip(PHOTOS, effects, strict=True)
    )


def slices(effect: float, **other: float) -> tuple[Slice, ...]:
    """Halves with this explained effect, or another by name."""
    half = SAMPLES // 2
    return tuple(
        Slice(name=name, samples=half, error=half * CHANGE * (1 - other.get(name, effect)), change=half * CHANGE)
        for name in SLICES
    )


def good(**changed: Any) -> Evidence:
    """A student that passes sensible limits, timed in turn with `champion()`."""
    evidence = Evidence(
        pairs="a" * 64,
        teacher="b" * 64,
        measured_sha256=CANDIDATE_FILE,
        shipped_sha256=CANDIDATE_FILE,
        timed_with=CHAMPION_FILE,
        explained_effect=0.75,
        colour_affine_explained=0.25,
        sharpness_ratio=1.0,
        chroma_ratio=1.0,
        int8_psnr_db=42.0,
        banding=0.8,
        flicker=6.0,
        flicker_over_teacher=1.4,
        detector_false_positives=0.05,
        dropped=0.02,
        copied_failures=0.0,
        invented_failures=0.05,
        structure_kept=0.6,
        p90_ms=6.0,
        file_bytes=1_200_000.0,
        bundle_mib=8.0,
        test_samples=SAMPLES,
        photos=photos(0.74, 0.75, 0.75, 0.76),
        slices=slices(0.75),
    )
    return dataclasses.replace(evidence, **changed)


def champion(**changed: Any) -> Evidence:
    """The champion that `good()` beats."""
    evidence = good(
        measured_sha256=CHAMPION_FILE,
        shipped_sha256=CHAMPION_FILE,
        timed_with=CANDIDATE_FILE,
        explained_effect=0.65,
        photos=photos(0.64, 0.65, 0.65, 0.66),
        slices=slices(0.65),
    )
    return dataclasses.replace(evidence, **changed)
