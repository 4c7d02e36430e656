"""tasks/drift.py and tasks/recent.py on made-up scenes: like the training set, unlike it, or impossible to tell."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scenes import clip, encoded, scene
from test_evaluate import make_student

from models.errors import UserError
from tasks import drift as module
from tasks import features, recent
from tasks.drift import DriftResult, Figures, drift, judge, measure_drift
from tasks.params import Params, load_params, parse_params
from tasks.pictures import pixel_digest, write_input
from tasks.records import Input, write_records

SIZE, TRAINING, RECENT = 64, 40, 24
Change = Callable[[np.ndarray], np.ndarray]


def same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def darker(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 0.4).astype(np.uint8)


def make_training(root: Path, count: int = TRAINING, frames: int = 1, width: int = 80, height: int = 64) -> None:
    """data/inputs with `count` groups of `frames` alike training pictures, and held-out ones that must not count."""
    images = root / "data/inputs/images"
    images.mkdir(parents=True)
    inputs = []
    for seed in range(count + 10):
        for frame in range(frames):
            pixels = np.roll(scene(seed, width, height), frame, axis=1)
            pixels = pixels if seed < count else darker(pixels)
            digest = pixel_digest(pixels)
            write_input(images, digest, pixels)
            size: dict[str, Any] = {"width": width, "height": height, "clip": "", "group": f"group{seed}"}
            split = "train" if seed < count else "test"
            inputs.append(Input(digest=digest, origin=f"{seed}-{frame}", licence="made up", split=split, **size))
    write_records(root / "data/inputs/inputs.jsonl", inputs)


def make_recent(root: Path, change: Change = same, count: int = RECENT, width: int = 80, height: int = 64) -> Path:
    folder = root / "recent"
    folder.mkdir()
    for seed in range(1000, 1000 + count):
        (folder / f"{seed}.png").write_bytes(encoded(change(scene(seed, width, height))))
    return folder


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The repository's, for small pictures, in an empty current folder where they lie as params.yaml."""
    raw = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text())
    raw["ingest"]["min_side"] = 48
    raw["students"]["oil"]["pairs"]["size"] = raw["students"]["oil"]["train"]["crop"] = SIZE
    raw["drift"] |= {"min_inputs": 20, "max_inputs": 60, "permutations": 200, "max_p_value": 0.01}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    return parse_params(raw)


def test_pictures_like_those_of_training_are_no_drift(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    found = drift(params, "oil", make_recent(tmp_path))
    assert found.judged and not found.drifted
    assert found.p_value is not None and found.p_value > params.drift.max_p_value
    assert (found.kind, found.seen_by, found.n_recent, found.n_training) == ("pictures", "plain", RECENT, TRAINING)
    assert found.told.startswith("no drift")


def test_darker_pictures_are_drift_and_the_words_say_so(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    found = drift(params, "oil", make_recent(tmp_path, darker))
    assert found.drifted and found.judged
    assert found.distance is not None and found.distance > 0.9
    assert "darker (luma: median 0.5" in found.told
    assert found.features["luma"]["recent_median"] < 0.3
    assert found == drift(params, "oil", tmp_path / "recent"), "equal files must give the same figures"


def test_what_the_student_sees_counts_too(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    make_student(tmp_path / "data/students/oil/student")
    folder = make_recent(tmp_path, lambda pixels: np.ascontiguousarray(pixels[:, :, ::-1]))
    found = drift(params, "oil", folder)
    assert found.seen_by == "encoder" and found.judged


def test_too_few_are_not_judged(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    folder = make_recent(tmp_path, darker, count=5)
    (folder / "broken.jpg").write_bytes(b"no picture")
    found = drift(params, "oil", folder)
    assert not found.judged and not found.drifted and found.distance is None
    assert found.told == "not judged: 5 independent recent inputs, drift.min_inputs is 20; set aside: 1 broken"


def test_few_training_photos_are_not_judged(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path, count=module.MIN_TRAINING - 1)
    found = drift(params, "oil", make_recent(tmp_path, darker))
    assert not found.judged and "give ingest more photos" in found.told


def test_broken_files_are_counted_and_the_others_compared(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    folder = make_recent(tmp_path)
    whole = drift(params, "oil", folder)
    (folder / "broken.jpg").write_bytes(encoded(scene(1), "JPEG")[:200])
    (folder / "grey.png").write_bytes(encoded(np.full((64, 64, 3), 90, dtype=np.uint8)))
    (folder / "twin.png").write_bytes((folder / "1000.png").read_bytes())
    (folder / "notes.txt").write_text("notes")
    found = drift(params, "oil", folder)
    assert found.set_aside == {"broken": 1, "duplicate": 1, "grey": 1, "unknown": 1}
    assert replace(found, set_aside={}) == whole


def test_frames_of_a_clip_count_once(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path, count=30, frames=3)
    folder = make_recent(tmp_path)
    clip(folder / "clip.mp4", [np.roll(scene(7), 2 * frame, axis=1) for frame in range(12)])
    found = drift(params, "oil", folder)
    assert (found.n_recent, found.n_training) == (RECENT + 1, 30)


def test_one_is_drawn_of_each_group_whatever_their_order() -> None:
    groups = {f"key{number:02}": f"group{number // 3}" for number in range(30)}
    drawn = recent.draw(groups, 100, 0)
    assert sorted(groups[key] for key in drawn) == sorted(set(groups.values()))
    assert drawn == recent.draw(dict(reversed(groups.items())), 100, 0)
    assert len(recent.draw(groups, 4, 0)) == 4
    assert recent.draw(groups, 4, 0) != recent.draw(groups, 4, 1)


def write_counts(folder: Path, change: Change, files: int = 6, each: int = 5) -> Path:
    """Histogram files as phones would send them."""
    folder.mkdir()
    for number in range(files):
        squares = [features.centre_square(change(scene(2000 + number * each + i)), SIZE) for i in range(each)]
        made = features.histograms(features.plain_features(squares), SIZE)
        (folder / f"phone{number}.json").write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize(("change", "drifted"), [(same, False), (darker, True)])
def test_histograms_alone(params: Params, tmp_path: Path, change: Change, drifted: bool) -> None:
    make_training(tmp_path)
    found = drift(params, "oil", write_counts(tmp_path / "recent", change))
    assert (found.kind, found.n_recent, found.judged, found.drifted) == ("histograms", 30, True, drifted)
    assert ("darker" in found.told) == drifted


def test_histogram_files_that_do_not_fit_are_counted(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    folder = write_counts(tmp_path / "recent", same)
    whole = drift(params, "oil", folder)
    (folder / "other.json").write_text('{"schema": "other"}')
    (folder / "cut.json").write_text('{"schema": ')
    (folder / "deep.json").write_text("[" * 200_000)
    (folder / "huge.json").write_text(" " * (recent.MAX_COUNTS_BYTES + 1))
    (folder / "again.json").write_bytes((folder / "phone0.json").read_bytes())
    found = drift(params, "oil", folder)
    assert found.set_aside == {"broken": 3, "duplicate": 1, "huge": 1}
    assert replace(found, set_aside={}) == whole


def test_an_empty_folder_is_not_judged_and_a_missing_one_is_told(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    (tmp_path / "recent").mkdir()
    assert drift(params, "oil", tmp_path / "recent").told.startswith("not judged: 0 independent recent inputs")
    with pytest.raises(UserError, match="no folder of recent inputs at elsewhere"):
        drift(params, "oil", Path("elsewhere"))


ROW = {"recent_median": 0.2, "training_median": 0.45, "ks": 0.8, "p_value": 0.001}
STILL = ROW | {"p_value": 0.5}


@pytest.mark.parametrize(
    ("distance", "p_value", "row", "expected"),
    [
        (0.5, 0.005, ROW, (True, True, "drift (distance 0.50, p 0.005): darker (luma: median 0.45 -> 0.20)")),
        (0.5, 0.01, STILL, (True, True, "content or texture, none of the plain figures")),
        (0.5, 0.011, ROW, (True, False, "no drift")),
        (0.001, 0.005, ROW, (True, False, "a small change (distance 0.00, p 0.005, drift.min_distance is")),
        (float("nan"), 0.005, ROW, (False, False, "not judged: the comparison gave NaN")),
        (0.5, float("nan"), ROW, (False, False, "not judged: the comparison gave NaN")),
    ],
)
def test_judge(distance: float, p_value: float, row: dict[str, float], expected: tuple[bool, bool, str]) -> None:
    rules = load_params(Path(__file__).parent.parent / "params.yaml").drift
    judged, drifted, told = judge(Figures(distance=distance, p_value=p_value, features={"luma": row}), rules)
    assert (judged, drifted) == expected[:2]
    assert expected[2] in told


def test_the_result_is_written_and_read_again(params: Params, tmp_path: Path) -> None:
    make_training(tmp_path)
    result = measure_drift(params, "oil", make_recent(tmp_path))
    assert DriftResult.from_json(json.loads((tmp_path / "data/.work/oil/drift.json").read_text())) == result


def test_commands(params: Params, tmp_path: Path) -> None:
    """The histogram file of a folder, then the comparison with it."""
    make_training(tmp_path)
    folder = make_recent(tmp_path, darker)

    def python(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, "--student", "oil", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"{RECENT} pictures" in python("tasks.features", "--folder", str(folder), "--out", "sent/counts.json")
    assert "oil: drift (distance" in python("tasks.drift", "--folder", "sent")
    assert json.loads((tmp_path / "data/.work/oil/drift.json").read_text())["kind"] == "histograms"
