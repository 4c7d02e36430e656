"""Older pairs replayed while new ones are learnt: their share of the batches, and what is forgotten, measured."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_train import STUDENT, here  # noqa: F401 - a fixture

from models.batches import Batches, Replay, open_pairs
from models.errors import UserError
from models.students import load_student
from models.validation import REPLAYED, validate
from tasks.facts import _train, numbers
from tasks.files import read_json, read_jsonl, sha256_file, sha256_json, write_json
from tasks.panel_inputs import PanelInput, write_panel
from tasks.params import load_params
from tasks.records import Verdict, write_records
from tasks.student_params import Student
from tasks.train import train


def marked(count: int, level: int) -> np.ndarray:
    """Pairs that show by their level which set they are of, and by their green which one."""
    made = np.full((count, 32, 32, 3), level, np.uint8)
    made[..., 1] = np.arange(count)[:, None, None]
    return made


def batches(share: float, batch_size: int = 8, seed: int = 0) -> Batches:
    new, old = marked(12, 200), marked(5, 50)
    return Batches(new, new, batch_size=batch_size, crop=32, seed=seed, replay=Replay(old, old, share))


def old_ones(batch: torch.Tensor) -> torch.Tensor:
    return batch[:, 0, 0, 0] < 0.5


def test_the_share_is_exact_and_no_pair_waits_for_another_s_second_turn() -> None:
    found = batches(0.25)
    for step in range(5):
        inputs, targets = found.batch(step)
        assert old_ones(inputs).sum() == 2 and torch.equal(inputs, targets)
    seen = np.concatenate([found.replayed_rows(step) for step in range(5)])
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    assert sorted(np.concatenate([found.rows(step) for step in range(2)])) == list(range(12))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_share_of_no_whole_number_is_exact_over_the_steps(share: float) -> None:
    found = batches(share)
    counts = [len(found.replayed_rows(step)) for step in range(100)]
    assert max(counts) - min(counts) == 1 and sum(counts) == round(800 * share)
    assert all(len(found.rows(step)) == 8 - count for step, count in enumerate(counts))


def test_a_batch_is_a_function_of_seed_and_step_and_processes_share_it() -> None:
    found = batches(0.3)
    whole = found.batch(7)[0]
    found.batch(2)
    assert torch.equal(found.batch(7)[0], whole)
    assert not torch.equal(batches(0.3, seed=1).batch(7)[0], whole)
    parts = [found.batch(7, slice(rank, None, 2))[0] for rank in range(2)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1])


def test_a_share_of_0_is_the_batch_without() -> None:
    new = marked(12, 200)
    plain = Batches(new, new, batch_size=8, crop=32, seed=0)
    for step in range(3):
        assert torch.equal(plain.batch(step)[0], batches(0.0).batch(step)[0])


def older_pairs(here: Path) -> Path:  # noqa: F811 - the fixture's value
    """Pairs of another teacher on darker inputs: it leaves them as grey."""
    pairs, older = here / "data/students/oil/pairs", here / "older"
    older.mkdir()
    for split in ("train", "val", "test"):
        inputs = np.load(pairs / f"{split}.inputs.npy") // 3
        np.save(older / f"{split}.inputs.npy", inputs)
        np.save(older / f"{split}.targets.npy", np.full_like(inputs, 128))
    for folder in (pairs, older):
        keep(folder, "same")
    files = {path.name: sha256_file(path) for path in older.glob("*.npy")}
    told = {"digest": sha256_json(files), "teacher": "o" * 64, "size": 64, "files": files}
    write_json(older / "pairs.json", told | {"counts": {"train": 4, "val": 1, "test": 1}})
    return older


def keep(folder: Path, input_: str, side: Any = "train") -> None:
    """kept.jsonl with one pair."""
    one = Verdict(pair="p", split=side, rule="", reason="", index=0, input=input_, seed=0)
    write_records(folder / "kept.jsonl", [one])


def test_what_is_held_out_or_frozen_is_not_replayed(here: Path) -> None:  # noqa: F811
    older = older_pairs(here)
    keep(here / "data/students/oil/pairs", "same", "test")
    with pytest.raises(UserError, match=r"older trains on 1 inputs that .* holds out, such as same"):
        taught(here, steps=2, replay={"pairs": "older", "share": 0.5})
    assert not STUDENT.exists()
    keep(older, "f" * 64)
    write_panel([PanelInput(origin="folder:a.png", file="a" * 64, digest="f" * 64, hashes=("0" * 16, "0" * 16))])
    with pytest.raises(
        UserError, match=r"train\.replay: older: folder:a\.png of the frozen panel is on the train side"
    ):
        taught(here, steps=2, replay={"pairs": "older", "share": 0.5})


def taught(here: Path, **train_settings: Any) -> Student:  # noqa: F811
    """Run the stage with these settings below `train`."""
    raw = yaml.safe_load((here / "params.yaml").read_text())
    raw["students"]["oil"]["init"] = train_settings.pop("init", "models/start/scratch")
    raw["students"]["oil"]["train"] |= train_settings
    (here / "params.yaml").write_text(yaml.safe_dump(raw))
    params = load_params()
    train(params, "oil", params.student("oil"))
    return params.student("oil")


def test_forgetting_is_what_was_explained_less_what_is(here: Path) -> None:  # noqa: F811
    older = older_pairs(here)
    new, told = here / "data/students/oil/pairs", {}
    shutil.copytree(new, here / "new")
    shutil.rmtree(new)
    shutil.copytree(older, new)
    taught(here, steps=60)
    shutil.copytree(STUDENT, here / "before")
    assert read_json(STUDENT / "student.json")["replay"] == {}
    shutil.rmtree(new)
    shutil.copytree(here / "new", new)
    for share in (0.0, 0.5):
        block = taught(here, init="before", steps=20, replay={"pairs": "older", "share": share})
        record = told[share] = read_json(STUDENT / "student.json")["replay"]
        val = open_pairs(older, "val")
        for when, folder in (("before", here / "before"), ("after", STUDENT)):
            found = validate(load_student(folder), *val, torch.device("cpu"))["val_explained_effect"]
            assert record[when] == pytest.approx(found, abs=1e-4)
        assert record["forgetting"] == record["before"] - record["after"]
        assert (record["share"], record["count"]) == (share, 4 if share else 0)
        assert record["pairs"] == read_json(older / "pairs.json")["digest"]
        curve = read_jsonl(STUDENT / "curve.jsonl")
        assert [line["step"] for line in curve if REPLAYED in line] == [0, 10, 20]
        assert curve[0] == {"step": 0, REPLAYED: record["before"]}
        facts = _train(load_params(), "oil", block)
        assert facts.made_from["replay"] == record["pairs"]
        assert numbers(facts.figures)["train.replay.forgetting"] == record["forgetting"]
    assert told[0.5]["forgetting"] < told[0.0]["forgetting"] - 0.1


def test_stopped_and_run_again_gives_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    older_pairs(here)
    replay = {"pairs": "older", "share": 0.3}
    taught(here, steps=12, replay=replay)
    whole = {path.name: path.read_bytes() for path in STUDENT.iterdir()}
    shutil.rmtree(STUDENT)
    shutil.rmtree(here / "data/.work")
    batch = Batches.batch

    def stops(self: Batches, step: int, *share: Any) -> Any:
        if step == 7:
            raise KeyboardInterrupt
        return batch(self, step, *share)

    monkeypatch.setattr(Batches, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        taught(here, steps=12, replay=replay)
    monkeypatch.setattr(Batches, "batch", batch)
    assert not STUDENT.exists()
    taught(here, steps=12, replay=replay)
    assert {path.name: path.read_bytes() for path in STUDENT.iterdir()} == whole


def test_what_cannot_be_replayed_is_one_line(here: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"train\.replay: models/start/no-pairs holds no pairs: name a folder"):
        taught(here, replay={"pairs": "models/start/no-pairs", "share": 0.2})
    older = older_pairs(here)
    with (older / "val.inputs.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="pairs .*sha256"):
        taught(here, replay={"pairs": "older", "share": 0.2})
    with pytest.raises(UserError, match=r"students\.oil\.train\.replay\.share"):
        taught(here, replay={"pairs": "older", "share": 1.0})
