"""curation_check, curation_ablation and bench_curation: what is planted, counted and compared, on a few small pairs."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_curate import LIMITS, SIZE, many, record, write_raw

from models.errors import UserError
from tasks.bench_curation import bench, make_pair, photographs
from tasks.curate_params import Limits
from tasks.curation_ablation import ALL_RULES, NO_RULES, NOTHING_PLANTED, table, variants, without
from tasks.curation_check import Found as Round
from tasks.curation_check import check, false_table, fault_table, measured_one_by_one, plant, read_pairs
from tasks.params import Params, parse_params
from tasks.planted_faults import FAULTS
from tasks.records import Verdict

NUMBERS = {
    "structure": 0.4,
    "background": 0.5,
    "cast": 10.0,
    "clipping": 0.25,
    "grid": 0.5,
    "ringing": 0.5,
    "overlay": 0.3,
}


@pytest.fixture
def params(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped params with one student whose pairs are 128 cuts of a photograph."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    block = raw["students"]["oil"]
    block["pairs"]["size"], block["train"]["crop"] = SIZE, 32
    raw["students"] = {"tiny": block}
    limits = Limits(**(dict.fromkeys(Limits.model_fields) | NUMBERS))
    settings = LIMITS.model_copy(update={"limits": limits, "near_duplicate_bits": 0})
    raw["curate"] = settings.model_dump()
    write_raw(many(160), shard_size=16)
    return parse_params(raw)


def test_pairs_are_taken_evenly_over_the_shards(params: Params) -> None:
    assert [one.id for one in read_pairs("tiny", params, 4).pairs] == ["cut000", "cut053", "cut106", "cut159"]
    assert len(read_pairs("tiny", params, 999).pairs) == 160


def test_each_fault_is_planted_into_training_pairs_of_its_own(params: Params) -> None:
    shard = read_pairs("tiny", params, 160)
    clean = measured_one_by_one(shard, params.curate)
    measured, targets, planted = plant(shard, clean, params.curate, share=0.3, seed=0)
    faults = set(FAULTS) - {"other-face"}  # there is none in the photograph, and nobody looked for one
    assert set(planted.values()) == faults
    assert len(planted) == len(faults) * round(0.3 * 128 / len(FAULTS))
    for row, pair in enumerate(shard.pairs):
        changed = bool((targets[row] != shard.targets[row]).any())
        assert changed == (pair.id in planted)
        assert (measured.facts[row] == clean.facts[row]) or pair.id in planted
        assert pair.split == "train" or not changed
    again = plant(shard, clean, params.curate, share=0.3, seed=0)
    assert again[2] == planted
    assert np.array_equal(again[1], targets)


def test_the_check_finds_swapped_targets_and_spares_good_pairs(params: Params) -> None:
    lines = check(params, "tiny", count=160, rounds=1, share=0.1)
    assert "| swapped | 1 | 100% | structure 100%" in "\n".join(lines)
    assert "| other-face | 0 | - | no pair to plant it in |" in lines
    assert "| any | 0.00% | 0.00% |" in lines


def verdict(name: str, rule: str, also: list[str]) -> Verdict:
    pair = record(name, "train")
    return Verdict(pair=name, split="train", rule=rule, reason="", index=-1, input=pair.input, seed=1, also=also)


def test_tables_count_what_was_dropped_by_which_rule() -> None:
    verdicts = [
        verdict("a", "grid", ["cast"]),
        verdict("b", "", []),
        verdict("c", "cast", []),
        verdict("d", "duplicate", []),
    ]
    found = Round(verdicts=verdicts, planted={"a": "grid", "b": "grid"})
    assert "| grid | 2 | 50% | grid 50%, cast 50% |" in fault_table([found])
    lines = false_table(verdicts, [found])
    assert "| cast | 50.00% | 50.00% |" in lines
    assert "| any | 50.00% | 50.00% |" in lines


def test_an_ablation_leaves_out_one_rule_or_several(params: Params) -> None:
    shard = read_pairs("tiny", params, 160)
    found = variants(shard, params, 0.3, ["structure", "structure+background+cast"])
    faulty = {name: (len(rows), count) for name, (_, rows, count) in found.items()}
    total = 8 * round(0.3 * 128 / len(FAULTS))
    assert faulty[NOTHING_PLANTED][1] == 0
    assert faulty[NO_RULES][1] == total
    assert faulty[ALL_RULES][1] < faulty["without structure+background+cast"][1] < total
    assert faulty[ALL_RULES][1] <= faulty["without structure"][1] < faulty["without structure+background+cast"][1]
    with pytest.raises(UserError, match="no rule 'edges'; there are: structure"):
        without(params.curate, ["edges"])


def test_the_table_of_an_ablation_compares_with_all_rules() -> None:
    lines = table({ALL_RULES: (90, 2, [0.5, 0.6]), "without cast": (95, 7, [0.4, 0.5])})
    assert lines[2] == f"| {ALL_RULES} | 90 | 2 | 0.550 (0.500, 0.600) | +0.000 |"
    assert lines[3] == "| without cast | 95 | 7 | 0.450 (0.400, 0.500) | -0.100 |"


def test_the_bench_runs_the_stage_on_made_up_pairs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    lines = bench(60, 64, tmp_path)
    assert lines[0].startswith("60 pairs of 64 pixels: ")
    assert (tmp_path / "data/students/bench/pairs/pairs.json").is_file()
    random = np.random.default_rng(0)
    given, target = make_pair(photographs(), 64, random)
    assert given.shape == target.shape == (64, 64, 3)
