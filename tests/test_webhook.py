"""What the webhook receiver refuses, over real HTTP; what it takes is in test_events.py, with the servers it needs."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import deliveries
import httpx
import pytest
from deliveries import SECRET, headers, moved, post
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import free_loopback_port

from flows.webhook import MOST_SEEN, WINDOW_S, Delivery, Refused, once, promoted_teacher, serve
from models.errors import TryAgain, UserError
from tasks.webhooks import secret, subscribe

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A receiver whose Prefect server is down: its address, and the folder in which it runs."""
    folder = tmp_path_factory.mktemp("receiver")
    with deliveries.receiver(folder, prefect=f"http://me:hidden@127.0.0.1:{free_loopback_port()}/api") as url:
        yield url, folder


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [
        ({"X-MLflow-Signature": None}, 400, "X-MLflow-Signature is missing"),
        ({"X-MLflow-Delivery-Id": None}, 400, "X-MLflow-Delivery-Id is missing"),
        ({"X-MLflow-Timestamp": ""}, 400, "X-MLflow-Timestamp is missing"),
        ({"X-MLflow-Timestamp": "1e3"}, 400, "not as MLflow writes it"),
        ({"X-MLflow-Delivery-Id": "a.1"}, 400, "not as MLflow writes it"),
        ({"X-MLflow-Signature": "v1,AAAA"}, 401, "the signature is wrong"),
        ({"X-MLflow-Signature": "v1,\u00e4"}, 401, "the signature is wrong"),
        ({"X-MLflow-Delivery-Id": "another"}, 401, "the signature is wrong"),
        ({"X-MLflow-Timestamp": "1700000000"}, 401, "the signature is wrong"),
    ],
)
def test_headers(receiver: tuple[str, Path], given: dict[str, str | None], status: int, told: str) -> None:
    body = moved()
    changed = {name: value for name, value in (headers(body) | given).items() if value is not None}
    raw = {name: value.encode("latin-1") for name, value in changed.items()}
    answer = httpx.post(receiver[0], content=body, headers=raw)
    assert (answer.status_code, told in answer.text, answer.text.count("\n")) == (status, True, 1)


def test_a_changed_body_or_another_secret(receiver: tuple[str, Path]) -> None:
    assert post(receiver[0], moved(version="3"), headers(moved(version="2")))[0] == 401
    assert post(receiver[0], moved(), headers(moved(), key=SECRET + "!"))[0] == 401
    assert post(receiver[0], moved(), headers(moved(), key=""))[0] == 401


@pytest.mark.parametrize(("age_s", "told"), [(WINDOW_S + 5, "s ago"), (-WINDOW_S - 5, "s ahead")])
def test_a_stale_delivery(receiver: tuple[str, Path], age_s: float, told: str) -> None:
    status, line = post(receiver[0], moved(), headers(moved(), age_s=age_s))
    assert (status, told in line) == (401, True)


@pytest.mark.parametrize("age_s", [WINDOW_S - 30, 30 - WINDOW_S])
def test_clocks_may_differ_a_little(receiver: tuple[str, Path], age_s: float) -> None:
    body = moved(alias="champion")
    assert post(receiver[0], body, headers(body, age_s=age_s))[0] == 204


@pytest.mark.parametrize(
    "body",
    [
        moved(alias="champion"),
        moved(name="student.oil"),
        moved(name="log.student.oil"),
        moved(name="xteacher.oil"),
        moved(action="deleted"),
        moved(entity="prompt_alias"),
    ],
)
def test_nothing_to_do(receiver: tuple[str, Path], body: bytes) -> None:
    assert post(receiver[0], body, headers(body)) == (204, "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"entity": "model_version_alias", "action": "created"}',
        moved(data=None),
        moved(data={"name": 1, "alias": "production", "version": "1"}),
        moved(name="teacher.../../x"),
        moved(name="teacher.oil\n"),
        moved(version="2\n"),
        moved(version="two"),
    ],
)
def test_no_webhook_s_body(receiver: tuple[str, Path], body: bytes) -> None:
    status, line = post(receiver[0], body, headers(body))
    assert (status, line) == (400, "the body is not that of a webhook as MLflow 3 sends it\n")


def test_too_much(receiver: tuple[str, Path]) -> None:
    body = b" " * (64 * 1024 + 1)
    assert post(receiver[0], body, headers(body))[0] == 413
    # In chunks, where no length is told before.
    answer = httpx.post(receiver[0], content=(b" " * 1024 for _ in range(65)), headers=headers(body))
    assert answer.status_code == 413


def test_a_caller_that_hangs_up_does_no_harm(receiver: tuple[str, Path]) -> None:
    address = httpx.URL(receiver[0])
    with socket.create_connection((address.host, address.port or 0)) as caller:
        caller.sendall(b"POST /mlflow HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    assert post(receiver[0], moved(alias="x"), headers(moved(alias="x")))[0] == 204


def test_only_what_it_serves(receiver: tuple[str, Path]) -> None:
    base = receiver[0].removesuffix("/mlflow")
    assert httpx.get(f"{base}/health").json() == {"status": "ok"}
    assert [httpx.get(f"{base}{path}").status_code for path in ("/mlflow", "/docs", "/openapi.json")] == [405, 404, 404]


def test_prefect_down_is_said_and_may_be_tried_again(receiver: tuple[str, Path]) -> None:
    body = moved()
    given = headers(body)
    for _ in range(2):
        status, line = post(receiver[0], body, given)
        assert (status, line.startswith("no Prefect server answers at http://127.0.0.1:")) == (503, True)
        assert "hidden" not in line
    assert not (receiver[1] / "data/.work/webhook/seen.json").exists()


def test_a_list_of_deliveries_that_is_none(receiver: tuple[str, Path]) -> None:
    seen = receiver[1] / "data/.work/webhook/seen.json"
    seen.parent.mkdir(parents=True, exist_ok=True)
    for broken in ("{", "[]", '{"a": "b"}'):
        seen.write_text(broken)
        status, line = post(receiver[0], moved(), headers(moved()))
        assert (status, line) == (503, f"{seen} is not a list of deliveries: delete it\n")
    seen.unlink()


def test_what_is_seen_is_kept_for_the_window_and_no_longer(tmp_path: Path) -> None:
    now = 10_000
    done: list[str] = []

    def take(name: str, sent_at: int, at: int) -> None:
        once(tmp_path, Delivery(id=name, sent_at=sent_at, body=b""), lambda: done.append(name), at)

    take("a", now, now)
    take("ahead", now + WINDOW_S, now)
    with pytest.raises(Refused, match="taken before"):
        take("a", now, now + WINDOW_S)
    take("b", now + WINDOW_S, now + WINDOW_S + 1)
    assert json.loads((tmp_path / "seen.json").read_text()) == {"ahead": now + WINDOW_S, "b": now + WINDOW_S}
    assert done == ["a", "ahead", "b"]


def test_what_fails_is_not_seen_and_a_full_list_takes_no_more(tmp_path: Path) -> None:
    def fail() -> None:
        raise TryAgain("down")

    delivery = Delivery(id="a", sent_at=5, body=b"")
    with pytest.raises(TryAgain):
        once(tmp_path, delivery, fail, 5)
    assert not (tmp_path / "seen.json").exists()
    (tmp_path / "seen.json").write_text(json.dumps({str(number): 5 for number in range(MOST_SEEN)}))
    with pytest.raises(Refused) as caught:
        once(tmp_path, delivery, fail, 5)
    assert caught.value.status == 503


def test_the_teacher_and_its_version() -> None:
    assert promoted_teacher(moved(name="teacher.oil-2", version="12")) == ("oil-2", "12")


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "UNDERSTUDY_WEBHOOK_SECRET is not set"),
        ({"UNDERSTUDY_WEBHOOK_SECRET": "short"}, "has 5 characters, 16 are the least"),
        ({"UNDERSTUDY_WEBHOOK_SECRET": SECRET}, "PREFECT_API_URL is not set"),
    ],
)
def test_it_does_not_start_without(env: dict[str, str], told: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from flows.webhook import serve; serve()"]
    around = {"PATH": "/usr/bin", "PREFECT_HOME": str(tmp_path), **env}
    done = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, told in done.stderr.splitlines()[-1]) == (1, True)
    assert "short" not in done.stderr and SECRET not in done.stderr


def test_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_WEBHOOK_SECRET", SECRET)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match="cannot listen on"),
    ):
        serve(port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "told"), [("ftp://x/mlflow", "no address"), ("/mlflow", "no address"), ("http://x/mlflow", "MLflow server")]
)
def test_a_subscription_that_cannot_be(url: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_WEBHOOK_SECRET", SECRET)
    with pytest.raises(UserError, match=told):
        subscribe(url)
    monkeypatch.delenv("UNDERSTUDY_WEBHOOK_SECRET")
    with pytest.raises(UserError, match="openssl"):
        secret()
