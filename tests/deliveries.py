"""Calls to the webhook receiver as MLflow makes them, and as a forger would; and the receiver itself, as a process."""

import base64
import hashlib
import hmac
import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from servers import free_loopback_port, running

SECRET = "a secret for tests, no other"


@contextmanager
def receiver(folder: Path, *, prefect: str) -> Iterator[str]:
    """`understudy webhook` in `folder`, telling the Prefect server at `prefect`; yields the address to post to."""
    port = free_loopback_port()
    command = [sys.executable, "-m", "flows.cli", "webhook", "--port", str(port)]
    env = {"UNDERSTUDY_WEBHOOK_SECRET": SECRET, "PREFECT_API_URL": prefect}
    with running(command, health=f"http://127.0.0.1:{port}/health", env=env, cwd=folder):
        yield f"http://127.0.0.1:{port}/mlflow"


def moved(name: str = "teacher.oil", alias: str = "production", version: str = "2", **other: object) -> bytes:
    """The body with which MLflow tells of an alias."""
    data = {"name": name, "alias": alias, "version": version}
    said = {"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-22T10:00:00+00:00"}
    return json.dumps({**said, "data": data, **other}).encode()


def headers(body: bytes, *, key: str = SECRET, age_s: float = 0, delivery: str = "") -> dict[str, str]:
    """The three headers of a delivery sent `age_s` ago, signed by `key`."""
    delivery, sent_at = delivery or str(uuid.uuid4()), str(int(time.time() - age_s))
    digest = hmac.new(key.encode(), f"{delivery}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent_at,
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def post(url: str, body: bytes, given: dict[str, str]) -> tuple[int, str]:
    """The status and the line it came with."""
    answer = httpx.post(url, content=body, headers=given, timeout=30)
    return answer.status_code, answer.text
