"""What curation knows of a pair in the place of its pixels, measured shard by shard, in several processes.

Pixels of one shard a process are in memory at a time; what is kept of a pair of 256 pixels is about 6 KiB.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.pair_scores import burnt, edges_lost, fresh_strokes, look_at, mean_colour, palette
from tasks.curate_params import Curate, FaceEmbedding
from tasks.effect_norm import cut_off, loneliness, repetition, unforetold
from tasks.faces import Embedding, cut_face, find_faces, load_embedding
from tasks.pictures import Pixels, perceptual_hashes, pixel_digest
from tasks.progress import progress
from tasks.raw import Shard, read_shard
from tasks.records import Pair
from tasks.workers import spread_out

PAIRS_A_WORKER = 512  # fewer are not worth a process, which takes some seconds to begin
FEWEST = 100  # good training pairs, to say what the effect usually does
COMPARED = ("grid", "ringing", "cast", "clipping", "outlier")  # the scores that need them
LEAST = np.array([0.5, 0.5, 0.5, 0.005])  # of mean L, a, b and the share of burnt values: less is the same
DIGITS = 4  # of a score; the last bits depend on the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules need to know of a pair; the higher a score, the worse, and what was not to be had is missing."""

    pair: Pair
    change: float  # mean absolute difference between input and target, 0..1
    contrast: float  # standard deviation of the target, 0..1
    digest: str  # of the input crop's pixels
    hashes: tuple[int, int]  # perceptual hashes of the input crop and of its mirror image
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A shard's facts, with the figures from which the scores come that ask for all pairs."""

    facts: list[Facts]
    given: npt.NDArray[np.float32]  # (n,15) of the inputs: palette, share of burnt values
    target: npt.NDArray[np.float32]  # (n,4) of the targets: mean L, a, b; share of burnt values
    spectra: npt.NDArray[np.float16]  # (n,2,2,F): of input and target, along rows and columns
    vectors: npt.NDArray[np.float32]  # (n,C), or (n,0) where outliers are not asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A shard and how it is measured: all that a worker is told."""

    raw: Path
    line: Mapping[str, Any]  # of manifest.jsonl
    size: int
    teacher: str  # digest
    settings: Curate

    def read(self) -> Shard:
        """The shard, checked."""
        return read_shard(self.raw, dict(self.line), self.size, self.teacher)


def measure_all(sources: Sequence[Source], what: str) -> list[Facts]:
    """The facts of every pair, in the order of the shards."""
    pairs = sum(source.line["pairs"] for source in sources)
    workers = min(sources[0].settings.workers, pairs // PAIRS_A_WORKER)
    found: dict[str, Measured] = {}
    with progress(what, pairs, "pairs") as advance:
        if workers < 2:
            for source in sources:
                found[source.line["shard"]] = _measure_source(source)
                advance(source.line["pairs"])
        else:
            with closing(spread_out(_measure_source, sources, workers, "curate.workers")) as done:
                for source, measured in done:
                    found[source.line["shard"]] = measured
                    advance(source.line["pairs"])
    return compare([found[source.line["shard"]] for source in sources], sources[0].settings)


def _measure_source(source: Source) -> Measured:
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    return measure(source.read(), source.settings)


def measure(shard: Shard, settings: Curate) -> Measured:
    """The facts of a shard's pairs but for the scores that ask for all pairs."""
    embedding = None if settings.limits.identity is None else _embedding(settings.faces)
    rows = [
        _measure_pair(pair, given, target, embedding)
        for pair, given, target in zip(shard.pairs, shard.inputs, shard.targets, strict=True)
    ]
    asked = settings.limits.outlier is not None
    return Measured(
        facts=[row[0] for row in rows],
        given=np.array([row[1] for row in rows], np.float32),
        target=np.array([row[2] for row in rows], np.float32),
        spectra=np.array([row[3] for row in rows], np.float16),
        vectors=embedded(shard.targets) if asked else np.empty((len(rows), 0), np.float32),
    )


@lru_cache(maxsize=1)
def _embedding(settings: FaceEmbedding) -> Embedding:
    """A worker's, loaded once."""
    return load_embedding(settings)


def embedded(targets: Pixels) -> npt.NDArray[np.float32]:
    """(n,C): what the targets look like. Not what was done to the inputs: a rare input is no reason to drop a pair."""
    from models.embedding import embed

    return embed([targets])


def _measure_pair(
    pair: Pair, given: Pixels, target: Pixels, embedding: Embedding | None
) -> tuple[Facts, list[float], list[float], npt.NDArray[np.float16]]:
    ours, theirs = look_at(given), look_at(target)
    box = next(iter(find_faces(given)), None) if embedding else None
    structure, background = edges_lost(ours.luma, theirs.luma, box)
    scores = {
        "structure": structure,
        "background": background,
        "overlay": fresh_strokes(ours.slope, theirs.slope),
    }
    if embedding and box:
        own, made = embedding(np.stack([cut_face(given, box), cut_face(target, box)]))
        scores["identity"] = 1 - float(own @ made)
    if pair.disagreement is not None:
        scores["inconsistency"] = pair.disagreement
    difference = np.abs(given.astype(np.int16) - target)
    facts = Facts(
        pair=pair,
        change=float(difference.mean()) / 255,
        contrast=float(target.std()) / 255,
        digest=pixel_digest(given),
        hashes=perceptual_hashes(given),
        scores=scores,
    )
    known = [*palette(given), burnt(given)]
    made = [*mean_colour(target), burnt(target)]
    return facts, known, made, np.array([ours.spectrum, theirs.spectrum], np.float16)


def compare(parts: Sequence[Measured], settings: Curate) -> list[Facts]:
    """The facts with all their scores; those that ask what the effect usually does need FEWEST good training pairs."""
    facts = [one for part in parts for one in part.facts]
    taught = np.array([one.pair.split == "train" and is_sound(one, settings) for one in facts])
    columns: dict[str, npt.NDArray[np.float64]] = {}
    if taught.sum() >= FEWEST:
        given, target = (_joined(getattr(part, side) for part in parts).astype(np.float64) for side in SIDES)
        spectra = _joined(part.spectra for part in parts)
        rest = unforetold(given, target, taught, LEAST)
        columns = {
            "cast": np.hypot(rest[:, 1], rest[:, 2]),
            "clipping": rest[:, 3],
            "ringing": cut_off(spectra[:, 0], spectra[:, 1], taught),
            "grid": repetition(spectra[:, 0], spectra[:, 1], taught),
        }
        if settings.limits.outlier is not None:
            columns["outlier"] = loneliness(_joined(part.vectors for part in parts))
    return [
        replace(one, scores=_rounded({**one.scores, **{name: float(column[row]) for name, column in columns.items()}}))
        for row, one in enumerate(facts)
    ]


SIDES = ("given", "target")


def _joined(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(list(parts))


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in sorted(scores.items())}


def is_sound(facts: Facts, limits: Curate) -> bool:
    """Whether there is a picture to speak of (rule `broken`)."""
    pair = facts.pair
    return pair.finite and facts.contrast >= limits.min_contrast and pair.clipped <= limits.max_clipped
