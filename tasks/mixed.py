"""Which layers of an int8 file stay in float, so that it keeps to a budget of fidelity; and what each costs.

Knows no runtime: `measure` takes the names of the layers that are kept high and says how near the float file such a
file is. A layer kept alone gains little, as its neighbours round what it gets and gives; so whole blocks are tried
first, and what turns out not to be needed is given back layer by layer, the dearest first. Called by
tasks/quantise.py.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MOST_BLOCKS = 4  # kept high; a file that needs more is better shipped in float


class Layer(Protocol):
    """A layer as tasks.mixed sees it."""

    name: str
    block: str
    multiplications: int  # for one picture


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near a file's pictures are to its float twin's: PSNR, mean and worst, dB."""

    psnr_db: float
    worst_psnr_db: float

    def to_json(self) -> dict[str, float]:
        """As in exported.json."""
        return {"psnr_db": round(self.psnr_db, 2), "worst_psnr_db": round(self.worst_psnr_db, 2)}


@dataclass(frozen=True, slots=True)
class Budget:
    """What a file's fidelity must be."""

    psnr_db: float
    worst_psnr_db: float

    def shortfall(self, found: Fidelity) -> float:
        """The dB that are missing, 0 where it is held."""
        missing = (self.psnr_db - found.psnr_db, self.worst_psnr_db - found.worst_psnr_db)
        return sum(max(0.0, one) for one in missing)


Measure = Callable[[frozenset[str]], Fidelity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """What was found."""

    high: tuple[str, ...]  # layers kept in float, in the order they are computed
    plain: Fidelity  # with all of them in int8
    found: Fidelity  # with those kept
    held: bool  # whether the budget is
    sensitivity: tuple[dict[str, Any], ...]  # by block, the costliest first

    def to_json(self) -> dict[str, Any]:
        """As in exported.json, without the sensitivity."""
        kept = {"high": list(self.high), "all_int8": self.plain.to_json()}
        return kept | {"to_float": self.found.to_json(), "budget_held": self.held}


def find_sensitivity(members: dict[str, frozenset[str]], measure: Measure) -> list[dict[str, Any]]:
    """What each block costs: dB that the file gains, in the mean and at worst, when this block alone is kept high."""
    plain = measure(frozenset())
    rows = []
    for block, names in members.items():
        found = measure(names)
        cost, worst = found.psnr_db - plain.psnr_db, found.worst_psnr_db - plain.worst_psnr_db
        rows.append({"block": block, "cost_db": round(cost, 2), "worst_cost_db": round(worst, 2)})
    return sorted(rows, key=lambda row: -max(row["cost_db"], row["worst_cost_db"]))


def members_of(layers: Sequence[Layer]) -> dict[str, frozenset[str]]:
    """The names of each block's layers, in the blocks' order."""
    members: dict[str, frozenset[str]] = {}
    for layer in layers:
        members[layer.block] = members.get(layer.block, frozenset()) | {layer.name}
    return members


def keep_high(layers: Sequence[Layer], measure: Measure, budget: Budget) -> Mixed:
    """The least that must stay in float for the budget to hold, or what comes nearest to it."""
    members = members_of(layers)
    remembered: dict[frozenset[str], Fidelity] = {}

    def known(high: frozenset[str]) -> Fidelity:
        if high not in remembered:
            remembered[high] = measure(high)
        return remembered[high]

    sensitivity = find_sensitivity(members, known)
    work = {layer.name: layer.multiplications for layer in layers}
    high = grow(frozenset(), members, work, known, budget)
    if budget.shortfall(known(high)) == 0:
        high = give_back(high, layers, known, budget)
    return result(high, layers, known, budget, sensitivity)


def follow(
    layers: Sequence[Layer], start: Collection[str], order: Sequence[str], measure: Measure, budget: Budget
) -> Mixed:
    """As keep_high, for a runtime on which a try is dear: nothing, then `start`, then blocks in a given order too."""
    members = members_of(layers)
    tried = {frozenset[str](): measure(frozenset())}
    high = frozenset(start)
    for block in ("", *order[:MOST_BLOCKS]):
        if min(budget.shortfall(found) for found in tried.values()) == 0:
            break
        high |= members.get(block, frozenset())
        tried[high] = measure(high)
    best = min(tried, key=lambda one: (budget.shortfall(tried[one]), -tried[one].psnr_db))
    return result(best, layers, tried.__getitem__, budget, [])


def grow(
    high: frozenset[str],
    members: dict[str, frozenset[str]],
    work: dict[str, int],
    measure: Measure,
    budget: Budget,
) -> frozenset[str]:
    """Keep one block more, the one that brings most, until the budget holds or nothing helps.

    Of several with which it holds, the one that costs least.
    """

    def worth(one: frozenset[str]) -> tuple[float, float]:
        missing = budget.shortfall(measure(one))
        return missing, -measure(one).psnr_db if missing else sum(work[name] for name in one)

    for _ in range(MOST_BLOCKS):
        if budget.shortfall(measure(high)) == 0:
            break
        best = min((high | names for names in members.values() if not names <= high), key=worth, default=high)
        if budget.shortfall(measure(best)) >= budget.shortfall(measure(high)):
            break
        high = best
    return high


def give_back(high: frozenset[str], layers: Sequence[Layer], measure: Measure, budget: Budget) -> frozenset[str]:
    """Without each layer that the budget holds without, the dearest first."""
    for layer in sorted(layers, key=lambda one: -one.multiplications):
        if layer.name in high and budget.shortfall(measure(high - {layer.name})) == 0:
            high -= {layer.name}
    return high


def result(
    high: frozenset[str], layers: Sequence[Layer], measure: Measure, budget: Budget, sensitivity: list[dict[str, Any]]
) -> Mixed:
    """What was found, put together."""
    found = measure(high)
    return Mixed(
        high=tuple(layer.name for layer in layers if layer.name in high),
        plain=measure(frozenset()),
        found=found,
        held=budget.shortfall(found) == 0,
        sensitivity=tuple(sensitivity),
    )
