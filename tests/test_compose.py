"""docker/: the compose file against the Compose schema and our own rules, and the Dockerfile against the repository."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import compose
import pytest
import typer
import yaml

from flows.cli import app

SECRET = re.compile(r"PASSWORD|SECRET|KEY|AUTH")
REQUIRED = re.compile(r"\$\{([A-Z][A-Z0-9_]*):\?set \1 in \.env\}")
VERSION = re.compile(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?(@sha256:[0-9a-f]{64})?$")
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "dvc",
    "skimage",
    "sklearn",
    "onnx",
    "onnxruntime",
    "litert_torch",
    "jax",
    "av",
)


@pytest.fixture(scope="module")
def services(repository: Path) -> dict[str, dict[str, Any]]:
    return compose.services(repository)


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "docker" / "Dockerfile").read_text().replace("\\\n", " ")


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_schema_accepts_it_and_refuses_a_misspelt_key(repository: Path, tmp_path: Path) -> None:
    path = repository / "docker" / "compose.yaml"
    assert check(path).returncode == 0, check(path).stdout
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(path.read_text().replace("healthcheck:", "healthchek:", 1))
    assert check(misspelt).returncode == 1


def test_every_service_is_waited_for_until_it_is_right(services: dict[str, dict[str, Any]]) -> None:
    once = {name for name, service in services.items() if service["restart"] == "no"}
    assert once == {"prepare"}
    for name, service in services.items():
        assert ("healthcheck" in service) is (name not in once), name
        for other, wanted in service.get("depends_on", {}).items():
            right = "service_completed_successfully" if other in once else "service_healthy"
            assert wanted == {"condition": right}, f"{name} -> {other}"
    awaited = {other for service in services.values() for other in service.get("depends_on", {})}
    assert set(services) - awaited == {"worker"}


def test_ports_are_published_on_loopback_alone(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"], "prefect": ["127.0.0.1:4200:4200"]}
    assert not any("network_mode" in service for service in services.values())


def test_no_container_has_more_rights_than_it_needs(services: dict[str, dict[str, Any]], dockerfile: str) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        users = re.findall(r"^USER (\S+)", stage(dockerfile, service), re.MULTILINE) if "build" in service else []
        assert service.get("user", users[-1] if users else "root") not in ("root", "0"), name
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name


def stage(dockerfile: str, service: dict[str, Any]) -> str:
    """The part of the Dockerfile that makes a service's image."""
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", dockerfile, re.MULTILINE | re.DOTALL))
    assert service["build"]["target"] in stages
    return stages[service["build"]["target"]]


def test_every_secret_comes_from_env_and_none_has_a_default(repository: Path) -> None:
    text = (repository / "docker" / "compose.yaml").read_text()
    variables = [found[0] for found in compose.VARIABLE.finditer(text)]
    assert len(variables) == text.count("$")
    assert all(REQUIRED.fullmatch(variable) for variable in variables), variables
    example = [line for line in (repository / "docker" / ".env.example").read_text().splitlines() if "=" in line]
    names = [line.removesuffix("=") for line in example if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in names), names
    assert sorted(names) == sorted({REQUIRED.fullmatch(variable)[1] for variable in variables})  # type: ignore[index]
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", text)  # no password inside an address
    ignored = ["git", "check-ignore", "--quiet", "docker/.env"]
    assert subprocess.run(ignored, cwd=repository, timeout=60, check=False).returncode == 0


def test_make_env_fills_in_every_line_once(repository: Path, tmp_path: Path) -> None:
    script = shutil.copy(repository / "docker" / "make_env.sh", tmp_path)
    command = ["sh", script, "https://git.example/team.git"]
    subprocess.run(command, check=True, timeout=60)
    written = (tmp_path / ".env").read_text()
    values = dict(line.split("=", 1) for line in written.splitlines())
    example = (repository / "docker" / ".env.example").read_text()
    assert sorted(values) == sorted(re.findall(r"^([A-Z0-9_]+)=$", example, re.MULTILINE))
    assert min(map(len, values.values())) >= 16 and len(set(values.values())) == len(values)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert (tmp_path / ".env").read_text() == written


def test_what_looks_like_a_secret_is_one(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            assert isinstance(value, str), f"{name}: {key} must be quoted"
            assert not SECRET.search(key) or REQUIRED.fullmatch(value), f"{name}: {key}"


def test_images_are_pinned(repository: Path, services: dict[str, dict[str, Any]], dockerfile: str) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    for name, service in services.items():
        assert VERSION.search(service["image"]), name
        if "build" in service:
            assert service["image"] == f"understudy-{service['build']['target']}:{version}"
    bases = dict(re.findall(r"^ARG (\w+)=(\S+)", dockerfile, re.MULTILINE))
    stages = re.findall(r"^FROM \S+ AS (\w+)", dockerfile, re.MULTILINE)
    for source in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        assert source in stages or VERSION.search(bases[source.strip("${}")]), source


def test_the_images_hold_the_versions_that_the_tests_run_on(repository: Path, dockerfile: str) -> None:
    pinned = {line.partition("==")[0] for line in (repository / "constraints.txt").read_text().splitlines()}
    installs = re.findall(r"pip install ([^&\n]*)", dockerfile)
    assert len(installs) == 6
    for words in (install.split() for install in installs):
        assert "--constraint" in words or words == ["--no-deps", "."]
        named = set(words) - {"--constraint", "constraints.txt", "--no-deps", ".", "--requirement"}
        assert {name for name in named if not name.endswith(".txt")} <= pinned, words


def test_what_is_copied_is_there_and_nothing_else_is_sent(repository: Path, dockerfile: str) -> None:
    copied = {name for words in re.findall(r"^COPY (.*)", dockerfile, re.MULTILINE) for name in words.split()[:-1]}
    lines = (repository / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    for name in copied:
        assert (repository / name).exists(), name


def test_the_worker_serves_the_pool_of_the_deployments(repository: Path, services: dict[str, dict[str, Any]]) -> None:
    deployments = yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]
    (pool,) = {deployment["work_pool"]["name"] for deployment in deployments}
    assert f"--pool={pool}" in services["worker"]["command"]
    assert f"work-pool create {pool} --type process" in (repository / "docker" / "prepare.sh").read_text()


def test_our_own_commands_take_what_they_are_given(repository: Path, services: dict[str, dict[str, Any]]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    program, name, *options = services["webhook"]["command"]
    known = {option for parameter in commands[name].params for option in parameter.opts}
    assert program == "understudy" and {option.partition("=")[0] for option in options} <= known
    assert 'understudy subscribe "$1"' in (repository / "docker" / "prepare.sh").read_text()
    assert [parameter.name for parameter in commands["subscribe"].params if parameter.required] == ["url"]


def test_the_receiver_needs_none_of_the_packages_that_train() -> None:
    # Its image has only what the two servers need.
    script = "import json, sys, flows.cli, flows.webhook; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))
