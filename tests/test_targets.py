"""Names of targets, which file and time the gate takes of one, and what a machine tells of itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from evidences import champion, good

from tasks.compare import with_time
from tasks.files import write_json
from tasks.gate import decide
from tasks.machine_state import EnergyMeter, state
from tasks.params import load_params
from tasks.phone import on_target
from tasks.target import check_target, fastest_files, judged_file, p90_on_target, public_names, without_addresses
from tasks.timing import slowing

FILES = [
    {"file": f"{runtime}.{precision}", "runtime": runtime, "precision": precision, "sha256": f"{runtime}-{precision}"}
    for runtime in ("litert", "onnx")
    for precision in ("fp32", "int8")
]
BOARD = "ssh:pi@10.0.0.7:2222"


def row(file: str, target: str, p90_ms: float, threads: int = 1, **more: Any) -> dict[str, Any]:
    sha256 = file.replace(".", "-")
    return {"file": file, "sha256": sha256, "target": target, "threads": threads, "p90_ms": p90_ms, **more}


BENCHMARK: dict[str, Any] = {
    "files": [
        row("litert.int8", "local", 3.0),
        row("litert.int8", BOARD, 9.0),
        row("litert.int8", BOARD, 5.0, threads=2),
        row("onnx.fp32", "browser", 7.0, provider="webgpu"),
        row("onnx.fp32", "browser", 20.0, provider="wasm"),
    ],
    "targets": [
        {"target": "local", "not_measured": {}},
        {"target": BOARD, "not_measured": {"onnx.int8": "the board at 10.0.0.7 has no onnxruntime"}},
        {"target": "browser", "not_measured": {}},
        {"target": "adb:emulator-5554", "failed": "no Android device emulator-5554 answers"},
        {"target": "ssh:pi@10.0.0.70", "failed": "connect to host 10.0.0.70 port 22: Connection refused"},
    ],
    "frames": [{"target": BOARD}],
}


@pytest.mark.parametrize(
    "name", ["local", "browser", "ssh:pi@board", BOARD, "adb", "adb:emulator-5554", "adb:10.0.0.2:5555"]
)
def test_names_of_targets(name: str) -> None:
    assert check_target(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "phone",
        "ssh:board",
        "ssh:-oProxyCommand=x@h",
        "ssh:a@-x",
        "ssh:a@b:99999",
        "ssh:a@b c",
        "adb:-s",
        "adb:a;b",
        "local ",
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="a target is local, browser, ssh:user@host"):
        check_target(name)


def test_the_fastest_files_are_this_machines_on_one_thread() -> None:
    rows = [
        {"file": "litert.fp32", "target": "local", "threads": 1, "p50_ms": 5.0},
        {"file": "litert.int8", "target": "local", "threads": 1, "p50_ms": 3.0},
        {"file": "litert.fp32", "target": "local", "threads": 2, "p50_ms": 1.0},
        {"file": "litert.fp32", "target": BOARD, "threads": 1, "p50_ms": 1.0},
    ]
    assert fastest_files(rows, FILES) == {"litert": "litert.int8"}
    rows.append({"file": "onnx.fp32", "threads": 1, "p50_ms": 4.0})  # of before there were targets
    assert fastest_files(rows, FILES) == {"litert": "litert.int8", "onnx": "onnx.fp32"}


def test_the_file_that_is_judged() -> None:
    assert judged_file(FILES, "local")["file"] == "litert.int8"
    assert judged_file(FILES, "browser")["file"] == "onnx.fp32"
    assert judged_file(FILES[2:])["file"] == "onnx.fp32"  # the first, where there is no int8 LiteRT


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("local", (3.0, "litert.int8 on local")),
        (BOARD, (9.0, "litert.int8 on ssh")),
        ("browser", (20.0, "onnx.fp32 on browser")),
        ("adb:emulator-5554", (None, "was not measured on adb: no Android device ... answers")),
        ("ssh:pi@10.0.0.70", (None, "was not measured on ssh-2: connect to host ... port 22: Connection refused")),
        ("ssh:a@b", (None, "was not measured on ssh: it is not among benchmark.targets")),
    ],
)
def test_the_time_on_a_target(target: str, expected: tuple[float | None, str]) -> None:
    assert p90_on_target(BENCHMARK, FILES, target) == expected


def test_a_file_that_a_target_left_out() -> None:
    told = {"target": "local", "not_measured": {"litert.int8": "is no model"}}
    found = p90_on_target(BENCHMARK | {"files": [], "targets": [told]}, FILES, "local")
    assert found == (None, "of litert.int8 was not measured on local: is no model")


def test_addresses_stay_here() -> None:
    told = json.dumps(without_addresses(BENCHMARK))
    for part in ("10.0.0.7", "pi@", "emulator-5554", "2222"):
        assert part not in told, part
    assert [one["target"] for one in without_addresses(BENCHMARK)["targets"]] == [
        "local",
        "ssh",
        "browser",
        "adb",
        "ssh-2",
    ]
    assert public_names(["adb", "adb:x"]) == {"adb": "adb", "adb:x": "adb-2"}


def test_a_benchmark_of_before_is_all_local() -> None:
    old = {"machine": {}, "files": [{key: value for key, value in BENCHMARK["files"][0].items() if key != "target"}]}
    assert p90_on_target(old, FILES, "local") == (3.0, "litert.int8 on local")
    assert without_addresses(old)["files"][0]["target"] == "local"


def test_the_gate_asks_for_its_target(repository: Path) -> None:
    rules = load_params(repository / "params.yaml").students["oil"].gate
    for target, told in (
        (BOARD, "p90 latency of int8 on one thread (litert.int8 on ssh) 9 ms is at most 33 ms"),
        (
            "adb:emulator-5554",
            "p90 latency of int8 on one thread was not measured on adb: no Android device ... answers",
        ),
    ):
        evidence = on_target(good(), BENCHMARK, FILES, target)
        result = next(one for one in decide(evidence, None, rules).results if one.name == "max_p90_ms")
        assert (result.reason, result.passed) == (told, target == BOARD)
    assert on_target(good(), BENCHMARK, FILES, "local") == good()


def test_a_time_taken_in_turn_here_is_not_the_targets(repository: Path) -> None:
    rules = load_params(repository / "params.yaml").students["oil"].gate
    candidate = with_time(on_target(good(), BENCHMARK, FILES, BOARD), 100.0)
    assert (candidate.p90_ms, candidate.p90_in_turn_ms) == (9.0, 100.0)
    results = {one.name: one for one in decide(candidate, champion(p90_ms=50.0), rules).results}
    assert results["max_p90_ms"].passed and results["max_p90_over_champion"].value == 2.0
    assert with_time(good(), 4.0).p90_ms == 4.0
    untimed = on_target(good(), BENCHMARK, FILES, BOARD)
    results = {one.name: one for one in decide(untimed, champion(), rules).results}
    assert results["max_p90_ms"].passed and not results["max_p90_over_champion"].passed


def fake_root(root: Path, temperature: int = 45500, energy: int = 10_000_000) -> Path:
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": str(temperature),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2400000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:0/energy_uj": str(energy),
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "100000000",
        "sys/class/powercap/intel-rapl:0:0/name": "core",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_a_machine_tells_its_heat_speed_and_governor(tmp_path: Path) -> None:
    found = state(fake_root(tmp_path))
    assert found["temperatures_c"] == {"cpu-thermal": 45.5}
    assert (found["frequencies_mhz"], found["highest_mhz"], found["governors"]) == ([1800.0], 2400.0, ["schedutil"])
    assert found["not_readable"] == [] and found["cores"] >= 1


def test_a_machine_that_tells_nothing_says_so(tmp_path: Path) -> None:
    found = state(tmp_path)
    assert found["temperatures_c"] is None
    assert found["not_readable"] == ["frequencies_mhz", "governors", "highest_mhz", "temperatures_c"]
    meter = EnergyMeter(tmp_path)
    meter.start()
    assert meter.stop() == (None, "no energy counter (/sys/class/powercap/intel-rapl)")


@pytest.mark.parametrize(("after", "joules"), [(25_000_000, 15.0), (4_000_000, 94.0)])
def test_energy_even_when_its_counter_begins_anew(tmp_path: Path, after: int, joules: float) -> None:
    meter = EnergyMeter(fake_root(tmp_path))
    meter.start()
    fake_root(tmp_path, energy=after)
    assert meter.stop() == (joules, "")


def test_a_machine_that_slows_down_shows() -> None:
    times = [10.0] * 1500 + [20.0] * 1500
    ends = [sum(times[:1]) / 1000]
    for taken in times[1:]:
        ends.append(ends[-1] + taken / 1000)
    found = slowing(times, ends)
    assert (found["seconds"], found["window_s"], found["last_over_first"]) == (45.0, 10.0, 2.0)
    assert slowing([3.0], [0.003])["last_over_first"] == 1.0


def test_mlflow_is_told_of_every_target_by_listed_names(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    import yaml

    from tasks.facts import FACTS, numbers

    times = {"p50_ms": 1.0, "p99_ms": 3.0, "peak_mib": 9.0}
    step = {"step": "decode", "with": "PyAV", "p50_ms": 2.0, "p90_ms": 2.5}
    frame = {"target": "browser", "threads": 2, "steps": [step], "total": {"p50_ms": 4.0, "p90_ms": 5.0}}
    slow = {"last_over_first": 1.5, "energy": {"joules_per_picture": 0.25, "reason": ""}}
    told = BENCHMARK | {"files": [one | times for one in BENCHMARK["files"]], "frames": [frame]}
    told["targets"] = [one | ({"sustained": slow} if one["target"] == BOARD else {}) for one in BENCHMARK["targets"]]
    params = load_params(repository / "params.yaml")
    monkeypatch.chdir(tmp_path)
    write_json(Path("data/students/oil/exported/exported.json"), {"files": FILES})
    write_json(Path("data/students/oil/benchmark/benchmark.json"), told)
    found = numbers(FACTS["benchmark"](params, "oil", params.students["oil"]).figures)
    assert found["latency.int8.p90_ms"] == 3.0 and found["latency.int8.ssh.p90_ms"] == 9.0
    assert found["latency.int8.ssh.threads-2.p90_ms"] == 5.0
    assert (found["latency.onnx-fp32.browser.p90_ms"], found["latency.onnx-fp32.browser-webgpu.p90_ms"]) == (20.0, 7.0)
    assert (
        found["frames.browser.threads-2.decode.p90_ms"] == 2.5 and found["frames.browser.threads-2.total.p50_ms"] == 4
    )
    assert (found["sustained.ssh.last_over_first"], found["sustained.ssh.energy.joules_per_picture"]) == (1.5, 0.25)
    schema = yaml.safe_load((repository / "mlflow" / "metrics.yaml").read_text())
    known = [re.escape(name).replace("NAME", ".+") for name in (*schema["compared"], *schema["stages"])]
    for name in found:
        assert any(re.fullmatch(pattern, name.replace(".", "/", 1)) for pattern in known), name
