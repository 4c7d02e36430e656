"""Teachers behind an API, by Google's real client, against a server of its wire format (tests/picture_api.py)."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_api import GEMINI, IMAGEN, Api, picture_api

from models.errors import TryAgain, UserError
from models.teachers import genai, ledger, load_teacher
from models.teachers.digests import teacher_digest
from tasks.generate import generate
from tasks.params import parse_params, parse_yaml
from tasks.pictures import pixel_digest, write_input
from tasks.records import Input, Pair, read_records, write_records

KEY = "a-secret-key"
PIN = {"kind": "genai", "name": "painted", "version": 1, "model": IMAGEN, "call": {"prompt": "in oil"}, "size": 0}
PIN |= {"calls_per_minute": 1e6, "max_calls": 100, "price_per_call": 0.02, "max_cost": 100.0}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A server, to which the environment leads the client; waits are short."""
    monkeypatch.setattr(ledger, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(genai, "TIMEOUT_MS", 1000)
    with picture_api() as running:
        for name, value in {
            "GOOGLE_API_KEY": KEY,
            "GOOGLE_VERTEX_BASE_URL": running.address,
            "GOOGLE_GEMINI_BASE_URL": running.address,
        }.items():
            monkeypatch.setenv(name, value)
        yield running


def teacher(store: Path, **changed: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_ANSWERS", str(store))
        return load_teacher(PIN | changed)


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("model", [IMAGEN, GEMINI])
def test_what_is_asked_and_what_comes_back(api: Api, tmp_path: Path, model: str) -> None:
    found = teacher(tmp_path, model=model)
    assert found.digest == teacher_digest(PIN | {"model": model, "max_cost": 1.0})  # the limits are no part of it
    made = found(pictures(), [1, 2, 3])
    np.testing.assert_allclose(made, 1 - pictures() / 255, atol=1e-6)
    assert len(api.asked) == 3
    asked = api.asked[0]
    assert asked["headers"]["X-Goog-Api-Key" if "X-Goog-Api-Key" in asked["headers"] else "x-goog-api-key"] == KEY
    assert model in asked["path"] and "in oil" in json.dumps(asked["body"])
    if model == GEMINI:
        assert {one["body"]["generationConfig"]["seed"] for one in api.asked} == {1, 2, 3}


def test_nothing_is_paid_twice(api: Api, tmp_path: Path) -> None:
    first = teacher(tmp_path)(pictures(), [1, 2, 3])
    again = teacher(tmp_path)
    np.testing.assert_array_equal(again(pictures(), [1, 2, 3]), first)
    assert len(api.paid) == 3
    again(pictures(), [1, 2, 4])  # another seed is another picture
    teacher(tmp_path, call={"prompt": "in ink"})(pictures(), [1, 2, 3])  # as are other words
    assert len(api.paid) == 7


def test_a_busy_or_broken_server_is_asked_again(api: Api, tmp_path: Path) -> None:
    api.plan[:] = ["busy", "down", "cut", "ok"]
    made = teacher(tmp_path)(pictures(1), [1])
    np.testing.assert_allclose(made, 1 - pictures(1) / 255, atol=1e-6)
    assert len(api.asked) == 4 and len(api.paid) == 2  # the cut one was worked on too
    assert teacher(tmp_path).ledger.made == 2


def test_one_that_does_not_answer_in_time_may_have_been_paid(api: Api, tmp_path: Path) -> None:
    api.plan[:] = ["slow", "ok"]
    made = teacher(tmp_path)(pictures(1), [1])
    np.testing.assert_allclose(made, 1 - pictures(1) / 255, atol=1e-6)
    assert teacher(tmp_path).ledger.made == 2


def test_a_server_that_stays_busy_is_given_up_for_now(api: Api, tmp_path: Path) -> None:
    api.plan[:] = ["busy"] * ledger.ATTEMPTS
    with pytest.raises(TryAgain, match=f"{IMAGEN} answers 429 .*, {ledger.ATTEMPTS} times: run again later") as caught:
        teacher(tmp_path)(pictures(1), [1])
    assert KEY not in str(caught.value) and "***" in str(caught.value)
    assert teacher(tmp_path).ledger.made == 0
    api.plan[:] = ["cut"] * 10
    with pytest.raises(TryAgain, match="a picture that cannot be read .* 3 times"):
        teacher(tmp_path)(pictures(1), [1])
    assert len(api.paid) == 3


def test_no_server(api: Api, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", f"http://127.0.0.1:{free_port}")
    with pytest.raises(TryAgain, match="cannot be reached"):
        teacher(tmp_path)(pictures(1), [1])
    assert teacher(tmp_path).ledger.made == 0


@pytest.mark.parametrize("model", [IMAGEN, GEMINI])
def test_what_is_refused_for_safety_is_a_pair_without_a_picture(api: Api, tmp_path: Path, model: str) -> None:
    api.plan[:] = ["refuse"]
    for _ in range(2):  # the second time nobody is asked
        assert np.isnan(teacher(tmp_path, model=model)(pictures(1), [1])).all()
    assert len(api.asked) == 1
    (kept,) = tmp_path.rglob("*.json")
    assert "well known" in kept.read_text() or "IMAGE_SAFETY" in kept.read_text()


@pytest.mark.parametrize("cap", [{"max_calls": 2}, {"max_cost": 0.05}])
def test_the_cap_stops_and_nothing_is_lost(api: Api, tmp_path: Path, cap: dict[str, Any]) -> None:
    capped = teacher(tmp_path, **cap)
    with pytest.raises(UserError, match=r"stopped at its cap of 2 calls \(0.04 spent\): raise .*; all answers so far"):
        capped(pictures(4), [1, 2, 3, 4])
    assert len(api.paid) == 2
    with pytest.raises(UserError, match="cap"):
        teacher(tmp_path, **cap)(pictures(4), [1, 2, 3, 4])  # nor does the next run begin anew
    assert len(api.paid) == 2
    teacher(tmp_path)(pictures(4), [1, 2, 3, 4])
    assert len(api.paid) == 4


def test_a_call_that_was_cut_off_counts_as_made(api: Api, tmp_path: Path) -> None:
    found = teacher(tmp_path)
    found(pictures(1), [1])
    with (found.folder / ledger.LEDGER).open("a") as file:
        file.write('{"key": "x", "what": "called", "at": 1}\n{"key": "y", "wh')
    assert teacher(tmp_path).ledger.made == 2
    again = teacher(tmp_path)
    again(pictures(2), [1, 2])
    assert teacher(tmp_path).ledger.made == 3


def test_calls_keep_to_their_rate(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("models.teachers.ledger.time.monotonic", lambda: now[0])
    found = teacher(tmp_path, calls_per_minute=30.0)
    monkeypatch.setattr(found.ledger, "wait", sleep)
    for key in "abc":
        found.ledger.reserve(key)
    now[0] += 100
    found.ledger.reserve("d")
    assert slept == [0.0, 2.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"call": {"prompt": "in oil", "guidance": 3}}, "call.guidance: Extra inputs are not permitted"),
        ({"model": GEMINI, "call": {"prompt": "in oil", "temprature": 3}}, "call.temprature: Extra inputs"),
    ],
)
def test_a_misspelt_setting_is_named(api: Api, tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        teacher(tmp_path, **changed)(pictures(1), [1])


def test_a_call_that_is_wrong_is_told_once_and_without_the_key(
    api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.plan[:] = ["bad"] * 9
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(UserError, match="answers 400 .told: bad for \\*\\*\\*") as caught,
    ):
        teacher(tmp_path)(pictures(1), [1])
    assert not isinstance(caught.value, TryAgain) and len(api.asked) == 1
    assert KEY not in caplog.text


def test_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in genai.KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set GOOGLE_API_KEY, or Vertex AI's"):
        teacher(tmp_path, model=GEMINI)


def test_a_run_that_the_cap_stopped_goes_on_and_pays_no_pair_twice(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = parse_yaml((Path(__file__).parent.parent / "params.yaml").read_text())
    block = raw["students"]["oil"]
    pairs = block["pairs"] | {"size": 64, "train_crops": 5}
    raw["generate"] |= {
        "shard_size": 2,
        "batch_size": 2,
        "workers": 2,
        "cluster": "127.0.0.9:1",
    }  # not asked: one ledger
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    digest = pixel_digest(pixels)
    one = Input(digest=digest, origin="x.png", licence="CC0", width=96, height=96, clip="", group="x", split="train")
    Path("data/inputs/images").mkdir(parents=True)
    write_records(Path("data/inputs/inputs.jsonl"), [one])
    write_input(Path("data/inputs/images"), one.digest, pixels)

    def run(**limits: Any) -> None:
        changed = block | {"teacher": PIN | limits, "pairs": pairs, "train": block["train"] | {"crop": 64}}
        params = parse_params(raw | {"students": {"oil": changed}})
        generate(params, "oil", params.student("oil"))

    api.plan[:] = ["ok", "refuse"]
    with pytest.raises(UserError, match="stopped at its cap of 3 calls"):
        run(max_calls=3)
    assert not Path("data/students/oil/raw").exists()
    run()
    assert len(api.paid) == 5
    records = read_records(Path("data/students/oil/raw/shard-00000.jsonl"), Pair)
    assert sorted((pair.finite, bool(pair.refused)) for pair in records) == [(False, True), (True, False)]
    (refused,) = [pair.refused for pair in records if pair.refused]
    assert "well known" in refused
    assert KEY not in "".join(path.read_text() for path in Path("data").rglob("*.json*"))
