"""What DVC's cache really holds, against a real DVC repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.cache import check_outputs, drop_corrupt
from tasks.pipeline import cache_folder, run_stage

PAIRS = "data/students/oil/pairs"


def lock() -> Any:
    return yaml.safe_load(Path("dvc.lock").read_text())


def objects(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "files").rglob("*") if path.is_file())


def object_of(out: str, cache: Path) -> Path:
    (md5,) = (entry["md5"] for stage in lock()["stages"].values() for entry in stage["outs"] if entry["path"] == out)
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def rot(path: Path) -> None:
    """Other bytes in a file that stays read-only, as a failing disk leaves it."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()) or b"x")
    path.chmod(mode)


@pytest.fixture
def cache(finished_toy: tuple[Path, str]) -> Path:
    return cache_folder()


def test_a_sound_cache(cache: Path) -> None:
    assert cache == Path(".dvc/cache").absolute()
    assert len(objects(cache)) > 10
    assert check_outputs(lock(), cache) == []
    assert drop_corrupt(lock(), cache) == []


def test_every_object_is_looked_at(cache: Path) -> None:
    for path in [one for one in objects(cache) if "runs" not in one.parts]:
        kept = path.read_bytes()
        rot(path)
        lines = check_outputs(lock(), cache)
        assert [line.endswith(f"is corrupt in DVC's cache ({path})") for line in lines] == [True], path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(kept)
    assert check_outputs(lock(), cache) == []


@pytest.mark.parametrize("damage", [rot, Path.unlink])
@pytest.mark.parametrize("whole", [True, False])
def test_damage_is_named_and_made_again(cache: Path, damage: Callable[[Path], None], whole: bool) -> None:
    listing = object_of(PAIRS, cache)
    (member,) = (entry for entry in yaml.safe_load(listing.read_text()) if entry["relpath"] == "train.inputs.npy")
    file = cache / "files" / "md5" / member["md5"][:2] / member["md5"][2:]
    damaged, name = (listing, PAIRS) if whole else (file, f"{PAIRS}/train.inputs.npy")
    right = file.read_bytes()
    damage(damaged)
    state = "corrupt" if damage is rot else "missing"
    assert [line.partition(" (")[0] for line in check_outputs(lock(), cache)] == [f"{name} is {state} in DVC's cache"]
    assert drop_corrupt(lock(), cache) == ([name] if damage is rot else [])
    assert not damaged.exists()
    # A checkout that lacks the output gets it made again rather than handed back rotten.
    for path in Path(PAIRS).iterdir():
        path.unlink()
    Path(PAIRS).rmdir()
    assert run_stage("curate", "oil", timeout_s=60).outcome == "ran"
    assert (Path(PAIRS) / "train.inputs.npy").read_bytes() == right
    assert check_outputs(lock(), cache) == []


def test_a_lock_that_leads_out_of_the_cache_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    wrong = {"stages": {"a": {"outs": [{"path": "a", "md5": "../../../secret"}, {"path": "b"}]}}}
    assert [line.split(" in ")[0] for line in check_outputs(wrong, tmp_path)] == ["a is missing", "b is missing"]
    assert check_outputs({}, tmp_path) == check_outputs({"stages": None}, tmp_path) == []
