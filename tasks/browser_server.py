"""The pages of the target `browser`, served on loopback from memory, and nothing else.

ONNX Runtime for browsers comes from npm into tasks/browser/node_modules (`make browser`); the few files of it that are
served are checked against their sha256 in tasks/browser/served.json. The headers let pages share memory between
threads, and let them fetch from this server alone.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from models.errors import UserError
from tasks.files import read_json, sha256_bytes

PAGES = Path(__file__).with_name("browser")
RUNTIME = PAGES / "node_modules" / "onnxruntime-web" / "dist"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; img-src 'self' data: blob:",
    "Cache-Control": "no-store",
}
Site = dict[str, bytes]  # by path, with the slash


def runtime_files(folder: Path = RUNTIME, listed: Path = PAGES / "served.json") -> Site:
    """ONNX Runtime's files under /ort/; a UserError where one is missing or is not the one that was checked in."""
    files: Site = {}
    for name, sha256 in read_json(listed).items():
        try:
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            raise UserError("ONNX Runtime for browsers is not installed: run make browser") from None
        if sha256_bytes(data) != sha256:
            raise UserError(f"{folder / name} is not the file of tasks/browser/served.json: run make browser again")
        files[f"/ort/{name}"] = data
    return files


def runtime_version() -> str:
    """The pinned version."""
    return str(read_json(PAGES / "package.json")["dependencies"]["onnxruntime-web"])


def pages() -> Site:
    """Our own page and its scripts."""
    return {f"/{name}": (PAGES / name).read_bytes() for name in ("page.html", "page.js", "frames.js")}


def as_json(value: Mapping[str, object]) -> bytes:
    """A JSON file to serve."""
    return json.dumps(value).encode()


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """Serve the site on a free port of 127.0.0.1; yields http://127.0.0.1:PORT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            data = site.get(path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Type", TYPES.get(Path(path).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data or b"")))
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
