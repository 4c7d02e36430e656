"""The command line in real processes: what a user reads, and the exit code."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import gone, wait_until

from flows.doctor import examine
from tasks.pipeline import STAGES


def understudy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=env)


def test_a_run_prints_a_line_per_stage_and_the_headline(finished_toy: tuple[Path, str]) -> None:
    lines = finished_toy[1].splitlines()
    assert [line.split()[:2] for line in lines[: len(STAGES)]] == [[stage, "ran"] for stage in STAGES]
    assert all(re.search(r"\d\.\d s$", line) for line in lines[: len(STAGES)])
    rest = "\n".join(lines[len(STAGES) :])
    for told in (
        "report  data/students/oil/report/index.html",
        "bundle  data/students/oil/bundle",
        "make ui",
        "explained effect 0.70",
        "colour affine 0.30",
        "5.0 ms (p90 6.0) on 1 thread",
        "gate    passed: every rule is met",
    ):
        assert told in rest


def test_a_second_run_has_nothing_to_do_and_says_the_same(finished_toy: tuple[Path, str]) -> None:
    code = (
        "import sys; from flows.cli import main; sys.argv = ['understudy', 'run', 'oil']\n"
        "try: main()\n"
        "finally: print([name for name in ('prefect', 'mlflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("oil: nothing has changed, nothing to do\n")
    assert done.stdout.endswith("[]\n")
    headline = finished_toy[1][finished_toy[1].index("oil:\n") :]
    assert headline in done.stdout


def test_status(finished_toy: tuple[Path, str]) -> None:
    done = understudy("status")
    assert done.returncode == 0, done.stderr
    assert "oil-painter version 1 (painter)" in done.stdout
    assert "stale" not in done.stdout
    assert "passed: every rule is met" in done.stdout
    (finished_toy[0] / "seed").write_text("2")
    assert re.search(r"stale +ingest .*understudy run oil", understudy("status").stdout)


def test_status_before_the_first_run(toy: Path) -> None:
    done = understudy("status")
    assert done.returncode == 0, done.stderr
    assert re.search(r"up to date +nothing", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "watercolour"), "no student 'watercolour' in params.yaml; there are: oil"),
        (("run", "oil", "--all"), "not both"),
    ],
)
def test_a_wrong_argument_is_one_line(toy: Path, arguments: tuple[str, ...], told: str) -> None:
    done = understudy(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr


def test_a_typo_in_params_is_one_line(toy: Path) -> None:
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("min_side:", "min_sied:"))
    done = understudy("run")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"understudy: params.yaml: .*ingest\.min_si(d|e)e?d?e? ?.*\n", done.stderr)


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = understudy("run")
    assert done.returncode == 1
    assert done.stderr == "understudy: no params.yaml here: run this from the repository's root\n"


def test_no_prefect_server_where_one_is_configured(toy: Path, free_port: int) -> None:
    done = understudy("run", PREFECT_API_URL=f"http://127.0.0.1:{free_port}/api")
    assert done.returncode == 75  # a second try can help
    assert len(done.stderr.splitlines()) == 1
    assert "no Prefect server answers" in done.stderr
    assert "unset PREFECT_API_URL" in done.stderr


@pytest.mark.server
def test_a_failing_stage_is_its_own_line_and_a_failed_run_in_mlflow(finished_toy: tuple[Path, str]) -> None:
    (finished_toy[0] / "mode").write_text("fail train")
    (finished_toy[0] / "seed").write_text("2")
    done = understudy("run")
    assert done.returncode == 1
    assert done.stderr == "train: the toy is broken: mend it\n"
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ingest", "exportability", "generate", "curate"]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri="sqlite:///mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("oil")
    newest = client.search_runs([experiment.experiment_id], "tags.failed.stage = 'train'")[0]
    assert newest.info.status == "FAILED"
    assert newest.data.tags["failed.reason"] == "the toy is broken: mend it"
    inside = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{newest.info.run_id}'")
    statuses = {run.data.tags["stage.name"]: run.info.status for run in inside}
    assert statuses == dict.fromkeys(("ingest", "exportability", "generate", "curate"), "FINISHED") | {
        "train": "FAILED"
    }


@pytest.mark.server
def test_no_mlflow_server_costs_nothing_but_lineage(finished_toy: tuple[Path, str], free_port: int) -> None:
    (finished_toy[0] / "seed").write_text("2")
    done = understudy("run", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port}")
    assert done.returncode == 75  # a second try can help
    lines = set(done.stderr.splitlines())  # said again after the one retry
    assert len(lines) == 1
    assert lines.pop().startswith(f"lineage: MLflow at http://127.0.0.1:{free_port} does not answer: start")
    again = understudy("run")
    assert again.returncode == 0, again.stderr
    outcomes = [line.split()[1] for line in again.stdout.splitlines()[: len(STAGES)]]
    assert outcomes == ["unchanged"] * (len(STAGES) - 1) + ["ran"]
    times = [line.split()[2] for line in again.stdout.splitlines()[: len(STAGES)]]
    assert times[:-1] == ["0.0"] * (len(STAGES) - 1)  # no process was started to find that out


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_make_run_leaves_no_process_behind(
    finished_toy: tuple[Path, str], repository: Path, number: signal.Signals
) -> None:
    folder = finished_toy[0]
    shutil.copy(repository / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt", "requirements-litert.txt"):
        (folder / name).touch()
    program = folder / ".venv" / "bin" / "understudy"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m flows.cli "$@"\n')
    program.chmod(0o755)
    (folder / ".venv" / ".made").touch()
    (folder / "mode").write_text("hang train")
    (folder / "seed").write_text("2")
    make = subprocess.Popen(["make", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((folder / "hanging").exists, timeout_s=120)
    below = psutil.Process(make.pid).children(recursive=True)
    assert len(below) >= 4  # the command line, Prefect's server, DVC, the stage
    if number == signal.SIGKILL:
        make.kill()
    else:  # Ctrl-C goes to make and the command line alike
        below[0].send_signal(signal.SIGINT)
    _, told = make.communicate(timeout=60)
    for process in below:
        wait_until(lambda process=process: gone(process.pid))  # type: ignore[misc]
    assert "Traceback" not in told
    if number == signal.SIGINT:
        assert "stopped; run again to go on from here" in told
    assert (
        subprocess.run(["make", "-q", "env"], check=False).returncode == 0
    )  # and the environment still counts as made


def test_doctor(repository: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.chdir(repository)
    done = understudy("doctor", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port}")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert len(failed) == 1
    assert "mlflow server" in failed[0]
    assert "MLFLOW_TRACKING_URI" in failed[0]


def test_doctor_turns_a_broken_check_into_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("what a\nmess")

    monkeypatch.setattr("flows.doctor.CHECKS", {"thing": broken})
    (finding,) = examine()
    assert (finding.verdict, finding.told) == ("fail", "RuntimeError: what a mess")
