"""`understudy trace` on made students: where its pictures come from, and whose fault they are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_evaluate
from PIL import Image
from scenes import scene
from test_evaluate import SIZE, teach

from models.errors import UserError
from tasks import trace, trace_planted
from tasks.files import sha256_file, write_json, write_jsonl
from tasks.trace_verdict import (
    CAPACITY,
    COPIED,
    NOTHING,
    QUANTISATION,
    UNDER,
    capacity,
    copied,
    quantisation,
    under_represented,
    verdict,
)

NEAR = np.arange(20)
GREY = np.array([0, 0, 0, -11, 0, 0, 0, 0], float)


def pairs_of(unusual: int, deviation: np.ndarray = GREY) -> np.ndarray:
    """Deviations of 200 pairs, the first `unusual` of them alike, the rest within chance."""
    found = np.random.default_rng(0).normal(size=(200, 8))
    found[:unusual] += deviation
    return found


EVERYWHERE = np.random.default_rng(1).normal(size=(64, 8))  # a student that does nothing of its own


def test_an_error_is_copied_where_the_pairs_near_by_have_it() -> None:
    sign, named = copied(pairs_of(16), NEAR, GREY, EVERYWHERE)
    assert sign.found and "80% of the 20" in sign.told and "8% of all: greyer (11 deviations)" in sign.told
    np.testing.assert_array_equal(named, np.arange(16))
    weaker, _ = copied(pairs_of(16), NEAR, 0.4 * GREY, EVERYWHERE)
    assert weaker.found  # a student smooths what it copies


@pytest.mark.parametrize(
    ("deviations", "own", "everywhere"),
    [
        (pairs_of(0), GREY, EVERYWHERE),  # the teacher did nothing unusual
        (pairs_of(16), np.zeros(8), EVERYWHERE),  # the student did not follow
        (pairs_of(16, -GREY), GREY, EVERYWHERE),  # the pairs are more colourful
        (pairs_of(2), GREY, EVERYWHERE),  # two of twenty are
        (pairs_of(150), GREY, EVERYWHERE),  # there as everywhere
        (pairs_of(16), 0.5 * GREY, EVERYWHERE + 0.6 * GREY),  # the student is grey everywhere
    ],
)
def test_an_error_is_not_copied_otherwise(deviations: np.ndarray, own: np.ndarray, everywhere: np.ndarray) -> None:
    near = NEAR if (deviations[:, 3] < -6).sum() < 100 else np.arange(0, 200, 10)
    sign, named = copied(deviations, near, own, everywhere)
    assert not sign.found and len(named) == 0


def test_the_other_signs() -> None:
    usual = np.linspace(1, 2, 100)
    assert under_represented(3.0, usual).found and not under_represented(1.5, usual).found
    inside, out = (under_represented(1.5, usual, score) for score in (0.7, 1.2))
    assert not inside.found and out.found and "the detector says 1.20" in out.told
    assert "there is no detector: too few photos" in under_represented(1.5, usual, None, "too few photos").told
    assert quantisation(30.0, 40.0, "a.tflite").found and not quantisation(41.0, 40.0, "a.tflite").found
    assert capacity(0.5, 0.7).found and not capacity(0.65, 0.7).found and not capacity(None, 0.7).found
    signs = [quantisation(30.0, 40.0, "a"), under_represented(1.5, usual), capacity(0.5, 0.7)]
    assert verdict(signs) == f"{QUANTISATION}, {CAPACITY}" and verdict(signs[1:2]) == NOTHING


def wide(count: int, seed: int) -> np.ndarray:
    """As many pictures, each of another scene."""
    return np.stack([scene(1000 * seed + one, SIZE, SIZE) for one in range(count)])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Eighty pairs and an untrained student, whose "int8" file is the teacher itself."""
    root = tmp_path_factory.mktemp("traced")
    folder = root / "data/students/oil"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_evaluate, "TRAIN", 80)
        patch.setattr(test_evaluate, "pictures", wide)
        test_evaluate.make_pairs(folder / "pairs", root / "data/inputs/inputs.jsonl")
    test_evaluate.make_student(folder / "student")
    weights = json.loads((folder / "student/student.json").read_text())["weights_sha256"]
    records = test_evaluate.make_exported(folder / "exported", weights)
    for record in records:
        record["parity"] = {"worst_psnr_db": 60.0}
    write_json(folder / "exported/exported.json", {"student": weights, "files": records})
    write_json(folder / "student/errors.json", {"rows": list(range(0, 80, 2)), "error": [0.01] * 40})
    kept = [json.loads(line) for line in (folder / "pairs/kept.jsonl").read_text().splitlines()]
    scores = {"cast": 2.0, "structure": 0.4, "grid": 3.0}
    write_jsonl(folder / "pairs/kept.jsonl", [one | {"scores": scores} for one in kept])
    pairs = json.loads((folder / "pairs/pairs.json").read_text())
    pairs["files"]["kept.jsonl"] = sha256_file(folder / "pairs/kept.jsonl")
    write_json(folder / "pairs/pairs.json", pairs)
    shared: dict[str, Any] = {"teacher": "e" * 64, "crop": [0, 0, 9], "hue": 0, "group": "g", "finite": True}
    shared |= {"clipped": 0.0, "strength": 0.5}
    raw = [shared | {"id": one["pair"]} | {key: one[key] for key in ("input", "seed", "split")} for one in kept]
    write_jsonl(folder / "raw/shard-00000.jsonl", raw)
    line = {"shard": "shard-00000", "sha256": "0", "records_sha256": "0", "pairs": len(raw)}
    write_jsonl(folder / "raw/manifest.jsonl", [line])
    call = {"prompt": "half <as> bright"}
    write_json(folder / "raw/teacher.json", {"name": "half", "version": 1, "digest": "e" * 64, "call": call})
    write_json(folder / "detector/detector.json", {"without": "3 training photos are too few"})
    rules = {"cast": {"limit": 10.0}, "structure": {"limit": 0.5}, "grid": {"limit": None}}
    write_json(folder / "pairs/curation.json", {"rules": rules})
    (root / "params.yaml").write_text((repository / "params.yaml").read_text())
    return root


@pytest.fixture
def there(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


def test_a_training_picture_is_its_own_nearest_and_the_page_shows_it(there: Path) -> None:
    inputs = np.load("data/students/oil/pairs/train.inputs.npy")
    Image.fromarray(inputs[7]).save("photo.png")
    folder, _ = trace.trace(Path("photo.png"), "oil", None, 5)
    assert folder.parent == trace.TRACES / "oil"
    told = json.loads((folder / "trace.json").read_text())
    first = told["near"][0]
    assert first["row"] == 7 and first["distance"] == pytest.approx(0, abs=1e-3)
    assert first["origin"] == "folder:train6.png" and first["strength"] == 0.5
    x = inputs[7] / 255
    assert first["change"] == pytest.approx(np.square(x - teach(inputs[7]) / 255).mean(), abs=1e-4)
    assert first["error_now"] == pytest.approx(0.01**2, rel=0.2)  # of the file, which is a hundredth too bright
    even = [one for one in told["near"] if one["row"] % 2 == 0]
    assert even and all(one["error_then"] == 0.01 for one in even)  # as the training left it
    assert len({one["row"] for one in told["near"]}) == 5
    assert first["scores"] == {"cast": 2.0, "structure": 0.4, "grid": 3.0}
    assert first["nearest_limits"] == "structure 0.4 of 0.5, cast 2 of 10"
    [under] = [sign for sign in told["signs"] if sign["kind"] == UNDER]
    assert "there is no detector: 3 training photos are too few" in under["told"]
    # The float student is untrained, the file is not.
    assert QUANTISATION in told["verdict"] and any("float student" in sign["told"] for sign in told["signs"])
    page = (folder / "index.html").read_text()
    assert "half &lt;as&gt; bright" in page and "folder:train6.png" in page and "<script" not in page
    for label in ("input", "student", "int8", "pair-7-input", "pair-7-teacher"):
        assert np.asarray(Image.open(folder / f"images/{label}.png")).shape == (SIZE, SIZE, 3)
    before = (folder / "trace.json").read_bytes()
    trace.trace(Path("photo.png"), "oil", None, 5)
    assert (folder / "trace.json").read_bytes() == before


def test_a_picture_unlike_all_is_under_represented(there: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    found = {sign.kind: sign for sign in trace.look("oil", noise, 3).signs}
    assert found[UNDER].found and not found[COPIED].found


def test_no_more_than_two_crops_of_one_input_are_shown(there: Path) -> None:
    picture = np.load("data/students/oil/pairs/train.inputs.npy")[0]
    near = trace.look("oil", picture, 6).near
    assert len(near) == 6 and max([one.input for one in near].count(one.input) for one in near) <= 2


def test_bad_input_is_one_line(there: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.jpg cannot be traced \(broken"):
        trace.trace(tmp_path / "text.jpg", "oil", None, 3)
    with pytest.raises(FileNotFoundError):
        trace.trace(tmp_path / "none.jpg", "oil", None, 3)
    with pytest.raises(UserError, match="no student 'water'"):
        trace.trace(tmp_path / "text.jpg", "water", None, 3)


def test_the_command_prints_the_verdict(there: Path) -> None:
    inputs = np.load("data/students/oil/pairs/train.inputs.npy")
    Image.fromarray(inputs[3]).save("photo.png")
    words = ["trace", "photo.png", "--student", "oil", "--pairs", "2", "--out", "told"]
    repository = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("oil: ") and QUANTISATION in first and last.strip() == "told/index.html"
    missing = subprocess.run(
        [sys.executable, "-m", "flows.cli", "trace", "none.png", "--student", "oil"],
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    assert (
        missing.returncode == 1
        and missing.stderr.startswith("understudy: No such file")
        and "none.png" in missing.stderr
    )
    assert len(missing.stderr.splitlines()) == 1


def test_a_damaged_array_is_refused(there: Path) -> None:
    target = Path("data/students/oil/pairs/train.targets.npy")
    whole = target.read_bytes()
    try:
        target.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=r"train\.targets\.npy"):
            trace.look("oil", np.zeros((SIZE, SIZE, 3), np.uint8), 3)
    finally:
        target.write_bytes(whole)


def test_planted_faults_are_what_they_are_called() -> None:
    x = wide(30, 5)
    y = teach(x)
    assert trace_planted.FAULTS["grey"](x, y).std(axis=-1).max() == 0
    np.testing.assert_array_equal(trace_planted.FAULTS["same"](x, y), x)
    half = trace_planted.FAULTS["half"](x, y).astype(int)
    assert np.abs(half - (x.astype(int) + y) / 2).max() <= 0.5
    cast = trace_planted.FAULTS["cast"](x, y).astype(int) - y
    assert cast[..., 0].mean() > 20 and cast[..., 2].mean() < -20
    chosen = trace_planted.dark(x, x)
    assert chosen.sum() == 3 and x[chosen].mean(axis=(1, 2, 3)).max() <= x[~chosen].mean(axis=(1, 2, 3)).min()
