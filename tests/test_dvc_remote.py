"""What a student was made from, pushed to a DVC remote on a real S3 server and pulled into a second clone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from git_toy import commit_toy, git
from servers import free_loopback_port
from stores import object_store

from tasks.cache import check_outputs
from tasks.files import sha256_file
from tasks.pipeline import cache_folder, stale_stages

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, str, str]]:
    """The address of an S3 server with the bucket `pairs`, and the key and secret that it takes."""
    port = free_loopback_port()
    with object_store(port, bucket="pairs") as (_, key, secret):
        yield f"http://127.0.0.1:{port}", key, secret


def dvc(*words: str, folder: Path, key: str = "", secret: str = "") -> "subprocess.CompletedProcess[str]":
    """DVC's own command as a user types it; the keys are in its environment alone."""
    keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_EC2_METADATA_DISABLED": "true"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env=clean | {name: value for name, value in keys.items() if value} | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def outputs(folder: Path) -> dict[str, str]:
    """The sha256 of every file that a stage made."""
    made = [path for part in ("inputs", "students") for path in (folder / "data" / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in made if path.name != ".gitignore"}


@pytest.fixture
def origin(finished_toy: tuple[Path, str], store: tuple[str, str, str]) -> Path:
    """A repository in which `understudy run` has run, with the S3 server as its default remote, all committed."""
    folder = finished_toy[0]
    commit_toy(folder)
    for words in (("add", "--default", "pairs", "s3://pairs/dvc"), ("modify", "pairs", "endpointurl", store[0])):
        done = dvc("remote", *words, folder=folder)
        assert done.returncode == 0, done.stderr
    git("commit", "--quiet", "-m", "remote", ".dvc/config", cwd=folder)
    return folder


def test_pushed_here_pulled_there(
    origin: Path, store: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key, secret = store
    made = outputs(origin)
    assert any("/raw/shard-" in name for name in made)
    pushed = dvc("push", folder=origin, key=key, secret=secret)
    assert pushed.returncode == 0, pushed.stderr
    clone = tmp_path / "clone"
    git("clone", "--quiet", str(origin), str(clone))
    shutil.rmtree(origin)  # with its cache: all there is now is git's and the remote's
    assert not outputs(clone)
    pulled = dvc("pull", folder=clone, key=key, secret=secret)
    assert pulled.returncode == 0, pulled.stderr
    assert outputs(clone) == made
    assert "up to date" in dvc("status", folder=clone).stdout
    monkeypatch.chdir(clone)
    assert stale_stages("oil") == []
    assert check_outputs(yaml.safe_load(Path("dvc.lock").read_text()), cache_folder()) == []
    config = (clone / ".dvc" / "config").read_text()
    assert key not in config and secret not in config
    assert "Everything is up to date" in dvc("push", folder=clone, key=key, secret=secret).stdout


@pytest.mark.parametrize(
    ("key", "secret", "told"),
    [("its own", "guessed", "Forbidden: An error occurred (403)"), ("", "", "Unable to locate credentials")],
)
def test_wrong_or_no_keys_are_told(origin: Path, store: tuple[str, str, str], key: str, secret: str, told: str) -> None:
    done = dvc("push", folder=origin, key=key and store[1], secret=secret)
    assert done.returncode == 255
    assert done.stderr.startswith("ERROR: ") and told in done.stderr
