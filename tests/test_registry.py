"""Teachers, students and the log in a real MLflow database, and behind a real MLflow server."""

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from models.errors import UserError
from models.teachers.digests import teacher_digest
from tasks import registry, teachers
from tasks.bumps import Base, look
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.registry import CHAMPION, STUDENT, all_states, append, follow, note, read_log, read_state, record

PIN = {"kind": "painter", "name": "oil-painter", "version": 1, "style": "oil"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "mlflow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_MLFLOW", str(folder))
        with connected() as client:
            client.search_experiments()
    return folder


@pytest.fixture
def client(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("UNDERSTUDY_MLFLOW", str(database))
    with connected() as connection:
        yield connection


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A student of the test's own: all share one database."""
    return request.node.name.removeprefix("test_").replace("_", "-")


def registered(client: Any, student: str, key: str) -> int:
    tags = {"bundle.sha256": key, "teacher.digest": key}
    made = registry.register_student(client, student, key=key, run_id="", tags=tags, reason="good")
    note(client, student, record("registered", "new", key=key, version=made.version, teacher=key))
    return made.version


def alias(client: Any, student: str, which: str = CHAMPION) -> int:
    return int(client.get_registered_model(STUDENT + student).aliases.get(which, 0))


def test_promotion_moves_the_alias_and_the_copy_of_the_state(client: Any, name: str) -> None:
    version = registered(client, name, "a")
    assert (alias(client, name), alias(client, name, "challenger")) == (0, version)
    counted, state = note(client, name, record("promoted", "better", key="a", version=version, decided_on=0))
    assert counted and state.champion == version == alias(client, name)
    assert alias(client, name, "challenger") == 0
    model = client.get_registered_model(STUDENT + name)
    assert json.loads(model.tags["state"])["champion"] == version
    assert [entry.kind for entry in read_log(client, STUDENT + name)] == ["registered", "promoted"]


def test_registering_again_gives_the_same_version(client: Any, name: str) -> None:
    assert registered(client, name, "a") == registered(client, name, "a")
    assert registered(client, name, "b") == 2


def test_two_promotions_at_once(client: Any, name: str) -> None:
    one, two = registered(client, name, "a"), registered(client, name, "b")
    moves = [record("promoted", "x", key=str(v), version=v, decided_on=0) for v in (one, two)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda move: note(client, name, move), moves))
    assert sorted(counted for counted, _ in answers) == [False, True]
    winner = moves[[counted for counted, _ in answers].index(True)].version
    assert read_state(client, name).champion == winner
    assert alias(client, name) == follow(client, name).champion == winner


def test_a_process_that_died_between_log_and_alias_is_made_good(client: Any, name: str) -> None:
    version = registered(client, name, "a")
    append(client, STUDENT + name, record("promoted", "better", key="a", version=version))
    assert alias(client, name) == 0
    states, behind = all_states(client)
    assert states[name].champion == version  # read from the log, as the copy is shorter
    assert name in behind
    follow(client, name)
    assert alias(client, name) == version
    assert name not in all_states(client)[1]
    assert [entry.kind for entry in read_log(client, STUDENT + name)] == ["registered", "promoted"]


def test_an_alias_moved_by_hand_is_put_back_and_told(client: Any, name: str) -> None:
    one, two = registered(client, name, "a"), registered(client, name, "b")
    note(client, name, record("promoted", "better", key="a", version=one))
    client.set_registered_model_alias(STUDENT + name, CHAMPION, str(two))
    assert name in all_states(client)[1]
    state = follow(client, name)
    assert alias(client, name) == state.champion == one
    last = read_log(client, STUDENT + name)[-1]
    assert last.kind == "restored" and str(two) in last.reason
    assert state.reason == "better"


def test_the_log_rebuilds_the_state_when_aliases_and_copy_are_lost(client: Any, name: str) -> None:
    version = registered(client, name, "a")
    _, state = note(client, name, record("promoted", "better", key="a", version=version))
    client.delete_registered_model_alias(STUDENT + name, CHAMPION)
    client.delete_registered_model_tag(STUDENT + name, "state")
    assert follow(client, name) == state
    assert alias(client, name) == version


def test_a_version_that_is_not_there(client: Any, name: str) -> None:
    registered(client, name, "a")
    with pytest.raises(UserError, match="no version 7; there are: 1"):
        registry.version(client, name, 7)


def test_a_bundle_that_is_not_the_registered_one_is_refused(client: Any, name: str, finished_toy: Any) -> None:
    bundle = finished_toy[0] / "data/students/oil/bundle"
    experiment = client.create_experiment(name, artifact_location=(finished_toy[0] / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    registry.keep_bundle(client, run, bundle, [])
    tags = {"bundle.sha256": registry.sha256_file(bundle / "manifest.json")}
    made = registry.register_student(client, name, key="k", run_id=run, tags=tags, reason="")
    got = registry.fetch_bundle(client, made, finished_toy[0] / "got")
    assert (got / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    other = registry.register_student(client, name, key="k", run_id=run, tags={"bundle.sha256": "0" * 64}, reason="")
    with pytest.raises(UserError, match="is not the registered one"):
        registry.fetch_bundle(client, other, finished_toy[0] / "again")
    kept = next((finished_toy[0] / "artifacts").rglob("MODEL_CARD.md"))
    kept.write_text("changed")
    with pytest.raises(UserError, match="sha256"):
        registry.fetch_bundle(client, made, finished_toy[0] / "again")
    assert not (finished_toy[0] / "again").exists()


def test_a_teacher_is_registered_once_per_digest_and_its_alias_is_logged(client: Any) -> None:
    one = teachers.register_teacher(client, PIN)
    assert teachers.register_teacher(client, PIN) == one
    two = teachers.register_teacher(client, PIN | {"version": 2})
    assert two == one + 1
    assert "oil-painter" not in teachers.production_pins(client)[0]
    assert teachers.set_production(client, "oil-painter", two, "better")
    assert not teachers.set_production(client, "oil-painter", two, "again")
    assert teachers.production_pins(client) == ({"oil-painter": PIN | {"version": 2}}, [])
    assert teachers.note_moves(client) == []
    client.set_registered_model_alias("teacher.oil-painter", "production", str(one))
    (found,) = teachers.note_moves(client)
    assert (found.version, found.previous) == (one, two) and "outside" in found.reason
    log = read_log(client, "teacher.oil-painter")
    assert [(entry.kind, entry.version) for entry in log] == [("production", two), ("production", one)]
    with pytest.raises(UserError, match="no version 9"):
        teachers.set_production(client, "oil-painter", 9, "")


def test_a_teacher_that_cannot_be_read_stops_no_other(client: Any) -> None:
    teachers.register_teacher(client, PIN | {"name": "fine"})
    teachers.set_production(client, "fine", 1, "")
    client.create_registered_model("teacher.broken")
    client.create_model_version("teacher.broken", "understudy:x", tags={"pin": '{"kind": "painter"}'})
    client.set_registered_model_alias("teacher.broken", "production", "1")
    pins, wrong = teachers.production_pins(client)
    assert "fine" in pins and "broken" not in pins
    assert len(wrong) == 1 and "teacher.broken version 1" in wrong[0]
    client.delete_registered_model("teacher.broken")


def copies(client: Any, database: Path, count: int) -> None:
    """`count` more students like the first, as rows: through MLflow's interface it would take minutes."""
    tables = ("registered_models", "model_versions", "model_version_tags", "registered_model_tags")
    with closing(sqlite3.connect(database / "mlflow.db")) as connection, connection:
        for table in (*tables, "registered_model_aliases"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = connection.execute(f"SELECT * FROM {table} WHERE name LIKE '%student.many'").fetchall()
            place = columns.index("name")
            more = [
                tuple(f"{value}-{number}" if at == place else value for at, value in enumerate(row))
                for number in range(count)
                for row in rows
            ]
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", more)


def test_a_look_at_a_thousand_students_takes_seconds(client: Any, database: Path, repository: Path) -> None:
    one, two = registered(client, "many", "a"), registered(client, "many", "b")
    pinned = teacher_digest(PIN)
    note(client, "many", record("promoted", "better", key="a", version=one, teacher=pinned, pinned=pinned))
    note(client, "many", record("refused", "worse", key="b", version=two, teacher="other"))
    copies(client, database, 999)
    params = load_params(repository / "params.yaml")
    block = params.students["oil"]
    students = {f"many-{number}": block for number in range(999)} | {"many": block}
    bumped = block.model_copy(update={"teacher": block.teacher.model_copy(update={"version": 2})})
    students["many-500"] = bumped
    base = Base(commit="c", code="code", params=params.model_copy(update={"students": students, "classifiers": {}}))
    look(client, base)  # what the first use of MLflow costs is no part of it
    started = time.process_time()  # the database is in this process; a busy machine does not count
    seen = look(client, base)
    seconds = time.process_time() - started
    due = [finding.student for finding in seen.findings if finding.job]
    assert due == ["many-500"]
    assert [name for name in seen.behind if name.startswith("many")] == []
    assert {finding.told for finding in seen.findings if not finding.job} == {"up to date"}
    print(f"a look at 1,000 students: {seconds:.2f} CPU s")
    assert seconds < 5, f"{seconds:.1f} s"
