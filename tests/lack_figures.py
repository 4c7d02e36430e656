"""How often a lack is told where there is none, and found where there is: a table of docs/decisions/0020-coverage.md.

`python tests/lack_figures.py PHOTOS` in the repository's root. Training and serving sets are drawn again and again from
the photos in a folder, no photo in both; of the serving ones a share is made dark.
"""

import sys
from pathlib import Path

import numpy as np
from split_figures import photos

from tasks.clusters import Clusters, embedded
from tasks.coverage_figures import RECENT, TRAIN, Axis, Slice, collect_next, feature_axes, judge, slices_of
from tasks.features import Features, centre_square, plain_features
from tasks.params import load_params
from tasks.pictures import Pixels
from tasks.stage_params import Coverage

TRAINING, SERVING, DRAWS = 250, 90, 100
SHARES = (0.0, 0.1, 0.2, 0.4)
SIZE = 256


def dark(square: Pixels) -> Pixels:
    return np.rint(255 * (square / 255) ** 2.4).astype(np.uint8)


class Drawn:
    """Which photos are on which side, and which of the serving ones are dark."""

    def __init__(self, photos: int, share: float, seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(photos)[: TRAINING + SERVING]
        self.train, recent = rows[:TRAINING], rows[TRAINING:]
        self.dark, self.plain = np.split(recent, [round(share * SERVING)])

    def sides(self, plain: np.ndarray, darkened: np.ndarray) -> dict[str, np.ndarray]:
        return {TRAIN: plain[self.train], RECENT: np.concatenate([darkened[self.dark], plain[self.plain]])}


def lacks(drawn: Drawn, features: list[Features], vectors: list[np.ndarray], limits: Coverage) -> list[Slice]:
    by_name = {name: drawn.sides(features[0][name], features[1][name]) for name in features[0]}
    sides = {side: {name: values[side] for name, values in by_name.items()} for side in (TRAIN, RECENT)}
    placed = drawn.sides(*vectors)
    clusters = Clusters(np.concatenate(list(placed.values())), limits.seed)
    labels = {side: clusters.distances(some).argmin(axis=1) for side, some in placed.items()}
    names = tuple(f"cluster {number}" for number in range(len(clusters)))
    axes = [Axis(name="cluster", slices=names, labels=labels), *feature_axes(sides)]
    slices = [one for axis in axes for one in slices_of(axis)]
    return collect_next(judge(slices, limits.min_slice, limits.min_ratio))


def main() -> None:
    limits = load_params().coverage
    squares = [centre_square(one, SIZE) for one in photos(Path(sys.argv[1]))]
    both = [squares, [dark(one) for one in squares]]
    features = [plain_features(some) for some in both]
    vectors = [embedded(np.stack(some)) for some in both]
    print("| share made dark | draws with any lack | with darkness told | lacks a draw |\n|---|---|---|---|")
    for share in SHARES:
        found = [lacks(Drawn(len(squares), share, seed), features, vectors, limits) for seed in range(DRAWS)]
        told = [any(one.axis in ("luma", "shadows") for one in some) for some in found]
        any_, count = np.mean([len(some) > 0 for some in found]), np.mean([len(some) for some in found])
        print(f"| {share} | {any_:.2f} | {np.mean(told):.2f} | {count:.1f} |", flush=True)


if __name__ == "__main__":
    main()
