"""What an app makes of a detector's scores, frame after frame: how much of the effect to show.

Needs no library, so that it can be read as the recipe for an app in another language (docs/outside.md). A score of 1 is
where the effect begins to fade, at `passes_at` it is gone. Scores are smoothed, or the effect would flicker where they
lie about a threshold; and an effect that is gone comes back only when the score is well below, so that it does not come
and go at the border.
"""

import math
from dataclasses import dataclass, field

FADES_AT = 1.0
SMOOTHED_S = 0.4  # seconds in which a smoothed score has gone two thirds of the way to a new one
BACK = 0.8  # of the way from fading to gone: below it an effect that was gone comes back


@dataclass(slots=True)
class Fade:
    """Shares of the effect in [0,1] from scores; one of these for each camera."""

    passes_at: float
    _smooth: float | None = field(default=None, init=False)
    _gone: bool = field(default=False, init=False)

    def __call__(self, score: float, seconds: float) -> float:
        """The share to show from this frame on; so many seconds have gone by since the last score."""
        if not math.isfinite(score):
            score = 2 * self.passes_at  # a detector that fails says nothing good of the picture
        kept = math.exp(-seconds / SMOOTHED_S)
        before = score if self._smooth is None else self._smooth
        self._smooth = kept * before + (1 - kept) * min(score, 2 * self.passes_at)
        share = weight(self._smooth, self.passes_at)
        self._gone = share == 0 or (self._gone and share < 1 - BACK)
        return 0.0 if self._gone else share


def weight(score: float, passes_at: float) -> float:
    """The share of the effect at one score, without a memory: 1 up to FADES_AT, 0 from `passes_at` on."""
    return min(1.0, max(0.0, (passes_at - score) / (passes_at - FADES_AT)))
