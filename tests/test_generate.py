"""generate: the plan, the bytes of raw/ whatever the workers and kills, and what goes wrong."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tiny_onnx import affine_bytes, graph_bytes, pinned

import tasks.generate as stage
import tasks.shards
from models.errors import UserError
from tasks.files import read_json, read_jsonl, sha256_file, sha256_json, write_jsonl
from tasks.generate import generate, plan
from tasks.occluders import KINDS, occlude
from tasks.params import Params, parse_params
from tasks.pictures import crop_and_resize, expose, pixel_digest, read_input, turn_hue, write_input
from tasks.records import Input, Pair, read_records
from tasks.stage import one_line
from tasks.student_params import Pairs

REPOSITORY = Path(__file__).parents[1]
RAW = Path("data/students/tiny/raw")
WORK = Path("data/.work/tiny")
SIZE = 64


def some_input(number: int, split: Any = "train", width: int = 96, height: int = 80) -> Input:
    pixels = np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)
    digest = pixel_digest(pixels)
    folder = Path("data/inputs/images")
    if folder.is_dir():
        write_input(folder, digest, pixels)
    return Input(
        digest=digest,
        origin=f"folder:{number}.png",
        licence="none",
        width=width,
        height=height,
        clip="",
        group=digest,
        split=split,
    )


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Input]:
    """Three inputs, one a split, below an empty current folder."""
    monkeypatch.chdir(tmp_path)
    Path("data/inputs/images").mkdir(parents=True)
    found = [some_input(number, split) for number, split in enumerate(("train", "val", "test"))]
    write_jsonl(Path("data/inputs/inputs.jsonl"), [item.to_json() for item in found])
    return found


def write_params(teacher: dict[str, Any], **shared: int) -> Params:
    """params.yaml of this repository with one student, `tiny`, of 3 + 2 + 2 pairs in shards of 2."""
    raw = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    block = raw["students"]["oil"] | {"teacher": teacher, "distil_anyway": True}  # the tests' teachers are tiny
    block["pairs"] = {"size": SIZE, "train_crops": 3, "held_out_crops": 2, "min_scale": 0.5, "recolour": 0.5}
    block["pairs"] |= {"occlude": 0.5, "expose": 0.5, "seed": 0}
    block["train"] = block["train"] | {"crop": SIZE}
    raw["students"] = {"tiny": block}
    raw["generate"] |= {"shard_size": 2, "batch_size": 2, "workers": 1} | shared
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    return parse_params(raw)


def run(params: Params) -> dict[str, str]:
    """Run the stage; the sha256 of each file in raw/."""
    generate(params, "tiny", params.students["tiny"])
    return {path.name: sha256_file(path) for path in sorted(RAW.iterdir())}


@pytest.fixture
def teacher(inputs: list[Input]) -> dict[str, Any]:
    """Halves the contrast."""
    return pinned(Path("teacher.onnx"), affine_bytes(0.5, 0.25))


PAIRS = Pairs(size=SIZE, train_crops=3, held_out_crops=2, min_scale=0.5, recolour=0.5, occlude=0.5, expose=0.5, seed=0)


@given(st.sets(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 40))
def test_adding_an_input_changes_no_other_pair(numbers: set[int], added: int) -> None:
    before = plan([some_input(number) for number in sorted(numbers)], PAIRS, "t")
    after = plan([some_input(number) for number in sorted(numbers | {added}, reverse=True)], PAIRS, "t")
    digest = some_input(added).digest
    assert [pair for pair in before if pair.input != digest] == [pair for pair in after if pair.input != digest]
    assert len({pair.id for pair in after}) == len(after)


def test_crops_lie_inside_and_count_by_split() -> None:
    made = plan([some_input(0, width=70, height=200), some_input(1, "val"), some_input(2, "test")], PAIRS, "t")
    assert sorted(pair.split for pair in made) == ["test"] * 2 + ["train"] * 3 + ["val"] * 2
    tall = [pair.crop for pair in made if pair.split == "train"]
    assert all(35 <= side <= 70 and 0 <= left <= 70 - side and 0 <= top <= 200 - side for left, top, side in tall)
    assert len(set(tall)) == 3


def test_pairs_depend_on_teacher_seed_and_size() -> None:
    item = [some_input(0)]
    others = [PAIRS.model_copy(update={"seed": 1}), PAIRS.model_copy(update={"size": 128})]
    ids = {pair.id for pairs in (PAIRS, *others) for pair in plan(item, pairs, "t")}
    ids |= {pair.id for pair in plan(item, PAIRS, "another")}
    assert len(ids) == 12


def test_what_is_written(inputs: list[Input], teacher: dict[str, Any]) -> None:
    params = write_params(teacher)
    files = run(params)
    manifest = read_jsonl(RAW / "manifest.jsonl")
    assert [line["pairs"] for line in manifest] == [2, 2, 2, 1]
    pairs: list[Pair] = []
    for line in manifest:
        assert line["sha256"] == files[f"{line['shard']}.safetensors"]
        assert line["records_sha256"] == files[f"{line['shard']}.jsonl"]
        records = read_records(RAW / f"{line['shard']}.jsonl", Pair)
        arrays = load_file(RAW / f"{line['shard']}.safetensors")
        for record, source, target in zip(records, arrays["inputs"], arrays["targets"], strict=True):
            pixels = read_input(Path("data/inputs/images"), record.input)
            left, top, side = record.crop
            cut = crop_and_resize(pixels, (left, top, side), SIZE)
            occluded = occlude(turn_hue(cut, record.hue), record.occluder, record.seed)
            assert np.array_equal(source, expose(occluded, record.stops, record.gamma))
            np.testing.assert_allclose(target, source * 0.5 + 63.75, atol=0.51)
        pairs += records
    assert [pair.id for pair in pairs] == [pair.id for pair in plan(inputs, PAIRS, pairs[0].teacher)]
    assert all(pair.finite and pair.clipped == 0 for pair in pairs)
    assert any(pair.occluder for pair in pairs) and any(pair.stops for pair in pairs)
    described = read_json(RAW / "teacher.json")
    assert described.keys() == {"kind", "name", "version", "sha256", "digest"}
    assert described["digest"] == pairs[0].teacher
    assert len(files) == 2 * 4 + 2
    assert read_json(WORK / "generate.cost.json")["pairs"] == 7
    assert not list(WORK.glob("generate-*"))


def test_same_bytes_whatever_workers_and_batches(teacher: dict[str, Any]) -> None:
    alone = run(write_params(teacher))
    assert run(write_params(teacher, workers=2, batch_size=5)) == alone


class Killed(Exception):
    """Stands for a kill between two shards."""


def stop_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> list[str]:
    """Let `shards` shards be made, then raise; the names of those made."""
    made: list[str] = []

    def limited(job: Any, teacher: Any) -> None:
        if len(made) == shards:
            raise Killed
        tasks.shards.make_shard(job, teacher)
        made.append(job.name)

    monkeypatch.setattr(stage, "make_shard", limited)
    return made


def test_resume_makes_the_missing_and_the_damaged(teacher: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    params = write_params(teacher)
    whole = run(params)
    stop_after(monkeypatch, 3)
    with pytest.raises(Killed):
        run(params)
    (folder,) = WORK.glob("generate-*")
    tensors = folder / "raw/shard-00001.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    (folder / "raw/.tmp-1-shard-00003.safetensors").write_bytes(b"half")
    made = stop_after(monkeypatch, 99)
    assert run(params) == whole
    assert made == ["shard-00001", "shard-00003"]


def test_another_plan_drops_the_unfinished_one(teacher: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 1)
    with pytest.raises(Killed):
        run(write_params(teacher))
    stop_after(monkeypatch, 1)
    (old,) = WORK.glob("generate-*")
    with pytest.raises(Killed):
        run(write_params(teacher, shard_size=3))
    (new,) = WORK.glob("generate-*")
    assert old != new


# Run as a script, and read again by each spawned worker: at the second shard's records the whole process
# group gets a Ctrl-C, or the stage alone a SIGKILL.
KILLER = """
import os, signal, sys
from pathlib import Path
import tasks.generate, tasks.shards
write = tasks.shards.write_records
def killing(path, records):
    Path(f"worker-{os.getpid()}").touch()
    if "00001" in path.name:
        os.SIGNALLED
        signal.pause()
    write(path, records)
tasks.shards.write_records = killing
if __name__ == "__main__":
    Path("stage").write_text(str(os.getpid()))
    tasks.generate.student_main("generate", tasks.generate.generate)
"""


def stage_process(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command, "--student", "tiny"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stopped(how: str) -> tuple[int, str]:
    """Run KILLER; its exit code and what it said, once every worker is gone."""
    Path("killer.py").write_text(KILLER.replace("SIGNALLED", how))
    process = stage_process("killer.py")
    _, said = process.communicate(timeout=60)
    for path in Path().glob("worker-*"):
        try:
            psutil.Process(int(path.name.removeprefix("worker-"))).wait(10)
        except psutil.NoSuchProcess:
            continue
    return process.returncode, said


@pytest.mark.parametrize("workers", [1, 2])
def test_sigkill_leaves_no_worker_and_loses_no_pair(teacher: dict[str, Any], workers: int) -> None:
    write_params(teacher, workers=workers)
    assert stopped('kill(int(Path("stage").read_text()), signal.SIGKILL)')[0] == -signal.SIGKILL
    assert not RAW.exists()
    (folder,) = WORK.glob("generate-*")
    assert (folder / "raw/shard-00001.safetensors").exists()
    assert not (folder / "done/shard-00001.json").exists()
    resumed = run(write_params(teacher))
    assert resumed == run(write_params(teacher))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_line(teacher: dict[str, Any], workers: int) -> None:
    write_params(teacher, workers=workers)
    code, said = stopped("killpg(os.getpgrp(), signal.SIGINT)")
    need, last = said.splitlines()  # before any pair, whether a student is needed at all
    assert need.startswith("generate tiny: no student is needed, but one is asked for")
    assert (code, last) == (130, "generate: stopped; run again to go on from here")
    assert not RAW.exists()


@pytest.fixture
def broken_teacher(inputs: list[Input], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A teacher that raises for the second input of the plan."""
    broken = sorted(inputs, key=lambda item: item.digest)[1]
    bad = {pair.seed for pair in plan([broken], PAIRS, "t")}

    def load(settings: dict[str, Any]) -> Callable[..., Any]:
        def answer(images: Any, seeds: list[int]) -> Any:
            if bad & set(seeds):
                raise ValueError("no\npaint left")
            return images.astype(np.float32) / 255

        answer.digest = "t"  # type: ignore[attr-defined]
        return answer

    monkeypatch.setattr(stage, "load_teacher", load)
    return {"kind": "painter", "name": "brush", "version": 3, "style": "oil", "broken": broken}


def test_a_teacher_that_raises_is_named_with_the_input(broken_teacher: dict[str, Any]) -> None:
    broken = broken_teacher.pop("broken")
    with pytest.raises(UserError) as caught:
        run(write_params(broken_teacher, batch_size=4, shard_size=4))
    for part in ("teacher brush v3", broken.digest[:12], broken.origin, "ValueError: no paint left"):
        assert part in str(caught.value)
    assert not RAW.exists()


def test_values_out_of_range_are_recorded(inputs: list[Input]) -> None:
    # log(x): minus infinity for black, below 0 for all the rest but white.
    params = write_params(pinned(Path("teacher.onnx"), graph_bytes([("Log", ("x",), "y")])))
    run(params)
    record = read_records(RAW / "shard-00000.jsonl", Pair)[0]
    arrays = load_file(RAW / "shard-00000.safetensors")
    black, white = (arrays["inputs"][0] == 0).mean(), (arrays["inputs"][0] == 255).mean()
    assert black > 0 and not record.finite
    assert record.clipped == pytest.approx(1 - black - white)
    assert not arrays["targets"][0].any()


def test_half_a_step_outside_is_not_clipped(inputs: list[Input]) -> None:
    params = write_params(pinned(Path("teacher.onnx"), affine_bytes(1.0, 0.0019)))
    run(params)
    assert read_records(RAW / "shard-00000.jsonl", Pair)[0].clipped == 0


def test_disk_full_then_room_again(teacher: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    params = write_params(teacher)
    whole = run(params)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "shard-00001" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as caught:
        run(params)
    assert one_line(caught.value).startswith("No space left on device: free some disk space and run again")
    assert [path.name for path in sorted(WORK.glob("generate-*/raw/*"))] == [
        "shard-00000.jsonl",
        "shard-00000.safetensors",
    ]
    monkeypatch.setattr(Path, "write_bytes", write)
    assert run(params) == whole


def test_a_really_full_disk(teacher: dict[str, Any], tmp_path: Path) -> None:
    disk = tmp_path / "data/.work"
    disk.mkdir(parents=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        write_params(teacher, workers=2)
        process = stage_process("-m", "tasks.generate")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert said.splitlines()[-1].startswith("generate: No space left on device") and said.count("\n") == 2
        assert not RAW.exists()
        # The other worker may be ended in the midst of a temporary file; what has its own name is whole.
        for path in disk.glob("tiny/generate-*/raw/shard-*.safetensors"):
            assert load_file(path).keys() == {"inputs", "targets"}
        for path in disk.glob("tiny/generate-*/done/*"):  # a shard may lack it: the disk was full in between
            line = read_json(path)["line"]
            assert sha256_file(path.parents[1] / "raw" / f"{line['shard']}.safetensors") == line["sha256"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda: Path("teacher.onnx").unlink(), "cannot read teacher.onnx"),
        (lambda: Path("teacher.onnx").write_bytes(b"other"), "expected"),
        (lambda: Path("data/inputs/inputs.jsonl").unlink(), "missing data/inputs/inputs.jsonl"),
        (lambda: Path("data/inputs/inputs.jsonl").write_text(""), "holds no inputs"),
        (lambda: [path.write_bytes(b"") for path in Path("data/inputs/images").iterdir()], "is damaged"),
    ],
)
def test_bad_input_is_one_line(teacher: dict[str, Any], damage: Callable[[], Any], says: str) -> None:
    params = write_params(teacher)
    damage()
    with pytest.raises(UserError, match=says):
        run(params)
    assert not RAW.exists()


def test_an_error_in_a_worker_arrives_as_one_line(inputs: list[Input]) -> None:
    write_params(pinned(Path("teacher.onnx"), affine_bytes(1, 0, shape=("b", 3, 32, 32))), workers=2)
    process = stage_process("-m", "tasks.generate")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "set pairs.size to the model's" in said and said.count("\n") == 1


MANY = PAIRS.model_copy(update={"train_crops": 40, "held_out_crops": 10})


def test_only_training_crops_are_recoloured(inputs: list[Input]) -> None:
    made = plan(inputs, MANY, "t" * 64)
    turned = [pair for pair in made if pair.hue]
    assert {pair.split for pair in turned} == {"train"}
    assert all(30 <= pair.hue <= 330 for pair in turned)
    assert 0.3 < len(turned) / sum(pair.split == "train" for pair in made) < 0.7


def test_only_training_crops_are_occluded_and_exposed(inputs: list[Input]) -> None:
    made = plan(inputs, MANY.model_copy(update={"train_crops": 400}), "t" * 64)
    train = [pair for pair in made if pair.split == "train"]
    assert all(not pair.occluder and not pair.stops and pair.gamma == 1 for pair in made if pair.split != "train")
    assert {pair.occluder for pair in train} == {"", *KINDS}
    assert sum(bool(pair.occluder) for pair in train) / len(train) == pytest.approx(0.5, abs=0.1)
    assert sum(bool(pair.stops) for pair in train) / len(train) == pytest.approx(0.5, abs=0.1)
    assert min(pair.stops for pair in train) < -2.5 and max(pair.stops for pair in train) > 2


@given(st.integers(0, 20), st.floats(0, 1), st.floats(0, 1))
def test_a_pair_that_a_share_does_not_take_stays_as_it_is(number: int, occlude: float, expose: float) -> None:
    item = [some_input(number)]
    plain = plan(item, PAIRS.model_copy(update={"occlude": 0.0, "expose": 0.0}), "t")
    made = plan(item, PAIRS.model_copy(update={"occlude": occlude, "expose": expose}), "t")
    for before, after in zip(plain, made, strict=True):
        assert (before.crop, before.hue, before.seed) == (after.crop, after.hue, after.seed)
        changed = bool(after.occluder or after.stops)
        assert (before.id != after.id) == changed
        assert (before == after) != changed


def test_without_changes_a_pair_s_id_is_that_of_before_there_were_any() -> None:
    item = some_input(0)
    for pair in plan([item], PAIRS.model_copy(update={"occlude": 0.0, "expose": 0.0}), "t"):
        assert pair.id == sha256_json(["t", item.digest, list(pair.crop), pair.hue, SIZE, pair.seed])


def test_a_record_of_before_can_still_be_read() -> None:
    record = plan([some_input(0)], PAIRS.model_copy(update={"occlude": 0.0, "expose": 0.0}), "t")[0]
    old = {key: value for key, value in record.to_json().items() if key not in ("occluder", "stops", "gamma")}
    assert Pair.from_json(old) == record


class Moody:
    """A teacher that adds to the picture what its seed says."""

    digest = "m" * 64
    name = "moody"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, inputs: Any, seeds: Any) -> Any:
        self.asked += [seed for seed in seeds if seed]  # check_need times it with seed 0
        moods = np.array([seed % 5 / 10 for seed in seeds], np.float32)[:, None, None, None]
        right_half = np.arange(inputs.shape[2])[:, None] >= inputs.shape[2] // 2
        return inputs.astype(np.float32) / 510 + moods * right_half


def test_a_share_of_the_pairs_is_asked_for_again_without_changing_any(
    inputs: list[Input], teacher: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moody = Moody()
    monkeypatch.setattr(stage, "load_teacher", lambda settings: moody)
    params = write_params(teacher)
    run(params)
    once = read_pairs()
    assert len(moody.asked) == 7
    assert all(pair.again is None and pair.disagreement is None for pair in once)
    block = params.students["tiny"]
    again = block.model_copy(update={"pairs": block.pairs.model_copy(update={"again": 1.0})})
    generate(params, "tiny", again)
    twice = read_pairs()
    assert [pair.id for pair in twice] == [pair.id for pair in once]
    assert len(moody.asked) == 7 + 14
    for pair in twice:
        assert pair.again is not None
        apart = abs(pair.again % 5 - pair.seed % 5) / 10 / 2**0.5  # of half of the picture
        assert pair.disagreement == pytest.approx(apart, abs=1e-5)


def read_pairs() -> list[Pair]:
    return [pair for path in sorted(RAW.glob("shard-*.jsonl")) for pair in read_records(path, Pair)]


def test_only_the_share_that_was_asked_for_is_asked_again(inputs: list[Input]) -> None:
    many = PAIRS.model_copy(update={"train_crops": 400, "again": 0.25})
    made = plan([inputs[0]], many, "t")
    assert 60 < sum(pair.again is not None for pair in made) < 140
    assert [pair.id for pair in made] == [
        pair.id for pair in plan([inputs[0]], PAIRS.model_copy(update={"train_crops": 400}), "t")
    ]
