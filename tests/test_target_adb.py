"""Target adb: what is pushed, run and removed, by an adb that plays a phone; the reports it gives were recorded."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmark_reports import BOARD_2022, LOGCAT, NO_MODEL
from test_benchmark import add_file, settings
from tiny_litert import relu6_bytes
from tiny_onnx import affine_bytes

from tasks import benchmark

# A phone in a folder: /data/local/tmp is `phone`; each call is noted in `calls`. `mode` says what goes wrong.
ADB = r"""#!/bin/sh
here="$(dirname "$0")"
echo "$@" >> "$here/calls"
mode="$(cat "$here/mode" 2>/dev/null)"
if [ "$1" = devices ]; then echo "List of devices attached"; cat "$here/devices"; echo; exit 0; fi
shift 2
where() { echo "$here/phone/${1#/data/local/tmp/}"; }
case "$1 $2" in
push*) [ "$mode" = full ] && { echo "adb: error: failed to copy: No space left on device" >&2; exit 1; }
    cp "$2" "$(where "$3")"; echo "1 file pushed" ;;
"shell mkdir") mkdir -p "$(where "$4")" ;;
"shell chmod") chmod "$3" "$(where "$4")" ;;
"shell rm") rm -rf "$(where "$4")" ;;
"shell getprop") echo "Toy $3" ;;
"shell uname") echo aarch64 ;;
"shell cat") case "$3" in
    *type) printf 'cpu-0\r\nbattery\r\n' ;;
    *temp) printf '41200\r\n30500\r\n' ;;
    *) echo "cat: $3: Permission denied" >&2; exit 1 ;;
    esac ;;
*) [ "$mode" = gone ] && { echo "adb: error: device 'TOY1' not found" >&2; exit 1; }
    [ -x "$(where "$2")" ] || { echo "/system/bin/sh: $2: not found"; echo ended; exit 0; }
    case "$*" in
    *profiling=true*) cat "$here/profiled" ;;
    *int8*) [ "$mode" = bad ] && cat "$here/bad" || cat "$here/report" ;;
    *) cat "$here/report" ;;
    esac
    echo ended ;;
esac
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the phone, and of the adb that is first on PATH."""
    folder = tmp_path / "adb"
    (folder / "phone").mkdir(parents=True)
    (folder / "adb").write_text(ADB)
    (folder / "adb").chmod(stat.S_IRWXU)
    (folder / "devices").write_text("TOY1\tdevice\n")
    for name, report in (("report", LOGCAT), ("profiled", BOARD_2022), ("bad", NO_MODEL)):
        (folder / name).write_text(report)
    (folder / "benchmark_model").write_text("the tool, for Android")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def student(tmp_path: Path) -> Path:
    for precision in ("fp32", "int8"):
        add_file(tmp_path, f"student.{precision}.tflite", "litert", relu6_bytes())
    add_file(tmp_path, "student.fp32.onnx", "onnx", affine_bytes(2.0, 1.0, shape=(1, 3, 8, 8)))
    return tmp_path


def measure(student: Path, phone: Path, target: str = "adb", **changed: object) -> dict[str, object]:
    asked = settings(targets=[target], benchmark_model=str(phone / "benchmark_model"), **changed)
    result: dict[str, object] = benchmark.measure(student, asked)
    return result


def test_files_are_pushed_run_and_removed(student: Path, phone: Path) -> None:
    result = measure(student, phone, "adb:TOY1", threads=[1, 4], sustained_s=20)
    assert [(one["file"], one["threads"], one["p90_ms"]) for one in result["files"]] == [
        (f"student.{precision}.tflite", threads, 187.533) for precision in ("fp32", "int8") for threads in (1, 4)
    ]
    (told,) = result["targets"]
    assert told["not_measured"] == {}  # the ONNX file is not for it
    assert told["before"]["temperatures_c"] == {"cpu-0": 41.2, "battery": 30.5}
    assert told["before"]["not_readable"] == ["frequencies_mhz", "governors"]
    assert told["machine"]["phone"] == "Toy ro.product.model" and told["by_operator"][0]["operator"] == "CONV_2D"
    assert (told["sustained"]["seconds"], told["sustained"]["last_over_first"]) == (20.0, 1.0)
    assert list((phone / "phone").iterdir()) == []
    calls = (phone / "calls").read_text().splitlines()
    assert calls[0] == "devices" and all(call.startswith("-s TOY1 ") for call in calls[1:])
    assert calls[-1].startswith("-s TOY1 shell rm -rf /data/local/tmp/understudy-")


def test_a_file_that_is_no_model_leaves_the_others(student: Path, phone: Path) -> None:
    (phone / "mode").write_text("bad")
    result = measure(student, phone)
    assert [one["file"] for one in result["files"]] == ["student.fp32.tflite"]
    told = result["targets"][0]["not_measured"]["student.int8.tflite"]
    assert told == "benchmark_model gave no timings: ERROR: The model is not a valid Flatbuffer buffer"


def devices(text: str) -> Callable[[Path], None]:
    return lambda phone: (phone / "devices").write_text(text) and None


def mode(text: str) -> Callable[[Path], None]:
    return lambda phone: (phone / "mode").write_text(text) and None


@pytest.mark.parametrize(
    ("wrong", "target", "told"),
    [
        (devices(""), "adb", "no Android device answers: connect one with USB debugging on (adb devices)"),
        (devices("TOY2\tdevice\n"), "adb:TOY1", "no Android device TOY1 answers: "),
        (devices("TOY1\tunauthorized\n"), "adb", "the Android device TOY1 is unauthorized: unlock it"),
        (devices("TOY1\tdevice\nTOY2\tdevice\n"), "adb", "there are several devices (TOY1, TOY2): name one"),
        (mode("full"), "adb", "adb push failed: adb: error: failed to copy: No space left on device"),
        (mode("gone"), "adb", "adb shell failed: adb: error: device 'TOY1' not found"),
        (lambda phone: (phone / "benchmark_model").unlink(), "adb", "benchmark.benchmark_model is to be the path"),
    ],
)
def test_one_line_says_what_is_wrong(
    student: Path, phone: Path, wrong: Callable[[Path], None], target: str, told: str
) -> None:
    wrong(phone)
    (found,) = measure(student, phone, target)["targets"]
    assert found["failed"].startswith(told)
    assert list((phone / "phone").iterdir()) == []
