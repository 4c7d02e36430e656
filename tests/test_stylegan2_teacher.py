"""The `stylegan2` teacher, and generate with it: photos inverted and edited, and pairs drawn from nothing."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_stylegan2
from safetensors.numpy import load_file
from safetensors.torch import save_file
from test_generate import inputs, some_input  # noqa: F401 - a fixture
from torchvision.models import alexnet

import tasks.generate as stage
from models.errors import UserError
from models.teachers import Sampler, load_teacher
from models.teachers.digests import teacher_digest
from models.teachers.folders import file_sha256, folder_sha256
from models.teachers.stylegan2 import teacher as module
from tasks.curate import curate
from tasks.files import read_json, sha256_file
from tasks.params import Params, load_params, parse_params
from tasks.records import Pair, read_records

REPOSITORY = Path(__file__).parents[1]
SIZE = 64
QUICK = {
    "space": "w",
    "steps": 20,
    "learning_rate": 0.05,
    "noise_weight": 1e5,
    "tuning_steps": 10,
    "tuning_rate": 1e-3,
    "pixel": 1.0,
    "perceptual": 1.0,
    "stop": 0.0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator, a CLIP, a direction and an AlexNet."""
    folder = tmp_path_factory.mktemp("models")
    tiny_stylegan2.save_generator(folder / "generator")
    tiny_stylegan2.save_clip(folder / "clip")
    np.save(folder / "direction.npy", np.random.default_rng(0).standard_normal(8).astype(np.float32))
    save_file(alexnet(weights=None).features.state_dict(prefix="features."), folder / "alex.safetensors")
    return folder


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERSTUDY_ANSWERS", str(tmp_path / "answers"))
    return tmp_path / "answers" / "inversions"


def block(models: Path, by: str = "direction", **changed: Any) -> dict[str, Any]:
    folder = models / "generator"
    clip = {"model": str(models / "clip"), "sha256": folder_sha256(models / "clip"), "revision": ""}
    direction = models / "direction.npy"
    edits: dict[str, dict[str, Any]] = {
        "direction": {"path": str(direction), "sha256": file_sha256(direction)},
        "text-optimisation": {"text": "a b", "clip": clip, "steps": 4, "learning_rate": 0.1, "stay": 0.0},
        "text-direction": {"text": "a b", "neutral": "c d", "clip": clip, "beta": 0.1, "samples": 2},
    }
    pin = {"kind": "stylegan2", "name": "face", "version": 1, "model": str(folder), "sha256": folder_sha256(folder)}
    pin |= {"revision": "", "edit": {"by": by} | edits[by], "strength": 1.0, "truncation": 0.7, "inversion": QUICK}
    return pin | {"perceptual": None} | changed


def photos(count: int = 2) -> np.ndarray:
    across = np.linspace(0, 255, SIZE)
    ramp = np.stack([np.tile(across, (SIZE, 1)), np.tile(across[:, None], (1, SIZE)), np.full((SIZE, SIZE), 90)], -1)
    return np.stack([ramp, ramp[::-1]]).astype(np.uint8)[:count]


def test_an_inversion_is_kept_and_used_by_every_edit(models: Path, store: Path) -> None:
    teacher = load_teacher(block(models))
    made = teacher(photos(), [1, 2])
    assert made.shape == (2, SIZE, SIZE, 3) and made.dtype == np.float32 and np.isfinite(made).all()
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*.safetensors")}
    assert len(kept) == 2
    began = time.perf_counter()
    np.testing.assert_array_equal(load_teacher(block(models))(photos()[1:], [2])[0], made[1])
    weak, none, back = (load_teacher(block(models, strength=value))(photos(), [1, 2]) for value in (0.5, 0.0, -1.0))
    assert time.perf_counter() - began < 60
    steps = [np.abs(each - none).mean() for each in (weak, made, back)]
    assert 0 < steps[0] < steps[1] and steps[2] > steps[0]
    load_teacher(block(models, by="text-optimisation"))(photos(), [1, 2])
    assert {path: path.stat().st_mtime_ns for path in store.glob("*.safetensors")} == kept
    load_teacher(block(models, inversion=QUICK | {"steps": 21}))(photos(1), [1])
    assert len(list(store.glob("*.safetensors"))) == 3


def test_an_inversion_that_was_cut_off_leaves_nothing_half(
    models: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "tune", stop)
        with pytest.raises(KeyboardInterrupt):
            load_teacher(block(models))(photos(1), [1])
    assert not list(store.glob("*"))


@pytest.mark.parametrize("by", ["direction", "text-optimisation", "text-direction"])
def test_pairs_from_nothing(models: Path, by: str) -> None:
    teacher = load_teacher(block(models, by=by, strength=[0.5, 2.0]))
    assert isinstance(teacher, Sampler)
    before, after = teacher.sample(SIZE, [3, 4])
    assert before.shape == after.shape == (2, SIZE, SIZE, 3) and before.dtype == np.uint8
    change = np.abs(after - before / np.float32(255)).mean(axis=(1, 2, 3))
    assert (change > 0.005).all()
    alone = teacher.sample(SIZE, [4])
    np.testing.assert_allclose(alone[0][0], before[1], atol=1)
    assert float(np.square(alone[1][0] - after[1]).mean()) < 1e-3
    assert 0.5 <= teacher.strength(3) != teacher.strength(4) <= 2.0 and teacher.strength(3) == teacher.strength(3)
    assert load_teacher(block(models, strength=1.5)).strength(3) == 1.5  # type: ignore[attr-defined]


def test_channels_are_measured_once(models: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_teacher(block(models, by="text-direction"))
    monkeypatch.setattr(module, "channel_effects", None)
    load_teacher(block(models, by="text-direction"))
    with pytest.raises(UserError, match="no style channel agrees with the text by beta 1: lower edit.beta"):
        load_teacher(block(models, by="text-direction", edit=block(models, "text-direction")["edit"] | {"beta": 1.0}))
    assert len(list(store.glob("channels-*.safetensors"))) == 1


def test_what_identifies_it(models: Path, tmp_path: Path) -> None:
    plain = block(models)
    alex = {"path": str(models / "alex.safetensors"), "sha256": file_sha256(models / "alex.safetensors")}
    others = [
        block(models, strength=2.0),
        block(models, truncation=0.5),
        block(models, inversion=QUICK | {"space": "w+"}),
        block(models, by="text-optimisation"),
        block(models, by="text-direction"),
        block(models, perceptual=alex),
    ]
    digests = {teacher_digest(each) for each in (plain, *others)}
    assert len(digests) == 7
    moved = plain | {"model": "elsewhere", "edit": plain["edit"] | {"path": "elsewhere.npy"}}
    assert teacher_digest(moved) == teacher_digest(plain) == load_teacher(plain).digest
    assert np.isfinite(load_teacher(others[-1])(photos(1), [1])).all()
    wrong = plain | {"edit": plain["edit"] | {"sha256": "0" * 64}}
    with pytest.raises(UserError, match=r"direction.npy has sha256 .* restore it or change the pin"):
        load_teacher(wrong)


def params(models: Path, **changed: Any) -> Params:
    """The repository's own, with this teacher and few pairs."""
    raw = load_params(REPOSITORY / "params.yaml").model_dump(mode="json")
    raw["generate"] |= {"shard_size": 2, "workers": 1}
    raw["curate"] |= {"min_change": 0.0, "near_duplicate_bits": 0}
    student = raw["students"]["oil"]
    student["teacher"] = block(models, **changed.pop("teacher", {}))
    student["pairs"] |= {"size": SIZE, "train_crops": 2, "held_out_crops": 1, **changed}
    student["train"] |= {"crop": 32}
    return parse_params({**raw, "students": {"tiny": student}})


@pytest.mark.usefixtures("inputs")
def test_generate_makes_pairs_both_ways(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = params(models, samples=3, teacher={"strength": [1.0, 3.0]})
    stage.generate(told, "tiny", told.students["tiny"])
    raw = Path("data/students/tiny/raw")
    pairs = [pair for path in sorted(raw.glob("*.jsonl")) if "shard" in path.name for pair in read_records(path, Pair)]
    drawn = [pair for pair in pairs if not pair.input]
    assert len(pairs) == 4 + 3 and len(drawn) == 3
    assert {pair.split for pair in drawn} == {"train"} and len({pair.id for pair in pairs}) == 7
    assert all(1 <= (pair.strength or 0) <= 3 for pair in pairs) and len({pair.strength for pair in pairs}) == 7
    last = load_file(sorted(raw.glob("*.safetensors"))[-2])
    assert np.abs(last["inputs"].astype(int) - last["targets"]).mean() > 1
    before = {path.name: sha256_file(path) for path in raw.iterdir()}
    monkeypatch.setattr(module, "project", None)  # what was inverted is used again
    stage.generate(told, "tiny", told.students["tiny"])
    assert {path.name: sha256_file(path) for path in raw.iterdir()} == before
    curate(told, "tiny", told.students["tiny"])
    counts = read_json(Path("data/students/tiny/pairs/yield.json"))
    assert counts["train"]["pairs"] == 5 and counts["val"]["pairs"] == counts["test"]["pairs"] == 1


def test_what_params_refuse(models: Path) -> None:
    raw = load_params(REPOSITORY / "params.yaml").model_dump(mode="json")
    raw["students"]["oil"]["pairs"]["samples"] = 1
    with pytest.raises(UserError, match=r"a painter teacher draws nothing from nothing"):
        parse_params(raw)
    with pytest.raises(UserError, match=r"students.tiny.teacher.edit.beta: .*, got 2"):
        params(models, teacher={"edit": block(models, "text-direction")["edit"] | {"beta": 2.0}})
    with pytest.raises(UserError, match=r"missing key students.tiny.teacher.edit.sha256"):
        params(models, teacher={"edit": {"by": "direction", "path": "a.npy"}})
