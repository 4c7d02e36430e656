"""A teacher's failures on test pictures are found, and so is whether a student copies them or fails on its own."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import scene

from models.effect import describe
from tasks import failures, shortfall
from tasks.evidence import Evidence
from tasks.failures import find_failures
from tasks.files import sha256_bytes, sha256_file, write_json, write_jsonl
from tasks.phone import with_failures, with_yield
from tasks.quality import Floats, Pictures
from tasks.records import Verdict, write_records

SIZE, TRAIN, TEST = 64, 100, 6
WRONG, DROPPED = 2, 3  # test rows: the teacher's answer to the first is grey; of the raw ones, one was dropped


def pictures(count: int, first: int) -> Pictures:
    return np.stack([scene(first + one, SIZE, SIZE) for one in range(count)])


def effect(pictures: Pictures) -> Pictures:
    return np.clip(128 + 1.3 * (pictures.astype(float) - 128) + [20, 0, -20], 0, 255).astype(np.uint8)


def grey(pictures: Pictures) -> Pictures:
    return np.repeat(pictures.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)


def verdict(split: Any, row: int, rule: str = "", reason: str = "") -> Verdict:
    pair = sha256_bytes(f"{split}-{row}-{rule}".encode())
    index = -1 if rule else row
    return Verdict(
        pair=pair, split=split, rule=rule, reason=reason, index=index, input=sha256_bytes(pair.encode()), seed=0
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pairs/ with one wrong test answer, raw/ with one that curation dropped."""
    from safetensors.numpy import save

    root = tmp_path_factory.mktemp("failures")
    pairs = root / "pairs"
    pairs.mkdir()
    arrays = {"train": pictures(TRAIN, 0), "test": pictures(TEST, 1000)}
    for split, inputs in arrays.items():
        targets = effect(inputs)
        if split == "test":
            targets[WRONG] = grey(targets[WRONG : WRONG + 1])[0]
        np.save(pairs / f"{split}.inputs.npy", inputs)
        np.save(pairs / f"{split}.targets.npy", targets)
    kept = [verdict(split, row) for split, inputs in arrays.items() for row in range(len(inputs))]
    write_records(pairs / "kept.jsonl", kept)
    dropped = [verdict("test", 0, "no-op", "nothing was changed"), verdict("test", 1, "near-duplicate", "a twin")]
    write_records(pairs / "rejected.jsonl", dropped)
    write_json(pairs / "pairs.json", {"size": SIZE, "teacher": "e" * 64})
    raw = root / "raw"
    raw.mkdir()
    inputs = pictures(len(dropped), 2000)
    (raw / "shard-00000.safetensors").write_bytes(save({"inputs": inputs, "targets": inputs.copy()}))
    shared: dict[str, Any] = {"teacher": "e" * 64, "crop": [0, 0, 9], "hue": 0, "group": "g", "finite": True}
    shared |= {"clipped": 0.0, "seed": 0, "split": "test"}
    write_jsonl(raw / "shard-00000.jsonl", [shared | {"id": one.pair, "input": one.input} for one in dropped])
    line = {"shard": "shard-00000", "pairs": len(dropped), "sha256": sha256_file(raw / "shard-00000.safetensors")}
    write_jsonl(raw / "manifest.jsonl", [line | {"records_sha256": sha256_file(raw / "shard-00000.jsonl")}])
    return root


def of(change: Any) -> Any:
    def model(given: Pictures) -> Floats:
        made: Floats = (change(given) / 255).astype(np.float32)
        return made

    return model


def asked() -> list[Verdict]:
    return [verdict("test", row) for row in range(TEST)]


def judged(folder: Path, student: Any) -> failures.Judged:
    models = {"student.fp32": of(student), "student.int8": of(student)}
    return find_failures(folder, models, {"student": "student.fp32", "int8": "student.int8"}, asked())


def test_a_good_student_copies_nothing_and_invents_nothing(folder: Path) -> None:
    found = judged(folder, effect).to_json()
    assert (found["tested"], found["known"], found["copied"], found["invented"]) == (TEST, 2, 0, 0)
    dropped, wrong = found["rows"]
    assert dropped["rule"] == "no-op" and dropped["reason"] == "nothing was changed" and dropped["student"] == ""
    assert wrong["rule"] == "unusual" and wrong["reason"].startswith("greyer") and wrong["pair"] == asked()[WRONG].pair


def test_what_a_student_does_everywhere_is_no_failure(folder: Path) -> None:
    found = judged(folder, lambda pictures: np.clip(effect(pictures), 0, 225) + np.uint8(30)).to_json()
    assert found["invented"] == 0 and found["known"] == 2


def test_a_student_that_is_grey_on_test_pictures_copies_one_and_invents_the_rest(folder: Path) -> None:
    taught = {one.tobytes() for one in np.load(folder / "pairs/train.inputs.npy")}

    def student(pictures: Pictures) -> Pictures:
        made = effect(pictures)
        return np.stack([one if x.tobytes() in taught else grey(one) for x, one in zip(pictures, made, strict=True)])

    found = judged(folder, student)
    told = found.to_json()
    assert told["copied"] == 1 and told["invented"] >= TEST - 2
    assert all(one.student.startswith("greyer") for one in found.rows if one.invented)
    assert len(found.pictures) <= failures.SHOWN
    first = found.pictures[0]
    assert list(first) == ["input", "teacher", "student", "int8"]
    np.testing.assert_array_equal(first["student"], grey(effect(first["input"][None]))[0])


def test_too_few_pairs_are_no_silent_skip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.usual.LEAST", TRAIN + 1)
    found = judged(folder, effect)
    assert found.rows == [] and "100 training pairs of 100 inputs do not show what is usual" in found.why_not


def test_the_shortfall_names_what_takes_most() -> None:
    inputs = pictures(4, 0)
    targets = effect(inputs)
    change = shortfall.change_of(inputs, targets, range(4))
    for factor, phone, expected in ((0.05, 0.94, ""), (0.05, 0.8, "quantisation"), (0.4, 0.59, "rest")):
        exact = {"phone": phone, "float": 0.95 if factor < 0.1 else 0.6}
        errors = {"rows": [0, 2], "error": [factor * change[0], factor * change[2]]}
        found = shortfall.shortfall(exact, errors, inputs, targets)
        worst = found["limited_by"]
        assert worst == expected or (expected == "" and found["parts"][worst] < 0.06)
    lacking = shortfall.shortfall({"phone": 0.5, "float": 0.5}, errors | {"error": [0.0, 0.0]}, inputs, targets)
    assert lacking["limited_by"] == "data" and lacking["parts"]["data"] == pytest.approx(0.5)
    assert lacking["teacher_to_itself"] is None and lacking["asked_again"] == 0
    bars = shortfall.shown_parts(lacking)
    assert [bar["bar"] for bar in bars] == [50, 0, 50, 0]


def test_what_a_teacher_owes_to_the_seed_is_no_fault_of_the_students() -> None:
    """A student that answers with the mean of all seeds lies half as far from each answer as two answers do."""
    random = np.random.default_rng(0)
    inputs = pictures(8, 0)
    spread = 40.0
    mean = effect(inputs).astype(float) * 0.5 + 60
    first, second = (
        np.clip(mean + random.normal(0, spread, (len(inputs), 1, 1, 1)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    apart = {row: float(np.sqrt(np.square((first[row] / 255) - (second[row] / 255)).mean())) for row in range(8)}
    error = np.square((first - mean) / 255).mean(axis=(1, 2, 3))
    errors = {"rows": list(range(8)), "error": error.tolist()}
    change = np.square((first.astype(float) - inputs) / 255).mean(axis=(1, 2, 3)).sum()
    explained = 1 - error.sum() / change
    found = shortfall.shortfall({"phone": explained, "float": explained}, errors, inputs, first, apart)
    assert found["teacher_to_itself"] == pytest.approx(1 - sum(one**2 for one in apart.values()) / change, abs=1e-5)
    assert found["asked_again"] == 8
    lost = found["parts"]["chance"]
    assert lost == pytest.approx(min(1 - explained, (1 - found["teacher_to_itself"]) / 2), abs=1e-5)
    assert found["parts"]["rest"] == pytest.approx(1 - explained - lost, abs=1e-5) and lost > 0.4 * (1 - explained)
    assert sum(found["parts"].values()) == pytest.approx(1 - explained, abs=1e-5)


def test_the_gate_is_told_of_failures_and_of_what_curation_dropped(folder: Path) -> None:
    found = judged(folder, lambda pictures: grey(effect(pictures)))
    few = with_failures(Evidence(), found)
    assert few.without_failures == "there are failures to be told on 7 pictures only" and few.copied_failures is None
    many = with_failures(Evidence(), dataclasses.replace(found, tested=19))
    assert many.failures_note == "on 20 pictures" and many.copied_failures == found.copied / 20
    assert with_failures(Evidence(), dataclasses.replace(found, why_not="too few")).without_failures == "too few"
    yields = {
        "train": {"pairs": 90, "kept": 70, "near-duplicate": 5, "duplicate": 5, "cast": 8, "decision": 2},
        "test": {"pairs": 10, "kept": 10},
    }
    assert with_yield(Evidence(), yields).dropped == pytest.approx(0.1)
    assert with_yield(Evidence(), {"train": {"pairs": 0, "kept": 0}}).dropped is None


def test_descriptions_do_not_depend_on_how_pictures_come() -> None:
    inputs = pictures(failures.BATCH + 3, 0)
    for ours, theirs in zip(
        describe(iter(inputs), iter(effect(inputs))), describe(inputs, effect(inputs)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
