"""The gate's rules: of each key of a student's `gate:` block what it looks at, against which reference.

Pure functions from evidence to one number; tasks/gate.py compares it with the limit. A function that cannot know
its number says why not. The champion was taught by the old teacher, so how near each is to its own teacher compares
nothing across an upgrade: candidate and champion are compared on the new teacher's pictures, and on the inputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from tasks.evidence import SLICES, Evidence, Photo, Slice
from tasks.intervals import LEAST_PHOTOS, explained_interval, gain_interval
from tasks.target import LOCAL

Blessing = Literal["quality", "target"]  # TFX's two: the pictures are good; it runs where it shall

LEAST_SLICE_SAMPLES = 3  # a smaller slice is not judged as worst: its figure is chance
SUMS_AGREE = 1e-3  # how far the photos' pooled effect may lie from the explained effect: rounding, no more
# A ratio to the champion below these is of two figures that nobody can tell apart.
FLICKER_FLOOR, P90_FLOOR_MS, BYTES_FLOOR = 1.0, 0.1, 1.0

TEACHER = "the teacher's pictures"
TEACHER_VIDEO = "the teacher on the same frames"
INPUTS = "the inputs themselves"
USUAL = "the test inputs as they are"
LIMITS = "the limits of curation"
USUAL_ANSWERS = "what the teacher usually makes of such inputs"
TARGET = "the target"
CHAMPION_TEACHER = "the champion, on the teacher's pictures"
CHAMPION_INPUTS = "the champion, on the inputs themselves"
CHAMPION_TARGET = "the champion, timed in turn on the target"
CHAMPION_FILE = "the champion's file"


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found; without a value the note says why, with one it says of what."""

    value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a rule looks at, in which words, against what; one of `own` and `versus`."""

    words: str
    against: str
    unit: str = ""
    blessing: Blessing = "quality"
    own: Callable[[Evidence], Found | None] | None = None
    versus: Callable[[Evidence, Evidence], Found] | None = None  # candidate and champion

    def find(self, candidate: Evidence, champion: Evidence | None) -> Found | None:
        """The number, or None for a rule about a champion, or the teacher's video, where there is none."""
        if self.own:
            return self.own(candidate)
        return self.versus(candidate, champion) if self.versus and champion is not None else None


def known(value: object) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(name: str) -> Callable[[Evidence], Found]:
    """A field as it is."""
    return lambda evidence: Found(getattr(evidence, name))


def ratio(name: str, floor: float) -> Callable[[Evidence, Evidence], Found]:
    """The candidate's field over the champion's, both raised to `floor`."""

    def find(candidate: Evidence, champion: Evidence) -> Found:
        mine, its = getattr(candidate, name), getattr(champion, name)
        if not known(mine):
            return Found(mine)
        if not known(its):
            return Found(None, "was not measured of the champion")
        return Found(max(mine, floor) / max(its, floor))

    return find


def above_colour_affine(evidence: Evidence) -> Found:
    """Explained effect beyond what recolouring alone reaches."""
    own, affine = evidence.explained_effect, evidence.colour_affine_explained
    if not known(own):
        return Found(own)
    return Found(own - affine if known(affine) else affine)


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


def explained_low(evidence: Evidence) -> Found:
    """Lower end of the explained effect's 95 % interval over photos."""
    photos = photos_of(evidence)
    if isinstance(photos, str):
        return Found(None, photos)
    interval = explained_interval([photo.error for photo in photos], [photo.change for photo in photos])
    return Found(interval.low if interval else None, f"over {len(photos)} photos")


def gain_low(candidate: Evidence, champion: Evidence) -> Found:
    """Lower end of the paired 95 % interval of explained effect, candidate minus champion."""
    mine, its = photos_of(candidate), photos_of(champion)
    if isinstance(mine, str):
        return Found(None, mine)
    if isinstance(its, str):
        return Found(None, f"of the champion {its}")
    if [(photo.name, photo.count) for photo in mine] != [(photo.name, photo.count) for photo in its]:
        return Found(None, "needs the same photos of both")
    error, other = [photo.error for photo in mine], [photo.error for photo in its]
    interval = gain_interval(error, other, [photo.change for photo in mine])
    return Found(interval.low if interval else None, f"over {len(mine)} photos")


def of_photo(photo: Photo) -> Slice:
    """The slice that is one photo."""
    return Slice(name=f"photo {photo.name:.12}", samples=photo.count, error=photo.error, change=photo.change)


def slices_of(evidence: Evidence) -> dict[str, Slice] | str:
    """The slices that are judged, photos included, by name; or why there are none."""
    missing = sorted(set(SLICES) - {one.name for one in evidence.slices})
    if missing:
        return f"lacks the slice {missing[0]}"
    photos = photos_of(evidence)
    if isinstance(photos, str):
        return photos
    told = [*evidence.slices, *(of_photo(photo) for photo in photos)]
    if not all(known(number) for one in told for number in (one.samples, one.error, one.change)):
        return "has a slice whose sums are not finite numbers"
    judged = {one.name: one for one in told if one.samples >= LEAST_SLICE_SAMPLES}
    if not judged:
        return f"has no slice of {LEAST_SLICE_SAMPLES} samples"
    return judged if all(one.change > 0 for one in judged.values()) else "has a slice that the teacher did not change"


def worst_slice(evidence: Evidence) -> Found:
    """The least explained effect of all slices."""
    slices = slices_of(evidence)
    if isinstance(slices, str):
        return Found(None, slices)
    explained = {name: 1 - one.error / one.change for name, one in slices.items()}
    name = min(explained, key=lambda name: explained[name])
    return Found(explained[name], name)


def worst_slice_gain(candidate: Evidence, champion: Evidence) -> Found:
    """The least gain of all slices: explained effect, candidate minus champion."""
    mine, its = slices_of(candidate), slices_of(champion)
    if isinstance(mine, str):
        return Found(None, mine)
    if isinstance(its, str):
        return Found(None, f"of the champion {its}")
    if {name: one.samples for name, one in mine.items()} != {name: one.samples for name, one in its.items()}:
        return Found(None, "needs the same slices of both")
    gains = {name: (its[name].error - one.error) / one.change for name, one in mine.items()}
    name = min(gains, key=lambda name: gains[name])
    return Found(gains[name], name)


def structure_drop(candidate: Evidence, champion: Evidence) -> Found:
    """How much less of the inputs' edges the candidate keeps than the champion does."""
    if not known(candidate.structure_kept):
        return Found(candidate.structure_kept)
    if not known(champion.structure_kept):
        return Found(None, "was not measured of the champion")
    return Found(champion.structure_kept - candidate.structure_kept)


def flicker_over_teacher(evidence: Evidence) -> Found | None:
    """Flicker over the teacher's own; None where the stage says that the teacher was not asked."""
    if evidence.without_teacher and evidence.flicker_over_teacher is None:
        return None
    return Found(evidence.flicker_over_teacher)


def detector_false_positives(evidence: Evidence) -> Found | None:
    """Share of ordinary pictures on which the detector has the effect fade; None where the stage is left out."""
    if evidence.without_detector and evidence.detector_false_positives is None:
        return None
    return Found(evidence.detector_false_positives, evidence.detector_note)


def failures(name: str) -> Callable[[Evidence], Found | None]:
    """A share of the test pictures that fail; None where nothing could be judged, and the evidence says why."""

    def find(evidence: Evidence) -> Found | None:
        found = getattr(evidence, name)
        return None if evidence.without_failures and found is None else Found(found, evidence.failures_note)

    return find


def p90_on_target(evidence: Evidence) -> Found:
    """p90 on the target the gate asks for; where it is missing there, why."""
    return Found(evidence.p90_ms, evidence.target_note)


def p90_over_champion(candidate: Evidence, champion: Evidence) -> Found:
    """p90 over the champion's, if both are of one run that timed them in turn, on this machine."""
    pair = (candidate.measured_sha256, champion.measured_sha256)
    if None in pair or (champion.timed_with, candidate.timed_with) != pair:
        return Found(None, "was not measured in turn with the champion's")
    return ratio("p90_ms", P90_FLOOR_MS)(*(in_turn(evidence) for evidence in (candidate, champion)))


def in_turn(evidence: Evidence) -> Evidence:
    """The evidence with the p90 that was taken in turn, where that is not the target's."""
    return evidence if evidence.target == LOCAL else replace(evidence, p90_ms=evidence.p90_in_turn_ms)


# A key that begins with min_ is the least allowed value, one that begins with max_ the greatest; in Gate's order.
RULES: dict[str, Measure] = {
    "min_explained_effect": Measure(words="explained effect", against=TEACHER, own=figure("explained_effect")),
    "min_explained_effect_low": Measure(
        words="lower end of the explained effect's interval", against=TEACHER, own=explained_low
    ),
    "min_above_colour_affine": Measure(
        words="explained effect beyond the best colour map's", against=TEACHER, own=above_colour_affine
    ),
    "min_worst_slice": Measure(words="explained effect on the worst slice", against=TEACHER, own=worst_slice),
    "min_sharpness_ratio": Measure(
        words="sharpness against the teacher", against=TEACHER, own=figure("sharpness_ratio")
    ),
    "max_sharpness_ratio": Measure(
        words="sharpness against the teacher", against=TEACHER, own=figure("sharpness_ratio")
    ),
    "min_chroma_ratio": Measure(words="chroma against the teacher", against=TEACHER, own=figure("chroma_ratio")),
    "min_int8_psnr_db": Measure(
        words="fidelity of int8 to float", unit=" dB", against="its own float file", own=figure("int8_psnr_db")
    ),
    "max_banding": Measure(
        words="bands that int8 adds to smooth areas",
        unit=" levels",
        against="its own float file",
        own=figure("banding"),
    ),
    "max_flicker": Measure(words="flicker under camera motion", unit=" levels", against=INPUTS, own=figure("flicker")),
    "max_flicker_over_teacher": Measure(
        words="flicker over the teacher's own, the worst kind", against=TEACHER_VIDEO, own=flicker_over_teacher
    ),
    "max_detector_false_positives": Measure(
        words="false alarms of the detector", against=USUAL, own=detector_false_positives
    ),
    "max_dropped": Measure(
        words="share of the teacher's answers that curation dropped", against=LIMITS, own=figure("dropped")
    ),
    "max_copied_failures": Measure(
        words="share of pictures with a failure of the teacher's copied",
        against=USUAL_ANSWERS,
        own=failures("copied_failures"),
    ),
    "max_invented_failures": Measure(
        words="share of pictures with a failure of its own", against=USUAL_ANSWERS, own=failures("invented_failures")
    ),
    "min_test_samples": Measure(words="number of test pairs", against=TEACHER, own=figure("test_samples")),
    "min_gain_over_champion": Measure(
        words="lower end of the gain in explained effect's interval", against=CHAMPION_TEACHER, versus=gain_low
    ),
    "min_worst_slice_gain": Measure(
        words="gain in explained effect on the worst slice", against=CHAMPION_TEACHER, versus=worst_slice_gain
    ),
    "max_flicker_over_champion": Measure(
        words="flicker over the champion's", against=CHAMPION_INPUTS, versus=ratio("flicker", FLICKER_FLOOR)
    ),
    "max_structure_drop": Measure(words="loss of the inputs' edges", against=CHAMPION_INPUTS, versus=structure_drop),
    "max_p90_ms": Measure(
        words="p90 latency of int8 on one thread", unit=" ms", against=TARGET, blessing="target", own=p90_on_target
    ),
    "max_bundle_mib": Measure(
        words="size of the model files", unit=" MiB", against=TARGET, blessing="target", own=figure("bundle_mib")
    ),
    "max_p90_over_champion": Measure(
        words="p90 latency over the champion's", against=CHAMPION_TARGET, blessing="target", versus=p90_over_champion
    ),
    "max_size_over_champion": Measure(
        words="size of the int8 file over the champion's",
        against=CHAMPION_FILE,
        blessing="target",
        versus=ratio("file_bytes", BYTES_FLOOR),
    ),
}
