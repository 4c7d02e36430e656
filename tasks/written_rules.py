"""Which written texts are kept, and why not the others: the rules, in the order in which they are asked.

Those that cost nothing come before those that a model is paid for, but for twins: they are sought last and among the
kept ones alone, so that a bad twin takes no good one with it. The same text asked about twice is paid for once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.chat_params import Keep
from tasks.near_texts import NearTexts, diversity, plain
from tasks.records import Record
from tasks.written_prompts import Opinion

# What each says of the text.
RULES = {
    "unreadable": "the writer gave no texts, or not as JSON",
    "length": "too short or too long",
    "leak": "near an example that the student is to be measured on",
    "unjudged": "the judge gave no opinion, or not as JSON",
    "other-class": "the judge says that it is not of the class",
    "language": "the judge says that it is in another language",
    "score": "the judge gives it too low a score",
    "unlabelled": "the labeller named no class",
    "disagreement": "the labeller gives the writer's class too little",
    "duplicate": "the same as one that is kept, but for case, spaces and punctuation",
    "near-duplicate": "nearly the same as one that is kept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Record):
    """One text that was written, in examples.jsonl or rejected.jsonl."""

    id: str  # class, call and place in it
    text: str
    label: int  # the writer's: the row of its class
    topic: str
    style: str
    length: str
    score: int | None = None  # the judge's, 1..10
    log_probabilities: list[float] | None = None  # the labeller's, by class
    agreement: float | None = None  # the probability of the writer's class
    nearest: float | None = None  # cosine to the nearest held-out example, where there is one to stay apart from
    rule: str = ""  # that rejected it; "" where it is kept
    why: str = ""  # in words: why rejected, or why kept


def rejected(text: Text, rule: str, why: str) -> Text:
    """The same text, rejected by a rule."""
    return replace(text, rule=rule, why=why)


def by_length(text: Text, keep: Keep) -> Text:
    """Reject what is too short or too long."""
    count = len(text.text)
    if keep.min_characters <= count <= keep.max_characters:
        return text
    return rejected(text, "length", f"{count} characters, of {keep.min_characters} to {keep.max_characters}")


def by_leak(text: Text, held_out: NearTexts, origins: Sequence[str], keep: Keep) -> Text:
    """Reject what is near an example of the validation or test side; origins: of each, what to call it."""
    cosine, row = held_out.nearest(text.text)
    if row < 0:
        return text
    text = replace(text, nearest=cosine)
    return text if cosine < keep.near else rejected(text, "leak", f"{cosine:.2f} near {origins[row]}")


def by_judge(text: Text, opinion: Opinion | str, keep: Keep, language: str) -> Text:
    """Reject by the judge's opinion; a text instead of one says why there is none."""
    if isinstance(opinion, str):
        return rejected(text, "unjudged", opinion)
    text = replace(text, score=opinion.score)
    if not opinion.of_class:
        return rejected(text, "other-class", RULES["other-class"])
    if not opinion.in_language:
        return rejected(text, "language", f"the judge says that it is not in {language}")
    if opinion.score < keep.min_score:
        return rejected(text, "score", f"score {opinion.score} of 10, at least {keep.min_score} is asked")
    return text


def by_labels(text: Text, labels: list[float] | str, names: Sequence[str], keep: Keep) -> Text:
    """Reject what the labeller gives another class; labels: the log-probability of each class, or why there is none."""
    if isinstance(labels, str):
        return rejected(text, "unlabelled", labels)
    agreement = round(math.exp(labels[text.label]), 4)
    text = replace(text, log_probabilities=[round(one, 6) for one in labels], agreement=agreement)
    if agreement >= keep.min_agreement:
        return replace(text, why=f"score {text.score} of 10, {agreement:.2f} sure of {names[text.label]}")
    best = names[max(range(len(names)), key=lambda row: labels[row])]
    return rejected(text, "disagreement", f"written as {names[text.label]} ({agreement:.2f}), labelled {best}")


def without_twins(texts: Sequence[Text], keep: Keep) -> list[Text]:
    """Of texts that are the same, or nearly, in whatever class, the first stays."""
    kept = [row for row, text in enumerate(texts) if not text.rule]
    near = NearTexts([texts[row].text for row in kept])
    others = near.above(keep.near)
    first: dict[str, str] = {}
    found, stays = list(texts), set()
    for place, row in enumerate(kept):
        text, same = texts[row], plain(texts[row].text)
        twin = next(((other, cosine) for other, cosine in others[place] if other in stays), None)
        if same in first:
            found[row] = rejected(text, "duplicate", f"the same as {first[same]}")
        elif twin is not None:
            found[row] = rejected(text, "near-duplicate", f"{twin[1]:.2f} near {texts[kept[twin[0]]].id}")
        else:
            first[same] = text.id
            stays.add(place)
    return found


def count_yield(texts: Sequence[Text], names: Sequence[str]) -> dict[str, Any]:
    """By class, and of all, how many were written, kept, and taken by each rule; and how varied they are."""
    parts = {name: [text for text in texts if text.label == row] for row, name in enumerate(names)}
    return {"classes": {name: _count(part) for name, part in parts.items()}, "all": _count(texts)}


def _count(texts: Sequence[Text]) -> Mapping[str, Any]:
    rules = [text.rule for text in texts]
    kept = [text.text for text in texts if not text.rule]
    written = [text.text for text in texts if text.rule != "unreadable"]
    counts = {rule: rules.count(rule) for rule in RULES}
    return {
        "written": len(written),
        "kept": len(kept),
        "rejected": counts,
        "diversity": {"written": diversity(written), "kept": diversity(kept)},
    }
