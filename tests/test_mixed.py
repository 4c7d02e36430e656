"""Which layers stay in float: on a made-up network whose errors are known, so that the right answer is."""

from dataclasses import dataclass

import numpy as np
import pytest

from tasks.mixed import Budget, Fidelity, follow, keep_high


@dataclass
class Layer:
    name: str
    block: str
    multiplications: int


LAYERS = [
    Layer("stem.conv", "stem", 10),
    Layer("body.0.conv", "body.0", 100),
    Layer("body.1.conv", "body.1", 100),
    Layer("tail.big", "tail", 80),
    Layer("tail.small", "tail", 5),
]
# Squared error that each layer in int8 adds, in the mean and on the worst picture.
ERRORS = {"stem.conv": (1e-6, 9e-5), "body.0.conv": (1e-6, 1e-6), "body.1.conv": (2e-6, 2e-6), "tail.big": (2e-6, 2e-6)}
ERRORS["tail.small"] = (5e-5, 5e-5)


def measure(high: frozenset[str]) -> Fidelity:
    sums = np.sum([error for name, error in ERRORS.items() if name not in high] or [(1e-10, 1e-10)], axis=0)
    mean, worst = -10 * np.log10(sums)
    return Fidelity(float(mean), float(worst))


def test_nothing_is_kept_high_where_int8_holds_the_budget() -> None:
    found = keep_high(LAYERS, measure, Budget(42, 38))
    assert found.high == () and found.held and found.found == found.plain


def test_the_layers_that_matter_are_kept_and_the_dear_ones_given_back() -> None:
    found = keep_high(LAYERS, measure, Budget(45, 42))
    # The block `tail` is kept for its small layer; the big one is not needed.
    assert found.high == ("stem.conv", "tail.small") and found.held
    assert found.found.psnr_db >= 45 and found.found.worst_psnr_db >= 42
    assert found.plain == measure(frozenset())
    assert found.to_json()["high"] == ["stem.conv", "tail.small"]


def test_the_costliest_block_comes_first() -> None:
    sensitivity = keep_high(LAYERS, measure, Budget(45, 42)).sensitivity
    assert [row["block"] for row in sensitivity][:2] == ["tail", "stem"]
    assert {row["block"] for row in sensitivity} == {layer.block for layer in LAYERS}
    gained = measure(frozenset({"stem.conv"})).worst_psnr_db - measure(frozenset()).worst_psnr_db
    assert sensitivity[1]["worst_cost_db"] == pytest.approx(gained, abs=0.01)


def test_a_budget_out_of_reach_is_said_to_be_and_the_best_is_given() -> None:
    def noisy(high: frozenset[str]) -> Fidelity:
        found = measure(high)
        return Fidelity(min(found.psnr_db, 47.0), min(found.worst_psnr_db, 46.0))

    found = keep_high(LAYERS, noisy, Budget(60, 60))
    assert not found.held and found.found.psnr_db > 45 and found.to_json()["budget_held"] is False


def test_another_runtime_follows_and_takes_no_more_than_it_needs() -> None:
    order = ["tail", "stem", "body.0"]
    tries: list[frozenset[str]] = []

    def counted(high: frozenset[str]) -> Fidelity:
        tries.append(high)
        return measure(high)

    assert follow(LAYERS, ["stem.conv", "tail.small"], order, counted, Budget(42, 38)).high == ()
    assert len(tries) == 1
    assert follow(LAYERS, ["stem.conv", "tail.small"], order, measure, Budget(45, 42)).high == (
        "stem.conv",
        "tail.small",
    )
    more = follow(LAYERS, ["stem.conv"], order, measure, Budget(45, 42))
    assert more.high == ("stem.conv", "tail.big", "tail.small") and more.held
    assert not follow(LAYERS, [], order, measure, Budget(300, 300)).held
