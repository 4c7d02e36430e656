"""Whose fault a student's picture is, in words: figures of one picture and of what lies near it in the training pairs.

Four things can be wrong, and each has its own sign. The phone's file departs from the float student: quantisation. No
training input is like this one: under-represented. What the student did here is unusual, and so is, in the same way,
what the teacher did on the pairs it is nearest to: teacher error copied. The student is worse on these pairs than
elsewhere, though it was taught on them: capacity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.records import Record
from tasks.usual import UNUSUAL, in_words, same_way

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

QUANTISATION, UNDER, COPIED, CAPACITY = "quantisation", "under-represented", "teacher error copied", "capacity"
NOTHING = "nothing stands out"
FAR = 0.99  # share of the training pairs that lie nearer to a pair of another input
COPIED_SHARE = 0.3  # of the pairs near by that are unusual in the same way
OVER_BASE = 2.0  # times as many as there are anywhere
WORSE = 0.1  # of explained effect that the pairs near by have less than all


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign(Record):
    """One of the four, whether it is there, and the figures that say so."""

    kind: str
    found: bool
    told: str


def copied(deviations: Values, near: Rows, own: Values) -> tuple[Sign, Rows]:
    """Whether the student repeats what is unusual about the pairs `near`, and all rows that are unusual in this way.

    `deviations` (N,8) are all training pairs', `own` (8,) those of what the student made of the picture, beyond what it
    does everywhere.
    """
    # A student smooths what it copies: half as far is far enough where the pairs near by go all the way.
    wrong = in_words(own, least=UNUSUAL / 2)
    if not wrong:
        told = "what the student did to the picture is what the teacher does to inputs of this kind"
        return Sign(kind=COPIED, found=False, told=told), near[:0]
    alike = same_way(deviations, own)
    here, base = float(alike[near].mean()), float(alike.mean())
    found = here >= max(COPIED_SHARE, min(OVER_BASE * base, 0.9))
    told = (
        f"the picture came out {wrong} than the teacher's usual answers to inputs of this kind; {here:.0%} of the "
        f"{len(near)} training pairs nearest to it are unusual in the same way, {base:.0%} of all"
    )
    return Sign(kind=COPIED, found=found, told=told), np.flatnonzero(alike) if found else near[:0]


def under_represented(distance: float, usual: Values) -> Sign:
    """Whether the nearest training input is far: its distance against those between training pairs of other inputs."""
    share = float((usual < distance).mean())
    told = (
        f"{share:.0%} of the training pairs have one of another input nearer than this picture's nearest is "
        f"(distance {distance:.2f}, the median is {np.median(usual):.2f})"
    )
    return Sign(kind=UNDER, found=share >= FAR, told=told)


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
