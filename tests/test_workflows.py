"""The workflow files: GitHub's schema, our rules about secrets, commands that exist, and scripts that work."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from flows.cli import app

FOLDER = Path(__file__).parent.parent / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
TEACHER = FOLDER / "teacher.yml"


def parsed(path: Path) -> dict[str, Any]:
    """The file as GitHub reads it, where `on` is no boolean."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    found["on"] = found.pop(True)
    return found


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(job's name, step) of every step."""
    for name, job in parsed(path)["jobs"].items():
        yield from ((name, step) for step in job["steps"])


def script(job: str, text: str) -> str:
    """The one script of a job of teacher.yml that holds `text`."""
    (found,) = [step["run"] for name, step in steps(TEACHER) if name == job and text in step.get("run", "")]
    return str(found)


def run_script(text: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A script as GitHub's `shell: bash` runs it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    around = {"PATH": f"{folder}/bin:/usr/bin:/bin", **env}
    return subprocess.run(command, cwd=folder, env=around, capture_output=True, text=True, timeout=20, check=False)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_github_s_schema(path: Path) -> None:
    vendored = resources.files("check_jsonschema.builtin_schemas.vendor") / "github-workflows.json"
    jsonschema.validate(parsed(path), json.loads(vendored.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_rules(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    for _, step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", step["uses"])
        # A branch's name pasted into a script is a script; env carries it as what it is.
        assert "${{" not in step.get("run", "")
        syntax = subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, capture_output=True, check=False)
        assert syntax.returncode == 0, syntax.stderr


def test_code_of_a_pull_request_runs_beside_no_secret_and_no_token_that_writes() -> None:
    jobs = parsed(TEACHER)["jobs"]
    assert {name for name, job in jobs.items() if "permissions" in job} == {"comment"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    assert not [step for step in jobs["comment"]["steps"] if "checkout" in step.get("uses", "")]
    assert {name for name, job in jobs.items() if "secrets." in json.dumps(job)} == {"request"}
    assert jobs["request"]["if"] == "github.event_name == 'push'"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_exists_with_its_options(path: Path) -> None:
    command = get_command(app)
    for _, step in steps(path):
        for line in re.findall(r"bin/understudy ([^<>|&\n]+)", step.get("run", "")):
            args = shlex.split(line)
            at, name = command, "understudy"
            while hasattr(at, "commands"):
                at, name = at.commands[args[0]], args.pop(0)
            at.make_context(name, args)  # a UsageError for an option or argument it does not know or lacks


def test_teacher_yml_uses_the_three_commands() -> None:
    used = {found for _, step in steps(TEACHER) for found in re.findall(r"bin/understudy (\w+)", step.get("run", ""))}
    assert used == {"bumps", "try", "request"}


def test_bumped_students_become_an_output(tmp_path: Path) -> None:
    program(tmp_path / ".venv/bin/understudy", 'echo "told: $*" >&2; echo oil; echo sketch')
    done = run_script(script("try", "bumps"), tmp_path, BASE="main", GITHUB_OUTPUT=str(tmp_path / "output"))
    assert (done.returncode, done.stderr) == (0, "told: bumps --against origin/main\n")
    assert (tmp_path / "output").read_text() == "students=oil sketch \n"
    assert (tmp_path / "bumped.txt").read_text() == "oil\nsketch\n"


def test_a_git_that_fails_fails_the_check(tmp_path: Path) -> None:
    program(tmp_path / ".venv/bin/understudy", "exit 1")
    done = run_script(script("try", "bumps"), tmp_path, BASE="main", GITHUB_OUTPUT=str(tmp_path / "output"))
    assert done.returncode == 1


def test_each_student_is_tried_and_one_failure_fails_the_check(tmp_path: Path) -> None:
    # Reads its input too: what a training run reads must not be the list of students.
    program(tmp_path / ".venv/bin/understudy", 'cat; [ "$2" = sketch ] && exit 1; echo "| $2 |" > "${@: -1}"')
    (tmp_path / "bumped.txt").write_text("sketch\noil\n")
    done = run_script(script("try", "understudy try"), tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))
    assert done.returncode == 1, done.stderr
    table = (tmp_path / "gate.md").read_text()
    assert table.startswith("<!-- understudy gate -->\n")
    assert "### sketch\n\nThe retrain ended without a verdict" in table
    assert table.endswith("| oil |\n")
    assert (tmp_path / "summary").read_text() == table


@pytest.mark.parametrize(
    ("known", "called"),
    [
        ("", "pr comment 7 --repo me/it --body-file gate.md\n"),
        (
            "41\n42\n",
            "api --silent --method PATCH repos/me/it/issues/comments/42 --field body=@gate.md\n",
        ),
    ],
)
def test_one_comment_is_brought_up_to_date(known: str, called: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(known)
    program(tmp_path / "bin/gh", 'case "$*" in *--paginate*) cat known;; *) echo "$*" >> called;; esac')
    done = run_script(script("comment", "gh api"), tmp_path, REPOSITORY="me/it", NUMBER="7", GH_TOKEN="none")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "called").read_text() == called


@pytest.mark.parametrize(("url", "output"), [("", ""), ("http://prefect/api", "known=yes\n")])
def test_without_a_server_the_merge_is_left_to_the_schedule(url: str, output: str, tmp_path: Path) -> None:
    (tmp_path / "output").touch()
    text = script("request", "known=yes")
    done = run_script(text, tmp_path, PREFECT_API_URL=url, GITHUB_OUTPUT=str(tmp_path / "output"))
    assert done.returncode == 0
    assert (tmp_path / "output").read_text() == output
    assert ("::notice::" in done.stdout) == (not url)
