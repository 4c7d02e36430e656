"""Real searches at their smallest, in real processes: killed in the middle of a trial, and over budget."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import wait_until
from test_search import OUT, OWN, write_space
from test_train import write_repository

from tasks.files import read_json

FLAT: dict[str, Any] = {
    "encoders": ["patches4_8_16", "patches8_8_16"],
    "width": {"low": 1.0, "high": 1.0, "step": 1.0},
    # patches8 with four levels cannot halve 64 pixels that often.
    "levels": {"low": 2, "high": 5, "step": 1},
    "finest": {"low": 8, "high": 16, "step": 8},
}


@pytest.fixture
def here(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_repository(tmp_path, repository)
    raw = yaml.safe_load((tmp_path / "params.yaml").read_text())
    block = raw["students"]["oil"]
    block["architecture"] = OWN | {"head": "pixel-shuffle"}
    block["gate"] |= {"min_sharpness_ratio": 0.0, "max_sharpness_ratio": 1e9, "min_chroma_ratio": 0.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    write_space(tmp_path, **FLAT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    return tmp_path


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "tasks.search", "--student", "oil", "--space", "space.yaml", "--steps", "60", *more]


def run(*more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*more), capture_output=True, text=True, check=False, timeout=800)


def outcome() -> list[Any]:
    """What must not depend on kills: everything but what a clock said."""
    keys = ("trial", "point", "architecture", "losses", "state", "reason", "rungs", "quality")
    return [{key: row[key] for key in keys} for row in read_json(OUT / "search.json")["trials"]]


@pytest.mark.timeout(1800)
@pytest.mark.slow  # each new architecture is converted twice: some minutes
def test_killed_in_the_middle_of_a_trial_and_run_again_gives_the_same(here: Path) -> None:
    whole = run("--trials", "3")
    assert whole.returncode == 0, whole.stderr
    expected = outcome()
    states = [row["state"] for row in expected]
    assert states[0] == "finished" and len(states) == 3
    for folder in (OUT, Path("data/.work"), Path("mlflow")):
        shutil.rmtree(here / folder)

    def there(pattern: str) -> bool:
        return bool(list(here.glob(f"data/.work/oil/search-*/{pattern}")))

    # In its first trial, when that has a checkpoint; then when that has ended and another goes on.
    moments = (lambda: there("*.safetensors"), lambda: there("trial-0.npy") and not there("*.safetensors"))
    for moment in moments:
        process = subprocess.Popen(command("--trials", "3"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(moment, timeout_s=400)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not OUT.exists()
    again = run("--trials", "3")
    assert again.returncode == 0, again.stderr
    assert outcome() == expected
    assert "search: trial 0" not in again.stderr  # it had ended
    assert not list(here.glob("data/.work/oil/search-*/*.safetensors"))


@pytest.mark.timeout(900)
@pytest.mark.slow  # two conversions
def test_over_budget_is_one_line_and_exit_code_1(here: Path) -> None:
    done = run("--trials", "2", "--max-p90-ms", "0.0001")
    assert done.returncode == 1
    assert "no trial of 2 keeps the budget of 0.0001 ms on local" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    rows = read_json(OUT / "search.json")["trials"]
    assert all(row["state"] == "refused" and row["reason"] and not row["rungs"] for row in rows)
    assert (here / "mlflow" / "mlflow.db").exists()
