"""The report of benchmark_model in numbers, on reports that people recorded."""

import benchmark_reports as reports
import pytest

from models.errors import UserError
from tasks.benchmark_model import arguments, by_operator, delegates, parse


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (reports.PHONE_2020, (249.684, 254.474, 254.474, 138.8, 50, 16.242, 360.262)),
        (reports.BOARD_2022, (2950.34, 3189.954, 3189.954, 46.1, 50, 17.187, 3512.391)),
        (reports.CHROMEBOOK, (56.266, 60.236, 60.236, 93.2, 1061, 3.337, 81.913)),
        (reports.LOGCAT, (141.253, 187.533, 195.121, 73.4, 25, 92.318, 187.533)),
    ],
)
def test_a_report_in_numbers(report: str, expected: tuple[float, ...]) -> None:
    found = parse(report)
    keys = ("p50_ms", "p90_ms", "p99_ms", "peak_mib", "runs", "init_ms", "first_ms")
    assert tuple(found[key] for key in keys) == expected
    assert found["measured_by"].startswith(
        "benchmark_model: p90 is its p95" if "p95" in report else "benchmark_model: p50"
    )


def test_one_run_and_no_memory() -> None:
    cut = reports.BOARD_2022.replace("count=50 first=2990275 curr=2913402", "").replace("Memory footprint", "")
    cut = "\n".join(line for line in cut.splitlines() if not line.strip().startswith("min="))
    found = parse(cut)
    assert (found["runs"], found["p90_ms"], found["peak_mib"]) == (1, 3512.391, None)


def test_operators_longest_first_without_those_of_the_preparation() -> None:
    rows = by_operator(reports.BOARD_2022)
    assert [(row["operator"], row["count"]) for row in rows][:2] == [("CONV_2D", 15), ("DEPTHWISE_CONV_2D", 13)]
    assert rows[0]["mean_ms"] == 2651.853 and len(rows) == 5
    assert by_operator(reports.PHONE_2020) == []


def test_delegates() -> None:
    expected = {"delegate": "TfLiteXNNPackDelegate", "nodes": 58, "of": 58, "partitions": 1}
    assert delegates(reports.CHROMEBOOK) == [expected]


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (reports.NO_MODEL, "The model is not a valid Flatbuffer buffer"),
        ("", "it said nothing"),
        ("/system/bin/sh: benchmark_model: not found\n", "benchmark_model: not found"),
    ],
)
def test_a_report_without_timings_is_one_line(report: str, told: str) -> None:
    with pytest.raises(UserError, match="gave no timings") as caught:
        parse(report)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_the_tool_is_asked_for_what_is_wanted() -> None:
    words = arguments("/tmp/x.tflite", 2, warmup=0, runs=50, at_least_s=10)
    assert {"--graph=/tmp/x.tflite", "--num_threads=2", "--num_runs=50", "--min_secs=10"} <= set(words)
