"""curate: each rule with a case, which of two alike pairs stays, damaged shards, and that nothing is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from scenes import scene

from models.errors import UserError
from tasks import curate as stage
from tasks.curate import RULES, Facts, Kept, curate, judge
from tasks.files import read_json, sha256_file, sha256_json, write_bytes, write_json, write_jsonl
from tasks.params import Curate, Params, parse_params
from tasks.pictures import Pixels
from tasks.records import SPLITS, Pair, Verdict, read_records, write_records

SIZE = 64
RAW = Path("data/students/tiny/raw")
PAIRS = Path("data/students/tiny/pairs")
TEACHER = "t" * 64
LIMITS = Curate(near_duplicate_bits=3, min_change=0.01, min_contrast=0.02, max_clipped=0.5)

Made = tuple[Pair, Pixels, Pixels]


def picture(seed: int) -> Pixels:
    return scene(seed, SIZE, SIZE)


def record(name: str, split: Any, finite: bool = True, clipped: float = 0.0) -> Pair:
    return Pair(
        id=name,
        teacher=TEACHER,
        input=f"input of {name}",
        crop=(0, 0, SIZE),
        hue=0,
        seed=1,
        split=split,
        group=name,
        finite=finite,
        clipped=clipped,
    )


def pair(name: str, split: str, given_: Pixels, target: Pixels | None = None, **facts: Any) -> Made:
    return record(name, split, **facts), given_, 255 - given_ if target is None else target


def good(count: int = 9) -> list[Made]:
    """Pairs that every rule lets pass, the splits mixed."""
    return [pair(f"good{i}", SPLITS[i % 3], picture(i)) for i in range(count)]


def write_raw(pairs: list[Made], shard_size: int = 4) -> None:
    """raw/ as generate writes it."""
    lines = []
    for number, at in enumerate(range(0, len(pairs), shard_size)):
        some, name = pairs[at : at + shard_size], f"shard-{number:05d}"
        data = save({"inputs": np.stack([one[1] for one in some]), "targets": np.stack([one[2] for one in some])})
        write_bytes(RAW / f"{name}.safetensors", data)
        write_records(RAW / f"{name}.jsonl", [one[0] for one in some])
        lines.append(
            {
                "shard": name,
                "sha256": sha256_file(RAW / f"{name}.safetensors"),
                "records_sha256": sha256_file(RAW / f"{name}.jsonl"),
                "pairs": len(some),
            }
        )
    write_jsonl(RAW / "manifest.jsonl", lines)
    write_json(RAW / "teacher.json", {"kind": "painter", "name": "tiny", "version": 3, "digest": TEACHER})


@pytest.fixture
def params(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped params with one student, tiny, below an empty current folder; nothing else is looked at again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "check_splits", lambda folder, settings: None)  # its inputs: tests/test_splits.py
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    block = raw["students"]["oil"]
    block["pairs"]["size"] = SIZE
    block["train"]["crop"] = 32
    raw["students"] = {"tiny": block}
    raw["curate"] = LIMITS.model_dump()
    return parse_params(raw)


@pytest.fixture
def run(params: Params) -> Callable[[], tuple[dict[str, Verdict], dict[str, Verdict]]]:
    """Run the stage: kept and rejected verdicts by pair."""

    def _run() -> tuple[dict[str, Verdict], dict[str, Verdict]]:
        curate(params, "tiny", params.student("tiny"))
        kept, rejected = (read_records(PAIRS / f"{name}.jsonl", Verdict) for name in ("kept", "rejected"))
        return {one.pair: one for one in kept}, {one.pair: one for one in rejected}

    return _run


Run = Callable[[], tuple[dict[str, Verdict], dict[str, Verdict]]]


def test_good_pairs_are_all_kept_in_arrays_that_can_be_mapped(run: Run) -> None:
    pairs = good()
    write_raw(pairs)
    kept, rejected = run()
    assert not rejected
    assert kept.keys() == {one.id for one, _, _ in pairs}
    for split in SPLITS:
        inputs, targets = (
            np.load(PAIRS / f"{split}.{side}.npy", mmap_mode="r", allow_pickle=False) for side in ("inputs", "targets")
        )
        assert inputs.shape == targets.shape == (3, SIZE, SIZE, 3)
        assert inputs.dtype == targets.dtype == np.uint8
        for one, given_, target in pairs:
            if one.split == split:
                assert np.array_equal(inputs[kept[one.id].index], given_)
                assert np.array_equal(targets[kept[one.id].index], target)


def test_pairs_json_names_the_set_by_digest(run: Run) -> None:
    write_raw(good())
    run()
    found = read_json(PAIRS / "pairs.json")
    assert found["counts"] == {"train": 3, "val": 3, "test": 3}
    assert (found["teacher"], found["teacher_name"], found["teacher_version"]) == (TEACHER, "tiny", 3)
    assert found["size"] == SIZE
    assert len(found["files"]) == 7
    assert all(sha256_file(PAIRS / name) == digest for name, digest in found["files"].items())
    first = sha256_json({path.name: sha256_file(path) for path in PAIRS.iterdir()})
    run()
    assert sha256_json({path.name: sha256_file(path) for path in PAIRS.iterdir()}) == first
    write_raw([*good(), pair("more", "train", picture(50))])
    run()
    assert read_json(PAIRS / "pairs.json")["digest"] != found["digest"]


def test_each_rule_rejects_its_case_with_the_reason(run: Run) -> None:
    base = picture(40)
    almost = base.copy()
    almost[0, 0] = 255 - almost[0, 0]
    cases = {
        "nan": (pair("nan", "train", picture(30), finite=False), "broken", "not finite"),
        "flat": (
            pair("flat", "train", picture(31), np.full_like(base, 99)),
            "broken",
            "contrast 0.0000 is below min_contrast 0.02",
        ),
        "clipped": (pair("clipped", "train", picture(32), clipped=0.75), "broken", "0.750 of the values are clipped"),
        "same": (pair("same", "train", picture(33), picture(33)), "no-op", "mean change 0.0000 is below"),
        "little": (pair("little", "train", picture(34), picture(34) // 2 * 2), "no-op", "is below min_change 0.01"),
        "twin": (pair("twin", "train", picture(0)), "duplicate", "same input pixels as train pair good0"),
        "alike": (pair("alike", "train", almost), "near-duplicate", "bits from train pair base"),
    }
    first = [pair("base", "train", base), *good()]
    write_raw([*first, *(made for made, _, _ in cases.values())])
    kept, rejected = run()
    assert kept.keys() == {one.id for one, _, _ in first}
    assert rejected.keys() == cases.keys()
    for name, (_, rule, reason) in cases.items():
        assert rejected[name].rule == rule
        assert reason in rejected[name].reason
        assert rejected[name].index == -1
    assert {rule for _, rule, _ in cases.values()} == set(RULES)
    counts = read_json(PAIRS / "yield.json")
    assert counts["train"] == {"pairs": 11, "kept": 4, "broken": 3, "no-op": 2, "duplicate": 1, "near-duplicate": 1}


def test_a_held_out_pair_gives_way_to_a_training_pair(run: Run) -> None:
    early = [pair("held", "test", picture(60)), pair("held-alike", "val", picture(61) // 2 * 2)]
    late = [pair("taught", "train", picture(60)), pair("taught-alike", "train", picture(61))]
    write_raw([*early, *good(), *late])
    kept, rejected = run()
    assert {"taught", "taught-alike"} <= kept.keys()
    assert {name: one.rule for name, one in rejected.items()} == {"held": "duplicate", "held-alike": "near-duplicate"}
    assert "train pair taught" in rejected["held"].reason


def test_a_rejected_pair_does_not_reject_others(run: Run) -> None:
    write_raw([pair("no-op", "train", picture(60), picture(60)), pair("fine", "train", picture(60)), *good()])
    kept, rejected = run()
    assert rejected.keys() == {"no-op"}
    assert "fine" in kept


def facts_of(number: int, split: str, hashed: int, contrast: float, change: float) -> Facts:
    return Facts(pair=record(str(number), split), change=change, contrast=contrast, digest=str(hashed), hashed=hashed)


SMALL = st.sampled_from([0.0, 0.015, 0.3])


@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 2**64 - 1) | st.integers(0, 40), SMALL, SMALL)))
def test_kept_and_rejected_are_all_and_no_kept_pair_resembles_another(
    drawn: list[tuple[str, int, float, float]],
) -> None:
    facts = [facts_of(number, *one) for number, one in enumerate(drawn)]
    verdicts = judge(facts, LIMITS)
    assert sorted(verdict.pair for verdict in verdicts) == sorted(one.pair.id for one in facts)
    assert all(bool(verdict.rule) == bool(verdict.reason) == (verdict.index == -1) for verdict in verdicts)
    kept = [verdict for verdict in verdicts if not verdict.rule]
    for split in SPLITS:
        rows = [verdict.index for verdict in kept if verdict.split == split]
        assert rows == list(range(len(rows)))
    hashes = [facts[int(verdict.pair)].hashed for verdict in kept]
    assert all((a ^ b).bit_count() > 3 for i, a in enumerate(hashes) for b in hashes[:i])
    counts = stage.count_yield(verdicts)
    assert all(count["pairs"] == sum(count.values()) - count["pairs"] for count in counts.values())


def test_the_hashes_of_many_kept_pairs_are_all_compared() -> None:
    kept = Kept()
    numbers = np.random.default_rng(0).integers(2**63, size=3000, dtype=np.uint64)
    for number, hashed in enumerate(numbers):
        kept.add(facts_of(number, "train", int(hashed), 1.0, 1.0))
    for place in (0, 1023, 1024, 2999):
        close = facts_of(9999, "train", int(numbers[place]) ^ 0b101, 1.0, 1.0)
        assert stage.near_duplicate(close, kept, LIMITS) == (
            f"2 bits from train pair {place}, near_duplicate_bits is 3"
        )


def damage_pixels() -> None:
    data = bytearray((RAW / "shard-00001.safetensors").read_bytes())
    data[-1] ^= 1
    (RAW / "shard-00001.safetensors").write_bytes(data)


def damage_records() -> None:
    path = RAW / "shard-00001.jsonl"
    path.write_text(path.read_text().replace('"val"', '"train"', 1))


def lose_shard() -> None:
    (RAW / "shard-00001.safetensors").unlink()


def empty_manifest() -> None:
    (RAW / "manifest.jsonl").write_text("")


def change_teacher() -> None:
    write_json(RAW / "teacher.json", read_json(RAW / "teacher.json") | {"digest": "u" * 64})


def double_shard() -> None:
    path = RAW / "manifest.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_pixels, r"shard-00001\.safetensors is damaged.*dvc repro generate@tiny"),
        (damage_records, r"shard-00001\.jsonl has sha256"),
        (lose_shard, r"missing .*shard-00001\.safetensors"),
        (empty_manifest, r"manifest\.jsonl is empty"),
        (change_teacher, r"does not fit .*teacher\.json"),
        (double_shard, "holds a pair twice"),
    ],
)
def test_a_damaged_raw_folder_is_refused(run: Run, damage: Callable[[], None], message: str) -> None:
    write_raw(good())
    run()
    before = sha256_file(PAIRS / "pairs.json")
    damage()
    with pytest.raises(UserError, match=message):
        run()
    assert sha256_file(PAIRS / "pairs.json") == before  # the old output stays whole


def test_shards_of_another_size_are_refused(params: Params) -> None:
    write_raw(good())
    block = params.student("tiny")
    other = block.model_copy(update={"pairs": block.pairs.model_copy(update={"size": 96})})
    with pytest.raises(UserError, match="does not hold 4 pairs of 96 pixels"):
        curate(params, "tiny", other)


def test_an_empty_split_names_the_rule_that_took_most(run: Run) -> None:
    bad = [pair(f"same{i}", "test", picture(70 + i), picture(70 + i)) for i in range(2)]
    flat = pair("flat", "test", picture(73), np.zeros((SIZE, SIZE, 3), dtype=np.uint8))
    write_raw([one for one in good() if one[0].split != "test"] + [*bad, flat])
    with pytest.raises(UserError, match="no test pair is left of 3; rule no-op took 2"):
        run()
    write_raw([one for one in good() if one[0].split != "val"])
    with pytest.raises(UserError, match="no val pairs were generated"):
        run()
    assert not PAIRS.exists()


def test_the_yield_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(good())
    run()
    printed = capsys.readouterr().out
    assert "yield of tiny" in printed
    assert all(word in printed for word in (*SPLITS, *RULES, "kept"))
