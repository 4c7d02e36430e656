"""Target ssh: a board behind a real sshd on loopback, and what goes wrong with one."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmark_reports import CHROMEBOOK
from boards import board
from test_benchmark import add_file, settings
from tiny_litert import affine_bytes
from tiny_onnx import affine_bytes as onnx_bytes

from tasks import benchmark
from tasks.target_ssh import MODULES, runner

SIZE = 8


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The board's name, and the folder of programs that its PATH begins with."""
    folder = tmp_path_factory.mktemp("board")
    programs = folder / "bin"
    programs.mkdir()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with board(folder, port, programs) as target:
        yield target, programs


@pytest.fixture
def target(there: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """A board whose python3 is this one."""
    name, programs = there
    for old in programs.iterdir():
        old.unlink()
    write_program(programs / "python3", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("UNDERSTUDY_SSH_CONFIG", str(programs.parent / "config"))
    return name


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student with a file for each runtime and three validation pictures."""
    add_file(tmp_path, "student.fp32.tflite", "litert", affine_bytes(0.5, 0.25, (1, SIZE, SIZE, 3)))
    add_file(tmp_path, "student.fp32.onnx", "onnx", onnx_bytes(0.5, 0.25, shape=(1, 3, SIZE, SIZE)))
    (tmp_path / "pairs").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "pairs" / "val.inputs.npy", pictures)
    return tmp_path


def left_behind() -> set[str]:
    return {path.name for path in Path("/tmp").glob("understudy.*")}


def test_a_board_measures_and_is_left_as_it_was(target: str, student: Path) -> None:
    before = left_behind()
    result = benchmark.measure(student, settings(targets=[target], threads=[1, 2], sustained_s=0.2))
    (told,) = result["targets"]
    assert told["not_measured"] == {} and told["machine"]["onnxruntime"] != "none"
    assert told["sustained"]["file"] == "student.fp32.tflite" and told["sustained"]["runs"] > 1
    assert [(one["file"], one["threads"], one["target"]) for one in result["files"]] == [
        (file, threads, target) for file in ("student.fp32.tflite", "student.fp32.onnx") for threads in (1, 2)
    ]
    for one in result["files"]:
        assert 0 < one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] and one["runs"] == 5
        assert one["parity"] == {"max_abs": 0.0, "psnr_db": 100.0, "worst_psnr_db": 100.0}
    assert left_behind() == before


def test_a_board_without_runtimes_measures_by_the_tool(
    target: str, there: tuple[str, Path], student: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    write_program(there[1] / "python3", f'exec {bare}/bin/python "$@"')
    (told,) = benchmark.measure(student, settings(targets=[target]))["targets"]
    missing = (
        "the board's Python has no ai_edge_litert or tflite_runtime (or no numpy); nor is benchmark_model on its PATH"
    )
    assert told["failed"] == missing
    (tmp_path / "report").write_text(CHROMEBOOK)
    write_program(there[1] / "benchmark_model", f"cat {tmp_path}/report")
    result = benchmark.measure(student, settings(targets=[target]))
    (one,) = result["files"]
    assert (one["file"], one["p50_ms"], one["peak_mib"]) == ("student.fp32.tflite", 56.266, 93.2)
    told = result["targets"][0]["not_measured"]
    assert told == {"student.fp32.onnx": "the board's Python has no onnxruntime (or no numpy)"}


def failure(target: str, student: Path) -> str:
    """The one line that benchmark.json has of the only target."""
    (told,) = benchmark.measure(student, settings(targets=[target]))["targets"]
    assert "\n" not in told["failed"]
    return str(told["failed"])


def test_a_board_that_is_off(target: str, student: Path, free_port: int) -> None:
    told = failure(f"{target.rpartition(':')[0]}:{free_port}", student)
    assert told.startswith("the board cannot be reached, or went away (") and "Connection refused" in told


def test_a_board_that_is_not_known(target: str, there: tuple[str, Path], student: Path) -> None:
    known = there[1].parent / "known"
    kept = known.read_text()
    known.write_text("")
    try:
        told = failure(target, student)
    finally:
        known.write_text(kept)
    assert "Host key verification failed" in told and told.endswith("connect once by hand")


def test_a_key_that_is_not_known(target: str, student: Path) -> None:
    told = failure(target.replace("ssh:", "ssh:not-"), student)
    assert "Permission denied" in told and "is the key known to it" in told


def test_a_python_that_is_too_old_or_broken(target: str, there: tuple[str, Path], student: Path) -> None:
    before = left_behind()
    write_program(there[1] / "python3", "echo 'understudy: Python 3.10 is needed, this is 3.8.1' >&2; exit 1")
    told = failure(target, student)
    assert told == "python3 failed on the board (understudy: Python 3.10 is needed, this is 3.8.1)"
    write_program(there[1] / "python3", "echo '{\"rows\": 1}'")
    assert failure(target, student).startswith("the board's answer is not the runner's")
    assert left_behind() == before


def test_a_board_that_goes_away_in_the_middle(target: str, student: Path) -> None:
    before = left_behind()

    def cut() -> None:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            for one in psutil.Process().children():
                with suppress(psutil.Error):  # it may end meanwhile
                    if "python3" in " ".join(one.cmdline()[-2:]):
                        time.sleep(1)  # into the sustained run
                        one.kill()
                        return
            time.sleep(0.02)

    cutting = threading.Thread(target=cut)
    cutting.start()
    result = benchmark.measure(student, settings(targets=[target, "local"], sustained_s=5))
    cutting.join()
    assert result["targets"][0]["failed"] == "ssh was ended by signal 9"
    assert {one["target"] for one in result["files"]} == {"local"}
    ends = time.monotonic() + 10
    while left_behind() != before and time.monotonic() < ends:
        time.sleep(0.1)
    assert left_behind() == before
    assert not [one for one in psutil.process_iter(["cmdline"]) if "runner.pyz" in " ".join(one.info["cmdline"] or [])]


def test_the_runner_is_whole(tmp_path: Path) -> None:
    """What it imports at its top is in it: it starts with nothing else on its path, and says what is missing."""
    (tmp_path / "runner.pyz").write_bytes(runner())
    names = zipfile.ZipFile(tmp_path / "runner.pyz").namelist()
    assert set(names) == {*MODULES, "__main__.py"}
    words = [sys.executable, "-I", "-S", str(tmp_path / "runner.pyz")]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        assert process.wait(60) == 1
        last = process.stderr.read().splitlines()[-1]
    assert last.startswith("FileNotFoundError") and "job.json" in last


def test_the_runner_ends_with_whoever_asked(tmp_path: Path) -> None:
    (tmp_path / "runner.pyz").write_bytes(runner())
    os.mkfifo(tmp_path / "job.json")  # it waits for the job
    with subprocess.Popen([sys.executable, str(tmp_path / "runner.pyz")], stdin=subprocess.PIPE) as process:
        time.sleep(0.5)
        assert process.stdin is not None and process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 1
    assert not tmp_path.exists()
