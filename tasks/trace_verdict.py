"""Whose fault a student's picture is, in words: figures of one picture and of what lies near it in the training pairs.

Four things can be wrong, and each has its own sign. The phone's file departs from the float student: quantisation. No
training input is like this one: under-represented. What the teacher did on the pairs it is nearest to is unusual, and
the student goes the same way here: teacher error copied. The student is worse on these pairs than elsewhere, though it
was taught on them: capacity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.fade import FADES_AT
from tasks.records import Record
from tasks.usual import MOST_COUNTED, in_words, same_way, unusual

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

QUANTISATION, UNDER, COPIED, CAPACITY = "quantisation", "under-represented", "teacher error copied", "capacity"
NOTHING = "nothing stands out"
FAR = 0.99  # share of the training pairs that lie nearer to a pair of another input
FOLLOWS = (
    3.0  # deviations in the way of the pairs near by that the picture goes at least: a student smooths what it copies
)
MOSTLY = 0.8  # share of what it makes of training inputs that goes less far
COPIED_SHARE = 0.3  # of the pairs near by that are unusual in the same way
OVER_BASE = 2.0  # times as many as there are anywhere
WORSE = 0.1  # of explained effect that the pairs near by have less than all


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign(Record):
    """One of the four, whether it is there, and the figures that say so."""

    kind: str
    found: bool
    told: str


def copied(deviations: Values, near: Rows, own: Values, everywhere: Values) -> tuple[Sign, Rows]:
    """Whether the student repeats what is unusual about the pairs `near`, and all rows that are unusual in this way.

    `deviations` (N,8) are all training pairs', `own` (8,) those of what the student made of the picture, `everywhere`
    (M,8) of what it makes of training inputs: it follows where it goes the pairs' way further than it mostly does.
    """
    odd = near[unusual(deviations[near])]
    if not len(odd):
        told = f"the teacher did nothing unusual on the {len(near)} training pairs nearest to it"
        return Sign(kind=COPIED, found=False, told=told), near[:0]
    way = np.median(np.clip(deviations[odd], -MOST_COUNTED, MOST_COUNTED), axis=0)
    alike = same_way(deviations, way)
    here, base = float(alike[near].mean()), float(alike.mean())
    unit = way / max(float(np.linalg.norm(way)), 1e-9)
    own_way, usual_way = float(own @ unit), everywhere @ unit
    follows = own_way > max(FOLLOWS, float(np.quantile(usual_way, MOSTLY)))
    found = follows and here >= max(COPIED_SHARE, min(OVER_BASE * base, 0.9))
    told = (
        f"{here:.0%} of the {len(near)} training pairs nearest to it are unusual in one way, {base:.0%} of all: "
        f"{in_words(way) or 'in several numbers'}; the picture goes {own_way:.0f} deviations that way, further than "
        f"{(usual_way < own_way).mean():.0%} of what the student makes of its training inputs"
    )
    return Sign(kind=COPIED, found=found, told=told), np.flatnonzero(alike) if found else near[:0]


def under_represented(distance: float, usual: Values, score: float | None = None, why_not: str = "") -> Sign:
    """Whether the nearest training input is far: its distance against those between training pairs of other inputs.

    Or whether the bundle's detector puts the picture outside: `score` is its, None where there is none, for `why_not`.
    """
    share = float((usual < distance).mean())
    told = (
        f"{share:.0%} of the training pairs have one of another input nearer than this picture's nearest is "
        f"(distance {distance:.2f}, the median is {np.median(usual):.2f})"
    )
    if score is None:
        told += f"; there is no detector: {why_not}"
    else:
        told += f"; the detector says {score:.2f}, and from {FADES_AT:g} on an app fades the effect"
    return Sign(kind=UNDER, found=share >= FAR or (score is not None and score >= FADES_AT), told=told)


def quantisation(psnr_db: float, least: float, file: str) -> Sign:
    """Whether the phone's file departs from the float student on this picture."""
    told = f"{file} lies {psnr_db:.1f} dB from the float student here; {least:g} dB is the least it may"
    return Sign(kind=QUANTISATION, found=psnr_db < least, told=told)


def capacity(near: float | None, overall: float) -> Sign:
    """Whether the student explains less of the effect on the pairs near by, which it was taught, than on all."""
    if near is None:
        return Sign(kind=CAPACITY, found=False, told="the teacher changed none of the training pairs near by")
    told = f"of the effect on the training pairs near by it explains {near:.3f}, of that on all {overall:.3f}"
    return Sign(kind=CAPACITY, found=near < overall - WORSE, told=told)


def verdict(signs: list[Sign]) -> str:
    """The kinds that were found, the one that explains most first; or that there is none."""
    return ", ".join(sign.kind for sign in signs if sign.found) or NOTHING


ADVICE: dict[str, str] = {
    QUANTISATION: "keep more layers in float (quantise.min_psnr_db, min_worst_psnr_db), or train to be rounded "
    "(quantise_aware)",
    UNDER: "collect inputs like it: put some into the sources, and run again",
    COPIED: "look at the pairs below; drop those that the teacher got wrong, or ask it again",
    CAPACITY: "train longer or take wider layers (train.steps, architecture), or weigh these inputs more",
    NOTHING: "the student does here what its teacher does on inputs like it; if that is not what you want, change the "
    "teacher",
}


def advice(signs: list[Sign]) -> list[str]:
    """What to do, a line each sign that was found."""
    return [ADVICE[sign.kind] for sign in signs if sign.found] or [ADVICE[NOTHING]]


def to_json(signs: list[Sign]) -> dict[str, Any]:
    """As in trace.json."""
    return {"verdict": verdict(signs), "advice": advice(signs), "signs": [sign.to_json() for sign in signs]}
