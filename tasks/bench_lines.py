"""A line of `make bench`: a figure, what it should reach, and whether it does."""

import sys
from dataclasses import dataclass

Goal = tuple[str, float, str]  # name, target, unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure with its target, which is met at or beyond it."""

    name: str
    value: float | None
    target: float
    holds: bool
    unit: str
    note: str


def at_most(goal: Goal, value: float, note: str) -> Line:
    """A figure that should be small."""
    name, target, unit = goal
    return Line(name=name, value=round(value, 4), target=target, holds=value <= target, unit=unit, note=note)


def at_least(goal: Goal, value: float, note: str) -> Line:
    """A figure that should be large."""
    name, target, unit = goal
    return Line(name=name, value=round(value, 4), target=target, holds=value >= target, unit=unit, note=note)


def not_measured(goal: Goal, why: str) -> Line:
    """A figure there is none of, which therefore does not hold."""
    name, target, unit = goal
    return Line(name=name, value=None, target=target, holds=False, unit=unit, note=f"not measured: {why}")


def say(line: str) -> None:
    """Show what is being done."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
