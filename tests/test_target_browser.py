"""Target browser in a real Chromium: times, threads, outputs that agree, and what goes wrong."""

import shutil
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from test_benchmark import add_file, settings
from tiny_litert import affine_bytes as litert_bytes
from tiny_onnx import affine_bytes

from models.errors import UserError
from tasks import benchmark, browser_server
from tasks.browser_server import RUNTIME, runtime_files, serving
from tasks.target_browser import NAMES
from tasks.target_parity import beyond

SIZE = 64
SHAPE = (1, 3, SIZE, SIZE)


@pytest.fixture
def browser() -> None:
    """A test that needs them skips without Chromium, Playwright and ONNX Runtime for browsers."""
    if not any(map(shutil.which, NAMES)):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra)")
    if not RUNTIME.is_dir():
        pytest.skip("no ONNX Runtime for browsers: make browser")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student with a file for LiteRT, one for browsers, one that is no model, one of another contract."""
    add_file(tmp_path, "student.fp32.tflite", "litert", litert_bytes(0.5, 0.25, (1, SIZE, SIZE, 3)))
    add_file(tmp_path, "student.fp32.onnx", "onnx", affine_bytes(0.5, 0.25, shape=SHAPE))
    add_file(tmp_path, "broken.onnx", "onnx", b"no model")
    add_file(tmp_path, "grey.onnx", "onnx", affine_bytes(0.5, 0.25, shape=(1, 1, SIZE, SIZE)))
    (tmp_path / "pairs").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "pairs" / "val.inputs.npy", pictures)
    return tmp_path


@pytest.mark.usefixtures("browser")
def test_a_browser_measures_what_it_can_run(student: Path) -> None:
    result = benchmark.measure(student, settings(targets=["browser"], threads=[1, 2], sustained_s=0.2, frames=4))
    (told,) = result["targets"]
    assert told["not_measured"]["broken.onnx"]
    assert "takes float32 [1,1,64,64] and gives float32" in told["not_measured"]["grey.onnx"]
    assert set(told["not_measured"]) == {"broken.onnx", "grey.onnx"}  # the LiteRT file is not for it
    assert told["machine"]["browser"].startswith("Chromium ") and told["machine"]["cores"] >= 1
    assert told["machine"]["webgpu"] or told["machine"]["webgpu_note"]
    assert told["sustained"]["runs"] > 1 and told["sustained"]["energy"]["reason"]
    rows = [one for one in result["files"] if one["provider"] == "wasm"]
    assert [(one["file"], one["threads"]) for one in rows] == [("student.fp32.onnx", 1), ("student.fp32.onnx", 2)]
    for one in rows:
        assert 0 < one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] and one["runs"] == 5
        for reference in (one["parity"], one["parity"]["litert"]):
            assert reference["max_abs"] <= 1e-6 and reference["worst_psnr_db"] == 100
    assert [one["threads"] for one in result["frames"]] == [1, 2]
    for one in result["frames"]:
        assert [step["step"] for step in one["steps"]] == ["decode", "resize", "network", "composite"]
        assert one["frames"] == 4 and one["total"]["p50_ms"] > 0


@pytest.mark.usefixtures("browser")
def test_another_function_than_here_is_not_timed(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.target_parity as target_parity

    made_here, other = target_parity.made_here, np.float32(0.01)
    monkeypatch.setattr(target_parity, "made_here", lambda *words: [one + other for one in made_here(*words)])
    result = benchmark.measure(student, settings(targets=["browser"]))
    told = result["targets"][0]["failed"]
    assert told == "its outputs differ from ONNX Runtime's here by up to 0.01, more than 0.001"


@pytest.mark.usefixtures("browser")
def test_a_browser_that_goes_away_leaves_the_others(student: Path) -> None:
    def words(one: psutil.Process) -> str:
        with suppress(psutil.Error):  # it may end meanwhile
            return " ".join(one.cmdline())
        return ""

    def kill() -> None:
        ends = time.monotonic() + 100
        while time.monotonic() < ends:
            started = {one: words(one) for one in psutil.Process().children(recursive=True)}
            if any("--type=renderer" in line for line in started.values()):
                time.sleep(1)
                # The browser itself: it alone has been told how to be driven, and is of no type.
                for one, line in started.items():
                    if "--remote-debugging-p" in line and "--type" not in line:
                        one.kill()
                return
            time.sleep(0.05)

    killing = threading.Thread(target=kill)
    killing.start()
    result = benchmark.measure(student, settings(targets=["browser", "local"], sustained_s=5))
    killing.join()
    assert result["targets"][0]["failed"].startswith("the browser went away in the middle (")
    assert {one["target"] for one in result["files"]} == {"local"}


@pytest.mark.usefixtures("browser")
def test_a_browser_that_cannot_start_is_one_line(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "chromium"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'no display' >&2\nexit 1\n")
    fake.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    (told,) = benchmark.measure(student, settings(targets=["browser"]))["targets"]
    assert told["failed"].startswith(f"Chromium at {fake} cannot start (") and "\n" not in told["failed"]


def test_files_for_browsers_are_checked(tmp_path: Path) -> None:
    listed = tmp_path / "served.json"
    listed.write_text('{"ort.mjs": "' + "0" * 64 + '"}')
    with pytest.raises(UserError, match="is not installed: run make browser"):
        runtime_files(tmp_path, listed)
    (tmp_path / "ort.mjs").write_text("another")
    with pytest.raises(UserError, match=r"ort\.mjs is not the file of .*served\.json"):
        runtime_files(tmp_path, listed)


def test_the_lock_file_names_no_host() -> None:
    text = (browser_server.PAGES / "package-lock.json").read_text()
    assert "http" not in text and text.count('"integrity": "sha512-') >= 10
    assert browser_server.runtime_version() in text


def test_only_what_is_served_is_served() -> None:
    with serving({"/page.html": b"hello"}) as origin:
        with urllib.request.urlopen(f"{origin}/page.html?x=1", timeout=5) as answer:
            assert answer.read() == b"hello"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        for path in ("/../../etc/passwd", "/tasks/params.py", "/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{origin}{path}", timeout=5)
        host, port = origin.removeprefix("http://").split(":")
        assert host == "127.0.0.1"
    with pytest.raises(OSError), socket.create_connection((host, int(port)), timeout=1):
        pass


@pytest.mark.parametrize(
    ("precision", "found", "wrong"),
    [
        ("fp32", {"max_abs": 9e-4}, False),
        ("fp32", {"max_abs": 2e-3}, True),
        ("fp16", {"max_abs": 1e-2}, False),
        ("fp16", {"max_abs": 3e-2}, True),
        ("int8", {"max_abs": 0.2, "worst_psnr_db": 37.0}, False),
        ("int8", {"max_abs": 0.9, "worst_psnr_db": 19.0}, True),
    ],
)
def test_tolerances(precision: str, found: dict[str, Any], wrong: bool) -> None:
    assert bool(beyond(precision, found, "torch's")) == wrong


def test_a_student_without_onnx_files(tmp_path: Path) -> None:
    add_file(tmp_path, "student.fp32.tflite", "litert", litert_bytes(0.5, 0.25, (1, SIZE, SIZE, 3)))
    (told,) = benchmark.measure(tmp_path, settings(targets=["browser"]))["targets"]
    assert told["failed"] == "there is no ONNX file, which is what a browser runs"
