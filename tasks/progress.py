"""How far a long stage is: a live bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 10.0


class Advance(Protocol):
    """Says that `count` more units are done, and shows a note beside them."""

    def __call__(self, count: int, note: str = "") -> None:
        """Add `count` to what is done."""
        ...


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Yield a function to call with how many more units are done; the display goes to stderr.

    A total of 0 is one that nobody knows.
    """
    yield from _bar(what, total, unit) if sys.stderr.isatty() else _lines(what, total, unit)


def _bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started, done = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total or None, rate="")

        def advance(count: int, note: str = "") -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, advance=count, rate=f"{rate:.1f} {unit}/s {note}")

        yield advance


def _lines(what: str, total: int, unit: str) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0

    def advance(count: int, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < LINE_EVERY_S and (done < total or not total):
            return
        last = now
        rate = done / max(now - started, 1e-9)
        of, left = (f"/{total}", f", {(total - done) / max(rate, 1e-9):.0f} s left") if total else ("", "")
        told = f", {note}" if note else ""
        line = f"{what}: {done}{of} {unit}, {rate:.1f} {unit}/s{left}{told}"
        print(line, file=sys.stderr, flush=True)

    yield advance
