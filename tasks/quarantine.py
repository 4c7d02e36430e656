"""The quarantine: a page of the pairs that were dropped, and of kept ones nearest to a limit, for a person to look at.

Writes FOLDER/index.html and FOLDER/thumbs/PAIR.jpg (input and target side by side). The page opens from a file, without
a server: it collects decisions and offers them as lines for data/decisions/NAME.jsonl (tasks/decisions.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.curation_rules import RULES, SCORES, Bounds
from tasks.decisions import DECISIONS
from tasks.files import write_text
from tasks.pictures import Pixels
from tasks.raw import Shard
from tasks.records import Pair, Verdict
from tasks.templates import render

TEMPLATE = Path(__file__).with_name("quarantine.html")
THUMB = 160  # pixels of each side of a pair
GAP = 4
QUALITY = 82  # of JPEG: a thumbnail is about 8 KiB


class Quarantine:
    """A folder that fills shard by shard with the thumbnails of the pairs that are shown; `close` writes the page."""

    def __init__(self, folder: Path, name: str, verdicts: list[Verdict], bounds: Bounds) -> None:
        self._folder, self._name, self._bounds = folder, name, bounds
        self._shown = {one.pair: one for one in verdicts if one.rule or one.by}
        self._near = borderline(verdicts, bounds)
        self._pairs: dict[str, Pair] = {}
        (folder / "thumbs").mkdir(parents=True)

    def take(self, shard: Shard) -> None:
        """Write the thumbnails of the shard's pairs that are shown."""
        for row, pair in enumerate(shard.pairs):
            if pair.id in self._shown or pair.id in self._near:
                self._pairs[pair.id] = pair
                both = thumbnail(shard.inputs[row], shard.targets[row])
                both.save(self._folder / "thumbs" / f"{pair.id}.jpg", quality=QUALITY)

    def close(self) -> None:
        """Write the page."""

        rows = [self._row(verdict, verdict.rule) for verdict in self._shown.values()]
        rows += [self._row(verdict, f"near {rule}") for verdict, rule in self._near.values()]
        shown = {"name": self._name, "file": (DECISIONS / f"{self._name}.jsonl").as_posix()}
        limits = {rule: limit.value for rule, limit in self._bounds.thresholds.items() if limit.value is not None}
        told = {**shown, "rules": [*RULES, *(f"near {rule}" for rule in SCORES)], "limits": limits, "pairs": rows}
        write_text(self._folder / "index.html", render(TEMPLATE, **shown, told=told) + "\n")

    def _row(self, verdict: Verdict, kind: str) -> dict[str, Any]:
        pair = self._pairs[verdict.pair]
        rule = kind.removeprefix("near ")
        limit = self._bounds.thresholds[rule].value if rule in SCORES else None
        return {
            "pair": pair.id,
            "teacher": pair.teacher,
            "kind": kind or "kept by decision",
            "split": verdict.split,
            "reason": verdict.reason,
            "also": verdict.also,
            "by": verdict.by,
            "kept": not verdict.rule,
            "scores": verdict.scores,
            "over": round(verdict.scores[rule] / limit - 1, 4) if limit else None,  # so that rules can be compared
            "input": pair.input,
            "crop": pair.crop,
            "seed": pair.seed,
        }


def borderline(verdicts: list[Verdict], bounds: Bounds) -> dict[str, tuple[Verdict, str]]:
    """The kept pairs nearest to each rule's limit, by id with that rule; each pair for one rule only."""
    found: dict[str, tuple[Verdict, str]] = {}
    for rule, limit in bounds.thresholds.items():
        if limit.value is None:
            continue
        kept = [one for one in verdicts if not (one.rule or one.by) and rule in one.scores and one.pair not in found]
        kept.sort(key=lambda one: (-one.scores[rule], one.pair))
        found |= {one.pair: (one, rule) for one in kept[: bounds.settings.borderline]}
    return found


def thumbnail(given: Pixels, target: Pixels) -> Image.Image:
    """Both sides of a pair, input first, with a white gap."""
    sheet = Image.new("RGB", (2 * THUMB + GAP, THUMB), "white")
    for number, side in enumerate((given, target)):
        small = Image.fromarray(np.ascontiguousarray(side)).resize((THUMB, THUMB), Image.Resampling.LANCZOS)
        sheet.paste(small, (number * (THUMB + GAP), 0))
    return sheet
