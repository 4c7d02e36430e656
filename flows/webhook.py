"""The receiver of MLflow's registry webhooks: a teacher's alias `production` moved, so tell Prefect.

`understudy webhook` serves it on loopback. It reads UNDERSTUDY_WEBHOOK_SECRET and PREFECT_API_URL, and keeps the
deliveries it has taken in data/.work/webhook/seen.json. POST /mlflow answers
  202  the Prefect server has the event             401  wrong signature, or sent more than 5 minutes ago or ahead
  204  genuine, but nothing to do                   408  the body took too long to come
  400  headers are missing, or no webhook's body    409  this delivery was taken before
  413  a body over 64 KiB                           503  Prefect did not take the event, and the delivery is not
                                                         marked as seen: MLflow tries again (three times)
each but 204 with a line that says why. GET /health answers 200.
"""

import asyncio
import hmac
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.events import announce, check_configured
from models.errors import UserError
from tasks.files import read_json, write_json
from tasks.params import NAME
from tasks.stage import WORK, locked, one_line
from tasks.webhooks import EVENT, secret, signature

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

FOLDER = WORK / "webhook"
LARGEST = 64 * 1024  # bytes; MLflow's own are about 200
WINDOW_S = 300
BODY_S = 10.0
MOST_SEEN = 10_000
# Neither may hold a dot, so that ID.SECONDS.BODY can be read in one way only.
DELIVERY = re.compile(r"[A-Za-z0-9_-]{1,64}")
SECONDS = re.compile(r"[0-9]{1,12}")
VERSION = re.compile(r"[0-9]{1,18}")
PREFIX = "teacher."
ALIAS = "production"


class Refused(Exception):
    """The HTTP status of an answer, and the line that goes with it."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A genuine and recent call of MLflow's."""

    id: str
    sent_at: int  # seconds since 1970
    body: bytes


def verified(headers: Mapping[str, str], body: bytes, key: str, now: float) -> Delivery:
    """The delivery, if it is signed with `key` and was sent about `now`; Refused otherwise."""
    names = ("X-MLflow-Signature", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp")
    missing = [name for name in names if not headers.get(name)]
    if missing:
        raise Refused(400, f"the header {missing[0]} is missing: is a secret set for this webhook in MLflow?")
    signed, delivery, sent_at = (headers[name] for name in names)
    if not DELIVERY.fullmatch(delivery) or not SECONDS.fullmatch(sent_at):
        raise Refused(400, "X-MLflow-Delivery-Id or X-MLflow-Timestamp is not as MLflow writes it")
    # As bytes: compare_digest takes no text beyond ASCII.
    if not hmac.compare_digest(signed.encode(), signature(key, delivery, sent_at, body).encode()):
        raise Refused(401, "the signature is wrong: give MLflow the receiver's secret (understudy subscribe)")
    age = now - int(sent_at)
    if abs(age) > WINDOW_S:
        when = f"{abs(age):.0f} s {'ago' if age > 0 else 'ahead'}"
        raise Refused(401, f"sent {when}, {WINDOW_S} s are the most: set both machines' clocks")
    return Delivery(id=delivery, sent_at=int(sent_at), body=body)


def promoted_teacher(body: bytes) -> tuple[str, str] | None:
    """(name, version) of the teacher that this webhook says was promoted; None when it says something else."""
    try:
        said = json.loads(body)
        data = said["data"]
        event = f"{said['entity']}.{said['action']}"
        if event != EVENT or data["alias"] != ALIAS or not data["name"].startswith(PREFIX):
            return None
        teacher, version = data["name"].removeprefix(PREFIX), data["version"]
        if not NAME.fullmatch(teacher) or not VERSION.fullmatch(version):
            raise ValueError("no name or version of ours")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(400, "the body is not that of a webhook as MLflow 3 sends it") from None
    return teacher, version


def once(folder: Path, delivery: Delivery, act: Callable[[], None], now: float) -> None:
    """Do `act` unless this delivery was taken before, and mark it as taken when that is done.

    Cut off in between, the act is done again when MLflow tries again: twice does no harm, never would.
    """
    path = folder / "seen.json"
    with locked(folder / "lock"):
        try:
            known = read_json(path) if path.exists() else {}
            # What is older would be refused as stale, so that a list of the window is a whole memory.
            seen = {name: sent_at for name, sent_at in known.items() if sent_at >= now - WINDOW_S}
        except (UserError, AttributeError, TypeError):
            raise UserError(f"{path} is not a list of deliveries: delete it") from None
        if delivery.id in seen:
            raise Refused(409, "this delivery was taken before")
        if len(seen) >= MOST_SEEN:
            raise Refused(503, f"{MOST_SEEN} deliveries within {WINDOW_S} s: no more are taken for now")
        act()
        write_json(path, seen | {delivery.id: delivery.sent_at})


def answer(headers: Mapping[str, str], body: bytes, key: str, folder: Path) -> tuple[int, str]:
    """The HTTP status and the line with which one call is answered."""
    now = time.time()
    try:
        delivery = verified(headers, body, key, now)
        found = promoted_teacher(delivery.body)
        if found is None:
            return 204, "nothing to do"
        teacher, version = found
        once(folder, delivery, lambda: announce(teacher, version, source="webhook"), now)
    except Refused as refused:
        return refused.status, str(refused)
    except (UserError, OSError) as error:
        return 503, one_line(error)
    return 202, f"told Prefect that teacher {teacher} version {version} was promoted"


async def _body(request: "Request") -> bytes:
    """The whole body, or Refused as soon as it is too long or too slow."""
    from starlette.requests import ClientDisconnect

    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for some in request.stream():
                found += some
                if len(found) > LARGEST:
                    raise Refused(413, f"the body has more than {LARGEST} bytes")
    except ClientDisconnect:
        raise Refused(400, "the caller hung up before its body was whole") from None
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_S:g} s") from None
    return bytes(found)


def create_app(key: str, folder: Path) -> "FastAPI":
    """The service, checking against the secret `key` and remembering in `folder`."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import PlainTextResponse, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/mlflow")
    async def mlflow(request: Request) -> Response:
        try:
            body = await _body(request)
            status, line = await run_in_threadpool(answer, request.headers, body, key, folder)
        except Refused as refused:
            status, line = refused.status, str(refused)
        print(f"webhook: {status} {line}", flush=True)
        return Response(status_code=204) if status == 204 else PlainTextResponse(line + "\n", status)

    return app


def serve(host: str = "127.0.0.1", port: int = 8080) -> None:
    """Receive webhooks until SIGTERM or Ctrl-C; UserError when the secret, Prefect's address or the port is wrong."""
    key = secret()
    check_configured()
    import uvicorn

    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port} ({error}): choose another address or port") from None
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "limit_concurrency": 100}
    config = uvicorn.Config(create_app(key, FOLDER.absolute()), timeout_graceful_shutdown=15, **settings)
    with listener:
        print(f"webhook: http://{host}:{listener.getsockname()[1]}/mlflow (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
