"""Texts that are nearly the same, by the cosine of their character n-grams, and how varied a set of texts is.

N-grams of 3 to 5 characters within words, hashed to 2,048 numbers (scikit-learn), searched by Faiss, exactly. Case,
punctuation, spaces and how an accent is encoded do not count.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NGRAMS, NUMBERS = (3, 5), 2048
WITHIN = 30  # characters from which a text that lies within another is a leak of it


def plain(text: str) -> str:
    """A text as it is compared."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words) or text.strip()


class NearTexts:
    """An index of texts; `nearest` finds which of them another one is like."""

    def __init__(self, texts: Sequence[str]) -> None:
        import faiss

        self.plain = [plain(text) for text in texts]
        self.vectors = vectors(self.plain)
        self._index = faiss.IndexFlatIP(NUMBERS)
        self._index.add(self.vectors)

    def nearest(self, text: str) -> tuple[float, int]:
        """The highest cosine, and whose it is; (0.0, -1) of an empty index. 1.0 where one lies within the other."""
        if not self.plain:
            return 0.0, -1
        mine = plain(text)
        for row, other in enumerate(self.plain):
            shorter, longer = sorted((mine, other), key=len)
            if shorter == longer or (len(shorter) >= WITHIN and f" {shorter} " in f" {longer} "):
                return 1.0, row
        cosines, rows = self._index.search(vectors([mine]), 1)
        return _rounded(cosines[0, 0]), int(rows[0, 0])

    def above(self, least: float) -> list[list[tuple[int, float]]]:
        """Of each text the others at least as near as `least`, by row, each with its cosine."""
        if not self.plain:
            return []
        ends, cosines, rows = self._index.range_search(self.vectors, least)
        found = []
        for row in range(len(self.plain)):
            part = slice(int(ends[row]), int(ends[row + 1]))
            pairs = zip(rows[part].tolist(), cosines[part].tolist(), strict=True)
            found.append(sorted((other, _rounded(cosine)) for other, cosine in pairs if other != row))
        return found

    def of_each_other(self) -> npt.NDArray[np.float64]:
        """(N,) the cosine of each text to the nearest other."""
        if len(self.plain) < 2:
            return np.zeros(len(self.plain))
        cosines, rows = self._index.search(self.vectors, 2)
        own = rows[:, 0] == np.arange(len(rows))
        return np.clip(np.where(own, cosines[:, 1], cosines[:, 0]), 0, 1).astype(np.float64)


def vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(N,2048) float32 of length 1, or 0 for a text without an n-gram."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:
        return np.zeros((0, NUMBERS), np.float32)
    make = HashingVectorizer(analyzer="char_wb", ngram_range=NGRAMS, n_features=NUMBERS, norm="l2", dtype=np.float32)
    return np.ascontiguousarray(make.transform(texts).toarray(), np.float32)


def _rounded(cosine: Any) -> float:
    return round(min(max(float(cosine), 0.0), 1.0), 4)


def distinct(texts: Sequence[str], words: int) -> float | None:
    """Distinct-n (Li et al. 2016): different n-grams of words over all; it falls as texts are more. None of none."""
    grams = []
    for text in texts:
        found = plain(text).split()
        grams += [tuple(found[at : at + words]) for at in range(len(found) - words + 1)]
    return round(len(set(grams)) / len(grams), 4) if grams else None


def diversity(texts: Sequence[str]) -> dict[str, Any]:
    """How varied texts are: distinct-1 and -2, and how near each is to its nearest other (1 is the same text)."""
    nearest = NearTexts(texts).of_each_other()
    middle, high = np.quantile(nearest, [0.5, 0.95]) if len(texts) > 1 else (None, None)
    return {
        "texts": len(texts),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "nearest_median": None if middle is None else round(float(middle), 3),
        "nearest_95": None if high is None else round(float(high), 3),
    }
