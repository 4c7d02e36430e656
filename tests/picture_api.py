"""An API on loopback that edits pictures in Google's wire format, and fails as it is told to.

What comes back for a picture is the same picture with its colours turned round. `plan` holds what to do with the next
calls, one word each: ok, busy (429), down (500), slow (no answer in time), cut (half a picture), refuse, bad (400).
"""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

IMAGEN, GEMINI = "imagen-3.0-capability-001", "gemini-2.5-flash-image"


@dataclass
class Api:
    """What the server was asked, and what it is to do."""

    address: str = ""
    plan: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)  # path, headers, body
    paid: list[bytes] = field(default_factory=list)  # the pictures that were worked on
    slow: threading.Event = field(default_factory=threading.Event)  # set to let slow calls go

    def turned(self, data: bytes) -> bytes:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = 255 - np.asarray(picture.convert("RGB"))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return out.getvalue()


@contextmanager
def picture_api() -> Iterator[Api]:
    """The running server."""
    api, lock = Api(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # a connection for each call, so that none is left open at the end

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                api.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
                what = api.plan.pop(0) if api.plan else "ok"
            if what in ("busy", "down", "bad"):
                code = {"busy": 429, "down": 500, "bad": 400}[what]
                key = self.headers.get("x-goog-api-key")
                return self.reply(code, {"error": {"code": code, "message": f"told: {what} for {key}", "status": "NO"}})
            vertex = ":predict" in self.path
            sent = picture_of(body, vertex)
            with lock:
                api.paid.append(sent)
            if what == "slow":
                api.slow.wait(20)
                self.close_connection = True
                return None
            made = api.turned(sent)
            if what == "cut":
                made = made[: len(made) // 2]
            return self.reply(200, answer(None if what == "refuse" else made, vertex))

        def reply(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        api.slow.set()
        server.shutdown()
        server.server_close()
        thread.join()


def picture_of(body: dict[str, Any], vertex: bool) -> bytes:
    if vertex:
        (reference,) = body["instances"][0]["referenceImages"]
        return base64.b64decode(reference["referenceImage"]["bytesBase64Encoded"])
    parts = [part for content in body["contents"] for part in content["parts"]]
    return base64.urlsafe_b64decode(next(part["inlineData"]["data"] for part in parts if "inlineData" in part))


def answer(made: bytes | None, vertex: bool) -> dict[str, Any]:
    data = base64.b64encode(made).decode() if made else ""
    if vertex:
        good = {"bytesBase64Encoded": data, "mimeType": "image/png"}
        return {"predictions": [good if made else {"raiFilteredReason": "a face that is too well known"}]}
    if not made:
        return {"candidates": [{"finishReason": "IMAGE_SAFETY"}]}
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    return {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]}
