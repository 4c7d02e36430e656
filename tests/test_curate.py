"""curate: each rule with a case, which of two alike pairs stays, damaged shards, and that nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save
from scenes import scene
from skimage import data

from models.errors import UserError
from tasks import curation_rules as rules
from tasks.curate import curate
from tasks.curate_params import Curate, Gradients, Limits
from tasks.curation_rules import RULES, SCORES, Kept, bounds, count_yield, judge
from tasks.files import read_json, sha256_file, sha256_folder, write_bytes, write_json, write_jsonl
from tasks.pair_facts import Facts
from tasks.params import Params, parse_params
from tasks.pictures import Pixels, crop_and_resize, turn_hue
from tasks.planted_faults import FAULTS
from tasks.raw import Shard
from tasks.records import SPLITS, Pair, Verdict, read_records, write_records

SIZE = 64
RAW = Path("data/students/tiny/raw")
PAIRS = Path("data/students/tiny/pairs")
TEACHER = "t" * 64
OFF = Limits(**dict.fromkeys(Limits.model_fields))
LIMITS = Curate(
    workers=1,
    near_duplicate_bits=3,
    min_change=0.01,
    min_contrast=0.02,
    max_clipped=0.5,
    limits=OFF,
    faces=Gradients(kind="gradients", blur=3.0),
    borderline=0,
)

Made = tuple[Pair, Pixels, Pixels]


def picture(seed: int) -> Pixels:
    return scene(seed, SIZE, SIZE)


def record(name: str, split: Any, finite: bool = True, clipped: float = 0.0, refused: str = "") -> Pair:
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
        refused=refused,
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
    monkeypatch.setattr("tasks.curate.check_splits", lambda folder, settings: None)  # its inputs: tests/test_splits.py
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
    first = sha256_folder(PAIRS)
    run()
    assert sha256_folder(PAIRS) == first
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
    counts = read_json(PAIRS / "yield.json")
    took = {"pairs": 11, "kept": 4, "broken": 3, "no-op": 2, "duplicate": 1, "near-duplicate": 1}
    assert counts["train"] == dict.fromkeys(RULES, 0) | took


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


MIRROR = 0x5555_5555_5555_5555  # what mirroring does to a made-up hash


def facts_of(number: int, split: str, hashed: int, contrast: float, change: float) -> Facts:
    pair = record(str(number), split)
    return Facts(
        pair=pair, change=change, contrast=contrast, digest=str(hashed), hashes=(hashed, hashed ^ MIRROR), scores={}
    )


SMALL = st.sampled_from([0.0, 0.015, 0.3])


@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 2**64 - 1) | st.integers(0, 40), SMALL, SMALL)))
def test_kept_and_rejected_are_all_and_no_kept_pair_resembles_another(
    drawn: list[tuple[str, int, float, float]],
) -> None:
    facts = [facts_of(number, *one) for number, one in enumerate(drawn)]
    verdicts = judge(facts, bounds(facts, LIMITS), {})
    assert sorted(verdict.pair for verdict in verdicts) == sorted(one.pair.id for one in facts)
    assert all(bool(verdict.rule) == bool(verdict.reason) == (verdict.index == -1) for verdict in verdicts)
    kept = [verdict for verdict in verdicts if not verdict.rule]
    for split in SPLITS:
        rows = [verdict.index for verdict in kept if verdict.split == split]
        assert rows == list(range(len(rows)))
    hashes = [facts[int(verdict.pair)].hashes for verdict in kept]
    assert all((a ^ b).bit_count() > 3 for i, (a, _) in enumerate(hashes) for b, _ in hashes[:i])
    held_out = [i for i, verdict in enumerate(kept) if verdict.split != "train"]
    assert all((hashes[i][1] ^ b).bit_count() > 3 for i in held_out for b, _ in hashes[:i])
    counts = count_yield(verdicts)
    assert all(count["pairs"] == sum(count.values()) - count["pairs"] for count in counts.values())


def test_the_hashes_of_many_kept_pairs_are_all_compared() -> None:
    kept = Kept()
    numbers = np.random.default_rng(0).integers(2**63, size=3000, dtype=np.uint64)
    for number, hashed in enumerate(numbers):
        kept.add(facts_of(number, "train", int(hashed), 1.0, 1.0))
    for place in (0, 1023, 1024, 2999):
        close = facts_of(9999, "train", int(numbers[place]) ^ 0b101, 1.0, 1.0)
        assert rules.near_duplicate(close, kept, bounds([], LIMITS)) == (
            f"2 bits from train pair {place}, near_duplicate_bits is 3"
        )


def test_a_held_out_pair_that_looks_like_a_mirrored_training_pair_is_dropped() -> None:
    kept = Kept()
    hashed = 0x0123_4567_89AB_CDEF
    kept.add(facts_of(1, "train", hashed, 1.0, 1.0))
    twin = facts_of(2, "train", hashed ^ MIRROR, 1.0, 1.0)
    assert rules.near_duplicate(twin, kept, bounds([], LIMITS)) == ""  # training mirrors its pictures anyway
    held_out = facts_of(3, "test", hashed ^ MIRROR, 1.0, 1.0)
    assert (
        rules.near_duplicate(held_out, kept, bounds([], LIMITS)) == "0 bits from train pair 1, near_duplicate_bits is 3"
    )


def test_arrays_are_what_numpy_saves(tmp_path: Path) -> None:
    from tasks import pair_set

    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.save(tmp_path / "expected.npy", pictures)
    verdicts = judge(
        [facts_of(row, "train", 0x9E37_79B9_7F4A_7C15 * (row + 1) % 2**64, 1.0, 1.0) for row in range(5)],
        bounds([], LIMITS),
        {},
    )
    arrays = pair_set.Arrays(tmp_path, verdicts, 32)
    for rows in ([3, 4], [0, 1, 2]):  # wherever a shard's pairs belong
        pairs = [facts_of(row, "train", 0, 1.0, 1.0).pair for row in rows]
        arrays.take(Shard(pairs=pairs, inputs=pictures[rows], targets=255 - pictures[rows]))
    arrays.close()
    assert (tmp_path / "train.inputs.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "train.targets.npy"), 255 - pictures)
    assert np.load(tmp_path / "val.inputs.npy").shape == (0, 32, 32, 3)


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


QUARANTINE = PAIRS / "quarantine"


def shown_rows(page: Path = QUARANTINE / "index.html") -> dict[str, Any]:
    """What the page is given, by pair."""
    text = page.read_text()
    begin = text.index('id="told">') + len('id="told">')
    return {row["pair"]: row for row in json.loads(text[begin : text.index("</script>", begin)])["pairs"]}


def decide_on(*lines: dict[str, Any]) -> None:
    common = {"teacher": TEACHER, "by": "ada", "reason": "looked at it"}
    write_jsonl(Path("data/decisions/tiny.jsonl"), [common | line for line in lines])


def test_the_quarantine_shows_each_dropped_pair_with_both_sides(run: Run) -> None:
    write_raw([*good(), pair("same", "train", picture(33), picture(33))])
    _, rejected = run()
    assert [path.stem for path in (QUARANTINE / "thumbs").iterdir()] == ["same"]
    with Image.open(QUARANTINE / "thumbs" / "same.jpg") as image:
        assert image.size == (324, 160)
    row = shown_rows()["same"]
    assert (row["kind"], row["reason"], row["teacher"]) == ("no-op", rejected["same"].reason, TEACHER)


def test_what_a_teacher_says_cannot_leave_the_page_it_stands_on(run: Run) -> None:
    hostile = '</script><img src=x onerror="alert(1)">'
    write_raw([*good(), pair("evil", "train", picture(30), finite=False, refused=hostile)])
    run()
    assert hostile in shown_rows()["evil"]["reason"]
    assert "<img src=x" not in (QUARANTINE / "index.html").read_text()


def test_decisions_win_and_are_told(run: Run) -> None:
    write_raw([*good(), pair("same", "train", picture(33), picture(33))])
    decide_on({"pair": "same", "decision": "keep"}, {"pair": "good0", "decision": "drop"})
    kept, rejected = run()
    assert (kept["same"].also, kept["same"].by) == (["no-op"], "ada")
    assert rejected["good0"].rule == "decision"
    told = read_json(PAIRS / "curation.json")
    assert told["decisions"] == {"keep": 1, "drop": 1, "stale": 0}
    assert {name: row["kind"] for name, row in shown_rows().items()} == {
        "same": "kept by decision",
        "good0": "decision",
    }


def test_a_decision_on_another_teachers_pair_is_told_and_one_on_no_pair_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(good())
    decide_on({"pair": "gone", "decision": "drop", "teacher": "u" * 64})
    run()
    assert "1 decisions are about another teacher's pictures" in capsys.readouterr().err
    decide_on({"pair": "gone", "decision": "drop"})
    with pytest.raises(UserError, match=r"data/decisions/tiny\.jsonl decides on 1 pairs .* gone \(line 1\)"):
        run()


def test_an_empty_split_leaves_a_page_to_look_at(run: Run) -> None:
    bad = pair("same", "test", picture(70), picture(70))
    write_raw([one for one in good() if one[0].split != "test"] + [bad])
    page = r"data/\.work/tiny/quarantine/index\.html"
    with pytest.raises(UserError, match=f"rule no-op took 1: look at {page}"):
        run()
    assert shown_rows(Path("data/.work/tiny/quarantine/index.html")).keys() == {"same"}


def many(count: int) -> list[Made]:
    """Pairs of cuts of a photograph that a plain effect was made on, most of them for training."""
    photo, random = np.asarray(data.coffee()), np.random.default_rng(0)
    found = []
    for number in range(count):
        left, top, side = int(random.integers(300)), int(random.integers(150)), int(random.integers(120, 240))
        given_ = turn_hue(crop_and_resize(photo, (left, top, side), SIZE), int(random.integers(360)))
        split = SPLITS[number % 10] if number % 10 < 3 else "train"
        found.append(pair(f"cut{number:03}", split, given_, (given_[..., ::-1] // 2 + 90).astype(np.uint8)))
    return found


def test_the_shipped_limits_find_planted_faults_and_spare_the_rest(params: Params, repository: Path) -> None:
    shipped = parse_params(yaml.safe_load((repository / "params.yaml").read_text())).curate
    pairs = many(160)
    for number, fault in ((15, "swapped"), (25, "cast"), (37, "clipping")):
        one, given_, target = pairs[number]
        spoilt = FAULTS[fault](given_, target, pairs[80][2], np.random.default_rng(0))
        assert spoilt is not None
        pairs[number] = (one, given_, spoilt)
    write_raw(pairs, shard_size=16)
    settings = shipped.model_copy(update={"near_duplicate_bits": 0, "workers": 1})
    curate(params.model_copy(update={"curate": settings}), "tiny", params.student("tiny"))
    rejected = {one.pair: one for one in read_records(PAIRS / "rejected.jsonl", Verdict)}
    assert rejected.keys() == {"cut015", "cut025", "cut037"}
    assert rejected["cut015"].rule == "structure"
    assert "cast" in (rejected["cut025"].rule, *rejected["cut025"].also)
    assert "clipping" in (rejected["cut037"].rule, *rejected["cut037"].also)
    told = read_json(PAIRS / "curation.json")
    assert told["rules"]["identity"] == {
        "rejected": 0,
        "objected": 0,
        "judged": 0,
        "limit": None,
        "how": "no pair has it",
        "says": SCORES["identity"],
    }
    assert told["notes"] == ["identity judged none of 160 pairs: no face was found in any input"]
    near = [row for row in shown_rows().values() if row["kind"].startswith("near ")]
    assert near
    assert all(row["kept"] and row["over"] <= 0 for row in near)


def test_processes_change_no_byte(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(many(24))
    monkeypatch.setattr("tasks.pair_facts.PAIRS_A_WORKER", 8)
    digests = []
    for workers in (1, 2):
        settings = params.curate.model_copy(update={"workers": workers, "borderline": 2})
        curate(params.model_copy(update={"curate": settings}), "tiny", params.student("tiny"))
        digests.append(sha256_folder(PAIRS))
    assert digests[0] == digests[1]


def test_rules_that_could_not_judge_are_named(params: Params, repository: Path) -> None:
    shipped = parse_params(yaml.safe_load((repository / "params.yaml").read_text())).curate
    write_raw(many(20))
    curate(params.model_copy(update={"curate": shipped}), "tiny", params.student("tiny"))
    assert read_json(PAIRS / "curation.json")["notes"] == [
        "identity judged none of 20 pairs: no face was found in any input",
        "grid, ringing, cast, clipping, outlier judged no pair: what is usual takes 100 good training pairs to say",
        "structure, background, overlay judged no pair: too few training pairs have it (16 of 20); a number as a limit "
        "asks for none",
    ]
