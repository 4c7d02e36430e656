"""Stage detector on a small student and made-up photographs: what it writes, tells and refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectors import a_detector, no_detector, write_detector
from scenes import clip, encoded, scene
from tiny_litert import affine_bytes

from models.errors import UserError
from models.runtimes import open_model
from tasks import detector as stage
from tasks import outside
from tasks.detector import scorer
from tasks.detector_fit import Sample, fit
from tasks.evidence import Evidence
from tasks.files import read_json, sha256_bytes, sha256_file, write_json
from tasks.params import load_params, parse_params
from tasks.phone import with_detector
from tasks.records import Input, Verdict, read_detector, write_records
from tasks.shifted import SETS, shifted

SIZE, NAME = 64, "oil"
FOLDER = Path("data/students") / NAME
OUT = FOLDER / "detector"
COUNTS = {"train": (12, 3), "val": (3, 2), "test": (4, 3)}  # photos, and crops of each
STUDENT: dict[str, Any] = {"encoder": "patches2_8_16", "decoder_channels": [8]}
STUDENT |= {"skip": "add", "upsample": "bilinear", "head": "pixel-shuffle"}


def photo(seed: int) -> np.ndarray:
    """A scene with some grain, unlike the others."""
    random = np.random.default_rng((7, seed))
    grain = random.normal(0, random.uniform(3, 6), (SIZE, SIZE, 1))
    return np.clip(scene(seed, SIZE, SIZE) + grain, 0, 255).astype(np.uint8)


def write_student(control: str = "none") -> str:
    """student/ with random weights; returns their sha256."""
    import torch
    from safetensors.torch import save

    from models.students import build_student

    torch.manual_seed(0)
    values = build_student(STUDENT, SIZE, control).state_dict()
    data = save({name: value.contiguous() for name, value in values.items()})
    (FOLDER / "student").mkdir(parents=True, exist_ok=True)
    (FOLDER / "student/weights.safetensors").write_bytes(data)
    record = {"architecture": STUDENT, "size": SIZE, "weights_sha256": sha256_bytes(data), "pairs": "d" * 64}
    write_json(FOLDER / "student/student.json", record | {"control": control, "ranks": {}})
    return sha256_bytes(data)


def write_workspace(params: dict[str, Any], counts: dict[str, tuple[int, int]] | None = None) -> None:
    """Pairs, a student, and a LiteRT file in its place, in the current folder."""
    Path("params.yaml").write_text(yaml.safe_dump(params))
    inputs, verdicts, files = [], [], {}
    (FOLDER / "pairs").mkdir(parents=True, exist_ok=True)
    seed = 0
    for split, (photos, crops) in (counts or COUNTS).items():
        pictures = []
        for _ in range(photos):
            digest = f"{seed:064x}"
            about: dict[str, Any] = {"width": 99, "height": 99, "clip": "", "split": split}
            inputs.append(Input(digest=digest, origin="folder:x", licence="CC0", group=digest, **about))
            for crop in range(crops):
                told: dict[str, Any] = {"split": split, "rule": "", "reason": "", "seed": 0}
                verdicts.append(Verdict(pair=f"{seed} {crop}", index=len(pictures), input=digest, **told))
                pictures.append(np.roll(photo(seed), 5 * crop, axis=1))
            seed += 1
        for side in ("inputs", "targets"):
            np.save(FOLDER / f"pairs/{split}.{side}.npy", np.stack(pictures))
            files[f"{split}.{side}.npy"] = sha256_file(FOLDER / f"pairs/{split}.{side}.npy")
    Path("data/inputs").mkdir(parents=True, exist_ok=True)
    write_records(Path("data/inputs/inputs.jsonl"), inputs)
    write_records(FOLDER / "pairs/kept.jsonl", verdicts)
    write_json(FOLDER / "pairs/pairs.json", {"digest": "d" * 64, "size": SIZE, "files": files})
    weights = write_student()
    (FOLDER / "exported").mkdir(exist_ok=True)
    data = affine_bytes(1.0, 0.0, (1, SIZE, SIZE, 3))
    (FOLDER / "exported/student.int8.tflite").write_bytes(data)
    record = {"file": "student.int8.tflite", "runtime": "litert", "precision": "int8", "sha256": sha256_bytes(data)}
    write_json(FOLDER / "exported/exported.json", {"student": weights, "files": [record]})


@pytest.fixture
def params(repository: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((repository / "params.yaml").read_text())
    read["detector"] |= {"runs": 3}
    return read


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> dict[str, Any]:
    params = load_params()
    stage.detector(params, NAME, params.student(NAME))
    found: dict[str, Any] = read_json(OUT / "detector.json")
    return found


def test_the_whole_stage(here: Path, params: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    write_workspace(params)
    found = run()
    assert {path.name for path in OUT.iterdir()} == {
        *("detector.json", "latency.json", "detector.fp32.tflite", "detector.fp32.onnx")
    }
    for file in found["files"]:
        assert sha256_file(OUT / file["file"]) == file["sha256"] and file["departure"] < 1e-3
        assert open_model(OUT / file["file"], file["runtime"], gives="number").size == SIZE
    assert found["photos"] == {"train": 12, "val": 3, "test": 4} and found["fitted_on"] == 36
    assert found["calibrated_on"] == 36 + 6 and found["passes_at"] > 1.1
    fades, passes = found["alarms"]["fades"], found["alarms"]["passes"]
    assert (fades["asked"], fades["by"], fades["samples"], fades["photos"]) == (0.05, "extrapolation", 12, 4)
    assert passes["asked"] == 0.01 and passes["found"] <= fades["found"] <= 0.25
    sets = {one["name"]: one for one in found["sets"]}
    assert set(sets) == set(SETS) == set(found["scores"]) - {"test"}
    for name in ("static", "covered", "grey", "outlines", "line_art"):
        assert sets[name]["auroc"] == 1.0 and sets[name]["fades"] > 0.9, name
    assert set(sets["night"]["baselines"]) == {"luma", "plain", "bottleneck"}
    # What is told is what the file gives.
    score = scorer(OUT / "detector.fp32.onnx", "onnx")
    test = np.load(FOLDER / "pairs/test.inputs.npy")
    assert np.allclose(score(test), found["scores"]["test"], rtol=1e-3, atol=1e-3)
    assert fades["found"] == pytest.approx(np.mean(score(test) > 1))
    assert np.allclose(score(shifted("grey", test)), found["scores"]["grey"], rtol=1e-3, atol=1e-3)
    told = capsys.readouterr().out
    assert "15 photos cannot vouch for a rate of 0.05" in told and "12 test inputs of 4 photos" in told
    read = read_detector(OUT)
    assert read["latency"]["share"] > 0 and read["latency"]["student"] == "student.int8.tflite"
    evidence = with_detector(Evidence(pairs="d" * 64), read, found["student"])
    assert (
        evidence.detector_false_positives == fades["found"] and evidence.detector_note == "on 12 pictures of 4 photos"
    )
    with pytest.raises(UserError, match="other pairs or weights"):
        with_detector(Evidence(pairs="d" * 64), read, "another")


def test_too_few_photos_are_told_in_words_and_fail_the_gate(here: Path, params: dict[str, Any]) -> None:
    write_workspace(params, COUNTS | {"train": (4, 3)})
    found = run()
    assert found["files"] == [] and not found["left_out"]
    assert found["without"].startswith("the training inputs come from 4 photos, and fewer than 5 do not tell")
    evidence = with_detector(Evidence(pairs="d" * 64), read_detector(OUT), found["student"])
    assert not evidence.without_detector and "from 4 photos" in evidence.detector_note


def test_left_out_it_is_not_judged(here: Path, params: dict[str, Any]) -> None:
    params["detector"]["fitted_on"] = 0
    write_workspace(params)
    found = run()
    assert (found["left_out"], found["without"]) == (True, "detector.fitted_on is 0")
    assert with_detector(Evidence(pairs="d" * 64), read_detector(OUT), found["student"]).without_detector


@pytest.mark.parametrize(("photos", "samples"), [(1, 16), (4, 7)])
def test_a_share_of_few_test_pictures_is_no_share(photos: int, samples: int) -> None:
    evidence = with_detector(Evidence(pairs="p"), a_detector("p", "w", photos=photos, samples=samples), "w")
    assert evidence.detector_false_positives is None
    assert evidence.detector_note == f"cannot be told from {samples} pictures of {photos} photo{'s' * (photos > 1)}"


def test_one_photo_on_two_sides_is_refused(here: Path, params: dict[str, Any]) -> None:
    write_workspace(params)
    lines = [json.loads(line) for line in Path("data/inputs/inputs.jsonl").read_text().splitlines()]
    lines[-1]["group"] = lines[0]["group"]
    Path("data/inputs/inputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="one photo in two splits"):
        run()
    assert not OUT.exists()


def test_pixels_that_changed_are_refused(here: Path, params: dict[str, Any]) -> None:
    write_workspace(params)
    np.save(FOLDER / "pairs/val.inputs.npy", np.zeros((6, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(UserError, match=r"val\.inputs\.npy has sha256"):
        run()


def test_a_file_that_departs_from_torch_is_refused(
    here: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_workspace(params)
    monkeypatch.setattr(stage, "MAX_DEPARTURE", -1.0)
    with pytest.raises(UserError, match=r"detector\.fp32\.tflite gives scores that differ from torch's"):
        run()
    assert not OUT.exists()


def samples() -> tuple[Sample, Sample]:
    made = []
    for first, count in ((0, 12), (12, 4)):
        rows = [np.roll(photo(seed), 7 * crop, axis=0) for seed in range(first, first + count) for crop in range(2)]
        names = [f"photo {seed}" for seed in range(first, first + count) for _ in range(2)]
        made.append(Sample(pictures=np.stack(rows), photos=names))
    return made[0], made[1]


@pytest.mark.parametrize("control", ["none", "strength"])
def test_the_encoder_can_be_looked_at_too(here: Path, control: str) -> None:
    import torch

    from models.metrics import to_tensor
    from models.students import load_student

    write_student(control)
    student = load_student(FOLDER / "student")
    train, val = samples()
    both = fit(student, train, val, ["picture", "encoder"], fades=0.05, passes=0.01)
    one = fit(student, train, val, ["picture"], fades=0.05, passes=0.01)
    with torch.inference_mode():
        scores = both.outside(to_tensor(val.pictures)), one.outside(to_tensor(val.pictures))
    assert all((score < both.passes_at).float().mean() > 0.8 for score in scores)
    assert not torch.allclose(*scores)
    assert both.held_out == len(train.photos) + len(val.photos)
    parts = {name.split(".")[0] for name, _ in both.outside.named_buffers()}
    assert {"mean0", "mean1", "whitening0", "whitening1"} <= parts


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"passes": 0.05}, "must be less than fades"),
        ({"looks_at": ["picture", "picture"]}, "each once at most"),
        ({"looks_at": []}, "looks_at"),
        ({"fades": 0.0}, "fades"),
        ({"threshold": 1.0}, "unknown key detector.threshold"),
    ],
)
def test_settings_that_make_no_sense_are_refused(params: dict[str, Any], changed: dict[str, Any], words: str) -> None:
    params["detector"] |= changed
    with pytest.raises(UserError, match=words):
        parse_params(params)


def test_your_own_pictures_and_videos_are_scored(
    here: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file that the stage left; a photo cut to the middle, a video frame by frame as an app sees it."""
    with pytest.raises(UserError, match=r"missing .*detector\.json"):
        outside.outside(NAME, here)
    record = write_detector(OUT, a_detector("p", "w") | {"size": SIZE})
    mine = here / "mine"
    with pytest.raises(UserError, match="no folder at"):
        outside.outside(NAME, mine)
    mine.mkdir()
    (mine / "notes.txt").write_text("no picture")
    (mine / "broken.png").write_bytes(b"no picture either")
    bright, dark = np.full((80, 100, 3), 255, np.uint8), np.zeros((80, 100, 3), np.uint8)
    monkeypatch.setattr(outside, "scorer", lambda path, runtime: lambda batch: np.array([3 * batch.mean() / 255]))
    with pytest.raises(UserError, match="holds no photo or video"):
        outside.outside(NAME, mine)
    for name, pixels in (("bright.png", bright), ("dark.png", dark)):
        (mine / name).write_bytes(encoded(pixels))
    clip(mine / "both.mp4", [dark] * 20 + [bright] * 20, rate=10)
    found = outside.outside(NAME, mine)
    assert [(one.words.split()[0], one.share) for one in found if "mp4" not in one.words] == [
        ("bright.png", 0.0),
        ("dark.png", 1.0),
    ]
    video = next(one for one in found if "mp4" in one.words)
    assert video.share == 0.0 and "40 frames" in video.words and 1.0 < float(video.words.split()[-2]) < 2.0
    assert outside.tell(found)[-1] == "the effect fades on 2 of 3; scores above 1 are unusual"
    (OUT / record["files"][0]["file"]).write_bytes(b"another")
    with pytest.raises(UserError, match="detector.fp32.tflite has sha256"):
        outside.outside(NAME, mine)
    write_detector(OUT, no_detector("p", "w", left_out=False, without="too few photos"))
    with pytest.raises(UserError, match="oil has no detector: too few photos"):
        outside.outside(NAME, mine)
