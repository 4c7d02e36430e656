"""A Hugging Face hub on loopback: what its client asks for to have a snapshot at a revision."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(models: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that holds the folders OWNER/NAME below `models` at REVISION; and the files asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/(\w+/\w+)/(revision|tree)/(\w+)", path):
                self.listing(models / found[1], found[1], found[2], found[3])
            elif found := re.fullmatch(rf"/(\w+/\w+)/resolve/{REVISION}/(.+)", path):
                file = models / found[1] / found[2]
                asked.append(found[2])
                if file.is_file():
                    data = file.read_bytes()
                    etag = hashlib.sha256(data).hexdigest()
                    self.reply(200, data if body else b"", len(data), {"ETag": f'"{etag}"'})
                else:
                    self.missing("EntryNotFound")
            else:
                self.missing("RepoNotFound")

        def listing(self, folder: Path, name: str, what: str, revision: str) -> None:
            if not folder.is_dir():
                return self.missing("RepoNotFound")
            if revision != REVISION:
                return self.missing("RevisionNotFound")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [path.relative_to(folder).as_posix() for path in files]
            found: Any = {"id": name, "sha": REVISION, "siblings": [{"rfilename": one} for one in names]}
            if what == "tree":
                found = [
                    {"type": "file", "path": one, "size": path.stat().st_size, "oid": "0" * 40}
                    for one, path in zip(names, files, strict=True)
                ]
            data = json.dumps(found).encode()
            self.reply(200, data, len(data), {"Content-Type": "application/json"})

        def missing(self, code: str) -> None:
            self.reply(404, b"", 0, {"X-Error-Code": code, "X-Error-Message": f"no such thing ({code})"})

        def reply(self, status: int, data: bytes, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {"X-Repo-Commit": REVISION, "Content-Length": str(length), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
