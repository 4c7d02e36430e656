"""How often drift is told where there is none, and found where there is: the table of docs/decisions/0006-drift.md.

`python tests/drift_figures.py PHOTOS [STUDENT_FOLDER]` in the repository's root. Training and recent sets are drawn
again and again from the photos in a folder, no photo in both, and the recent ones changed in known ways.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from models.teachers.painter import Painter
from tasks import drift
from tasks.drift import Figures, compare_features, compare_histograms
from tasks.features import Features, centre_square, encoder_features, histograms, plain_features
from tasks.params import load_params
from tasks.pictures import Pixels, Unfit, decode_picture, scale_down

SIZE, TRAINING, NULL_DRAWS, DRAWS = 256, 250, 500, 40
RECENT = (30, 100)
RNG = np.random.default_rng(0)
SKETCH = Painter(style="sketch", name="sketch", version=1)


def rounded(values: np.ndarray) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def greyer(square: Pixels, share: float) -> Pixels:
    grey = (square @ np.array([0.299, 0.587, 0.114]))[..., None]
    return rounded(grey + share * (square - grey))


def zoomed(square: Pixels, times: float) -> Pixels:
    cut = round(SIZE * (1 - 1 / times) / 2)
    return centre_square(square[cut:-cut, cut:-cut], SIZE)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "10 % less light": lambda x: rounded(x * 0.9),
    "25 % less light": lambda x: rounded(x * 0.75),
    "half the light": lambda x: rounded(x * 0.5),
    "half the colour": lambda x: greyer(x, 0.5),
    "a fifth of the colour": lambda x: greyer(x, 0.2),
    "warm light (+10 % red, -15 % blue)": lambda x: rounded(x * np.array([1.1, 1.0, 0.85])),
    "noise, 5 of 255 levels": lambda x: rounded(x + RNG.normal(0, 5, x.shape)),
    "noise, 15 of 255 levels": lambda x: rounded(x + RNG.normal(0, 15, x.shape)),
    "blur, sigma 2 pixels": lambda x: rounded(ndimage.gaussian_filter(x.astype(float), (2, 2, 0))),
    "zoomed in twice": lambda x: zoomed(x, 2),
    "drawings (the sketch teacher's)": lambda x: rounded(SKETCH(x[None], [0])[0] * 255),
}


def squares(folder: Path) -> list[Pixels]:
    found = []
    for path in sorted(folder.iterdir()):
        try:
            found.append(centre_square(scale_down(decode_picture(path.read_bytes()), 640), SIZE))
        except Unfit:
            continue
    return found


class Set:
    """Both kinds of features of some pictures; `take` joins rows of two sets."""

    def __init__(self, pictures: list[Pixels], student: Path | None) -> None:
        self.plain = plain_features(pictures)
        self.encoded = encoder_features(student, pictures) if student else None


def join(recent: Set, new: np.ndarray, training: Set, old: np.ndarray) -> tuple[Features, np.ndarray | None]:
    plain = {name: np.concatenate([recent.plain[name][new], training.plain[name][old]]) for name in recent.plain}
    if recent.encoded is None or training.encoded is None:
        return plain, None
    return plain, np.concatenate([recent.encoded[new], training.encoded[old]])


def draws(recent: Set, rows: np.ndarray, original: Set, n: int, times: int) -> Iterator[tuple[Figures, Figures]]:
    """Figures of pictures and of their histograms; `rows` are the originals of the recent pictures."""
    rules = load_params().drift
    for _ in range(times):
        order = RNG.permutation(len(original.plain["luma"]))
        old, rest = order[:TRAINING], np.isin(rows, order[TRAINING:])
        new = RNG.permutation(np.flatnonzero(rest))[:n]
        plain, encoded = join(recent, new, original, old)
        sent = histograms({name: values[:n] for name, values in plain.items()}, SIZE)
        by_counts = compare_histograms(sent, {name: values[n:] for name, values in plain.items()}, rules)
        yield compare_features(plain, encoded, n, rules), by_counts


def line(name: str, recent: Set, rows: np.ndarray, original: Set, times: int) -> str:
    limit = load_params().drift.max_p_value
    cells = [name]
    for n in RECENT:
        drawn = list(draws(recent, rows, original, n, times))
        for figures in ([one for one, _ in drawn], [one for _, one in drawn]):
            share = np.mean([one.p_value <= limit for one in figures])
            distance = [one.distance for one in figures]
            cells.append(f"{share:.3g}, {np.mean(distance):.2f} ({np.quantile(distance, 0.99):.2f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    drift.COUNT_DRAWS = 1000  # enough for corrected p-values of 0.007, in a twentieth of the time
    pictures = squares(Path(sys.argv[1]))
    student = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    original = Set(pictures, student)
    print(f"{len(pictures)} photos; share with p <= max_p_value, mean distance (its 99 % quantile)")
    print("| change | " + " | ".join(f"{n} {kind}" for n in RECENT for kind in ("pictures", "counted")) + " |")
    print("|---|" + "---|" * 2 * len(RECENT))
    print(line("none", original, np.arange(len(pictures)), original, NULL_DRAWS), flush=True)
    rows = RNG.permutation(len(pictures))[:250]
    for name, change in CHANGES.items():
        changed = Set([change(pictures[row]) for row in rows], student)
        print(line(name, changed, rows, original, DRAWS), flush=True)


if __name__ == "__main__":
    main()
