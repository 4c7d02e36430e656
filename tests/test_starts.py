"""Start weights kept elsewhere than beside their record, and the champion's as a start; in a real MLflow database."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from git_toy import commit_toy, git
from made_once import made_once
from test_train import STUDENT as TRAINED
from test_train import write_repository

from models.errors import UserError
from tasks.bumps import Base
from tasks.files import read_json, sha256_bytes, sha256_file, write_json
from tasks.learning import start_record
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.registry import keep_student, note, record, register_student
from tasks.starts import FIELDS, Start, champion_start, find_weights, kept_weights
from tasks.train import train

SHA = sha256_bytes(b"weights")


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MLflow of the test's own; it takes seconds to make, once."""

    def make(root: Path) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UNDERSTUDY_MLFLOW", str(root / "mlflow"))
            with connected() as client:
                client.search_experiments()
        return ""

    root, _ = made_once(tmp_path_factory, "empty-mlflow", make)
    shutil.copytree(root / "mlflow", tmp_path / "registry")
    monkeypatch.setenv("UNDERSTUDY_MLFLOW", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def client(database: Path) -> Iterator[Any]:
    with connected() as connection:
        yield connection


def registered(client: Any, folder: Path, about: dict[str, Any], weights: bytes = b"weights", keep: bool = True) -> int:
    """Register a student of these weights, as a retrain does; returns its version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(weights)
    write_json(folder / "student.json", {**about, "weights_sha256": sha256_bytes(weights)})
    found = client.get_experiment_by_name("oil")
    place = (folder.parent / "artifacts").as_uri()
    experiment = found.experiment_id if found else client.create_experiment("oil", artifact_location=place)
    run = client.create_run(experiment).info.run_id
    if keep:
        keep_student(client, run, folder)
    tags = {"bundle.sha256": run, "weights.sha256": sha256_bytes(weights)}
    return register_student(client, "oil", key=run, run_id=run, tags=tags, reason="").version


def promote(client: Any, number: int, upon: int = 0) -> int:
    """Make a version the champion; returns the record's number, to move on from."""
    _, state = note(client, "oil", record("promoted", "better", version=number, decided_on=upon))
    assert state.champion == number
    return state.moved


def test_a_record_alone_trains_as_its_folder_does(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    write_repository(tmp_path, repository, steps=4)
    monkeypatch.chdir(tmp_path)
    params = load_params()
    train(params, "oil", params.student("oil"))
    shutil.copytree(TRAINED, tmp_path / "before")
    about = read_json(TRAINED / "student.json")
    sha256 = about["weights_sha256"]
    whole = params.student("oil").model_copy(update={"init": "before"})
    train(params, "oil", whole)
    wanted = {path.name: path.read_bytes() for path in TRAINED.iterdir()}

    write_json(tmp_path / "alone/student.json", {key: about[key] for key in FIELDS if key in about})
    alone = params.student("oil").model_copy(update={"init": "alone"})
    with pytest.raises(UserError, match="alone is a record of weights that lie neither at") as caught:
        train(params, "oil", alone)
    assert "\n" not in str(caught.value)
    registered(client, tmp_path / "kept", about, (tmp_path / "before/weights.safetensors").read_bytes())
    for _ in ("from the registry", "kept here"):
        shutil.rmtree(tmp_path / "data/.work/oil")
        train(params, "oil", alone)
        assert {path.name: path.read_bytes() for path in TRAINED.iterdir()} == wanted
        shutil.rmtree(tmp_path / "artifacts", ignore_errors=True)
    kept_weights(sha256).write_bytes(b"rotten")
    with pytest.raises(UserError, match="nor in a registry"):
        train(params, "oil", alone)
    assert json.loads(wanted["student.json"])["init"] == sha256


def test_weights_are_fetched_once_and_believed_by_their_digest_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "alone"
    folder.mkdir()
    registered(client, tmp_path / "without", {}, keep=False)
    registered(client, tmp_path / "kept", {})
    assert find_weights(folder, SHA) == kept_weights(SHA)
    made = kept_weights(SHA).stat().st_ino
    find_weights(folder, SHA)
    assert kept_weights(SHA).stat().st_ino == made
    kept_weights(SHA).write_bytes(b"rotten")
    assert find_weights(folder, SHA).read_bytes() == b"weights"

    kept_weights(SHA).unlink()
    (stored,) = (tmp_path / "artifacts").rglob("weights.safetensors")
    stored.write_bytes(b"changed")
    with pytest.raises(UserError, match="the weights of oil version 2 in MLflow are not the registered ones"):
        find_weights(folder, SHA)
    assert not kept_weights(SHA).exists()
    (folder / "weights.safetensors").write_bytes(b"others")  # beside the record they have to be the right ones too
    with pytest.raises(UserError, match="init: .* has sha256"):
        find_weights(folder, SHA)


@pytest.fixture
def started(toy: Path, client: Any) -> Callable[[], Start]:
    """What a retrain of the toy's student would begin with at HEAD."""
    commit_toy(toy)
    return lambda: champion_start("oil", git("rev-parse", "HEAD"))


def change(toy: Path, section: str, **values: Any) -> None:
    """Commit other values in `retrain` or in the student's block."""
    raw = yaml.safe_load((toy / "params.yaml").read_text())
    (raw["students"]["oil"] if section == "oil" else raw[section]).update(values)
    (toy / "params.yaml").write_text(yaml.safe_dump(raw))
    git("commit", "--quiet", "-am", "change", cwd=toy)


def test_a_retrain_begins_with_the_champion_and_with_no_other(
    toy: Path, client: Any, started: Callable[[], Start]
) -> None:
    whole = {"architecture": load_params().student("oil").architecture.model_dump(), "size": 64, "ranks": {}}
    whole |= {"compress": {"prune": 0.0}, "val": {"l1": 0.1}}
    assert started() == Start(told="it begins with its init, start, as it has no champion")
    one = registered(client, toy.parent / "one", whole)
    registered(client, toy.parent / "two", whole, b"of one that was refused")
    moved = promote(client, one)
    expected = {key: whole[key] for key in ("architecture", "size", "compress", "ranks")} | {"weights_sha256": SHA}
    assert started() == Start(told="it begins with the champion, version 1", record=expected)
    assert kept_weights(SHA).read_bytes() == b"weights"
    assert git("status", "--porcelain") == ""

    for number, (about, keep, told) in enumerate(
        (
            (whole | {"ranks": {"decoder.0": 8}}, True, "was cut after its training (compress)"),
            (whole | {"compress": {"prune": 0.5}}, True, "was cut after its training (compress)"),
            (whole | {"architecture": {"encoder": "other"}}, True, "has another architecture"),
            (whole | {"control": "strength"}, True, "has another control"),
            (whole, False, "was registered without its weights"),
        ),
        3,
    ):
        weights = str(number).encode()
        moved = promote(client, registered(client, toy.parent / str(number), about, weights, keep), moved)
        found = started()
        assert found == Start(told=f"it begins with its init, start: the champion, version {number}, {told}")
        assert not kept_weights(sha256_bytes(weights)).exists()


def test_a_slider_begins_with_a_champion_that_has_one(
    toy: Path, client: Any, started: Callable[[], Start], tmp_path: Path
) -> None:
    rounding = {"steps": 0, "rate": 0.1, "weight": 1.0}  # which knows no slider
    change(toy, "oil", control={"by": "strength", "baked": []}, quantise_aware=rounding)
    block = load_params().student("oil")
    record = {"architecture": block.architecture.model_dump(), "control": "strength"}
    promote(client, registered(client, tmp_path / "one", record))
    found = started().record
    assert found == record | {"weights_sha256": SHA}
    write_json(tmp_path / "start/student.json", found)
    assert start_record(tmp_path / "start", block) == SHA


def test_the_shipped_start_weights_fit_the_shipped_students(repository: Path) -> None:
    shipped = repository / "models/start/oil"
    for block in load_params(repository / "params.yaml").students.values():
        assert start_record(shipped, block) == sha256_file(shipped / "weights.safetensors")
    assert sum(file.stat().st_size for file in shipped.iterdir()) < 3e6


def test_init_is_kept_where_it_is_asked_for_or_merged(toy: Path, client: Any, started: Callable[[], Start]) -> None:
    whole = {"architecture": load_params().student("oil").architecture.model_dump()}
    promote(client, registered(client, toy.parent / "one", whole))
    assert started().record == whole | {"weights_sha256": SHA}
    change(toy, "retrain", start="init")
    assert started() == Start(told="it begins with its init, start, as retrain.start says")
    change(toy, "retrain", start="champion")
    text = (toy / "params.yaml").read_text()
    profiles, block = text.split("\nstudents:\n")
    both = profiles.replace("      init: start", "      init: &s start") + "\nstudents:\n"
    (toy / "params.yaml").write_text(both + block.replace("    init: start", "    init: *s"))
    git("commit", "--quiet", "-am", "shared")
    assert started().record == whole | {"weights_sha256": SHA}  # it can be set for this student alone
    (toy / "params.yaml").write_text(
        profiles + "\nstudents:\n" + block.replace("    init: start", "    <<: {init: start}")
    )
    git("commit", "--quiet", "-am", "merged")
    assert "init comes from a merge (<<): write it into the student's own block" in started().told


def test_the_merge_of_a_retrains_branch_is_no_other_retrain(toy: Path, started: Callable[[], Start]) -> None:
    del started
    before = Base.at("HEAD")
    (toy / "models/start/champions/oil").mkdir(parents=True)
    (toy / "models/start/champions/oil/student.json").write_text("{}")
    change(toy, "oil", init="models/start/champions/oil")
    git("add", "models")
    git("commit", "--quiet", "-m", "merged")
    after = Base.at("HEAD")
    assert (after.code, after.settings("oil")) == (before.code, before.settings("oil"))
    # Where init decides, another one is another retrain; and so is other code.
    change(toy, "retrain", start="init")
    asked = Base.at("HEAD").settings("oil")
    change(toy, "oil", init="start")
    assert len({asked, Base.at("HEAD").settings("oil"), before.settings("oil")}) == 3
    (toy / "models/start/other.json").write_text("{}")
    git("add", "models")
    git("commit", "--quiet", "-m", "code")
    assert Base.at("HEAD").code != before.code
