"""The gate's rules about pictures: of each key of a student's `gate:` block what it looks at, against which reference.

Pure functions from evidence to one number; tasks/gate.py compares it with the limit. A function that cannot know
its number says why not. The champion was taught by the old teacher, so how near each is to its own teacher compares
nothing across an upgrade: candidate and champion are compared on the new teacher's pictures, and on the inputs.
"""

from collections.abc import Callable

from tasks.evidence import SLICES, Evidence, Photo, Slice, photos_of
from tasks.file_evidence import known
from tasks.intervals import explained_interval, gain_interval
from tasks.measure import TARGET_RULES, Found, Measure, figure, ratio

LEAST_SLICE_SAMPLES = 3  # a smaller slice is not judged as worst: its figure is chance
FLICKER_FLOOR = 1.0  # a ratio to the champion below it is of two figures that nobody can tell apart

TEACHER = "the teacher's pictures"
TEACHER_VIDEO = "the teacher on the same frames"
INPUTS = "the inputs themselves"
USUAL = "the test inputs as they are"
LIMITS = "the limits of curation"
UNJUDGED = "too little is known of what the teacher usually does"
USUAL_ANSWERS = "what the teacher usually makes of such inputs"
CHAMPION_TEACHER = "the champion, on the teacher's pictures"
CHAMPION_INPUTS = "the champion, on the inputs themselves"


def above_colour_affine(evidence: Evidence) -> Found:
    """Explained effect beyond what recolouring alone reaches."""
    own, affine = evidence.explained_effect, evidence.colour_affine_explained
    if not known(own):
        return Found(own)
    return Found(own - affine if known(affine) else affine)


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
        words="flicker over the teacher's own, the worst kind",
        against=TEACHER_VIDEO,
        own=flicker_over_teacher,
        unless="the teacher was not asked for video",
    ),
    "max_detector_false_positives": Measure(
        words="false alarms of the detector",
        against=USUAL,
        own=detector_false_positives,
        unless="the stage detector is left out",
    ),
    "max_dropped": Measure(
        words="share of the teacher's answers that curation dropped", against=LIMITS, own=figure("dropped")
    ),
    "max_copied_failures": Measure(
        words="share of pictures with a failure of the teacher's copied",
        against=USUAL_ANSWERS,
        own=failures("copied_failures"),
        unless=UNJUDGED,
    ),
    "max_invented_failures": Measure(
        words="share of pictures with a failure of its own",
        against=USUAL_ANSWERS,
        own=failures("invented_failures"),
        unless=UNJUDGED,
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
    **TARGET_RULES,
}
