"""A language model on loopback in the wire format of OpenAI's chat completions, which fails as it is told to.

It knows two words: a text with `good` in it is positive, one with `bad` negative; what it writes has the one that is
asked for among words drawn by the call's seed. `plan` holds what to do with the next calls, one word each: ok, busy
(429), quota (429 for want of money), down (500), bad (400), drop (the connection, in mid-answer), slow (no answer in
time), drip (a byte at a time), garbage (no JSON), empty (no choices), wrong (a class there is none of), null (no
content), cut (half a JSON), away (a redirect to another host), long (the text does not fit), nousage.
"""

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-a-very-secret-key"
KNOWN = {"good": "positive", "bad": "negative"}
STATUS = {"busy": 429, "quota": 429, "down": 500, "bad": 400, "long": 400}


@dataclass
class Api:
    """What the server was asked, and what it is to do."""

    address: str = ""
    key: str = KEY
    plan: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)  # path, headers, body
    paid: list[dict[str, Any]] = field(default_factory=list)  # the bodies that were worked on
    planted: dict[str, list[str]] = field(default_factory=dict)  # by class: what the writer writes first
    unknown: set[str] = field(default_factory=set)  # parameters that it does not take
    logprobs: bool = True
    retry_after: str = ""
    pause_s: float = 0.0  # before each answer
    slow: threading.Event = field(default_factory=threading.Event)  # set to let slow calls go

    def content(self, body: dict[str, Any]) -> str:
        """What the model says."""
        system = body["messages"][0]["content"]
        if "You write examples" in system:
            return json.dumps({"texts": self._write(system, body["seed"])})
        text = json.loads(body["messages"][1]["content"])["text"]
        if "You judge" in system:
            (wanted,) = re.findall(r"meant to be of this class: (\w+)", system)
            of_class = any(word in text and KNOWN[word] == wanted for word in KNOWN)
            score = 3 if "dull" in text else 9
            return json.dumps({"of_class": of_class, "in_language": "bonjour" not in text, "score": score})
        letters = {name: letter for letter, name in re.findall(r"^([A-Z])\. (\w+)", system, re.MULTILINE)}
        word = "bad" if "bad" in text or "sly" in text else "good"
        return json.dumps({"class": letters[KNOWN[word]]})

    def _write(self, system: str, seed: int) -> list[str]:
        (wanted,) = re.findall(r"class and of no other: (\w+)", system)
        count = int(re.findall(r"Write (\d+) texts", system)[0])
        draw = random.Random(seed)
        word = {name: known for known, name in KNOWN.items()}[wanted]
        texts = []
        for _ in range(count):
            words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(3, 8))) for _ in range(7)]
            texts.append(" ".join([*words[:3], word, *words[3:]]).replace("dull", "").replace("sly", ""))
        planted = self.planted.get(wanted, [])
        taken, self.planted[wanted] = planted[:count], planted[count:]
        return [*taken, *texts[len(taken) :]]


@contextmanager
def chat_api(**settings: Any) -> Iterator[Api]:
    """The running server."""
    api, lock = Api(**settings), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                api.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
                what = api.plan.pop(0) if api.plan else "ok"
            sent = self.headers.get("Authorization", "")
            if api.key and sent != f"Bearer {api.key}":
                return self.reply(401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
            for name in sorted(api.unknown & set(body)):
                return self.reply(400, {"error": {"message": f"Unsupported parameter: {name}"}})
            if what in STATUS:
                return self.fail(what, sent)
            if what == "away":
                self.send_response(307)
                self.send_header("Location", "http://localhost:9/elsewhere")
                return self.end_headers()
            with lock:
                api.paid.append(body)
            time.sleep(api.pause_s)
            return self.answer(what, body)

        def fail(self, what: str, sent: str) -> None:
            told = {"quota": "insufficient_quota", "long": "context_length_exceeded"}.get(what, what)
            self.reply(STATUS[what], {"error": {"message": f"told: {what} for {sent}", "code": told}})

        def answer(self, what: str, body: dict[str, Any]) -> None:
            if what == "slow":
                api.slow.wait(20)
                return
            if what == "garbage":
                return self.send(200, b"<html>no</html>")
            with lock:
                said = {"wrong": '{"class": "Z"}', "null": None, "cut": '{"class": '}.get(what, "")
                said = api.content(body) if said == "" else said
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            if body.get("logprobs") and api.logprobs and said:
                choice["logprobs"] = {"content": tokens(said)}
            found = {"choices": [] if what == "empty" else [choice], "model": body["model"]}
            if what != "nousage":
                found["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
            data = json.dumps(found).encode()
            self.send(200, data, half=what == "drop", drip=what == "drip")

        def reply(self, status: int, value: Any) -> None:
            self.send(status, json.dumps(value).encode())

        def send(self, status: int, data: bytes, *, half: bool = False, drip: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if api.retry_after and status == 429:
                self.send_header("Retry-After", api.retry_after)
            self.end_headers()
            if drip:
                for at in range(len(data)):
                    if api.slow.wait(0.1):
                        return
                    try:
                        self.wfile.write(data[at : at + 1])
                    except OSError:
                        return
            with suppress(OSError):  # whoever asked was killed, or has had enough
                self.wfile.write(data[: len(data) // 2] if half else data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    api.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield api
    finally:
        api.slow.set()
        server.shutdown()
        server.server_close()
        thread.join()


def tokens(said: str) -> list[dict[str, Any]]:
    """The answer as tokens of one to three characters, with what else each might have been."""
    found = []
    for token in re.findall(r"[A-Z]|[^A-Z]{1,3}", said):
        tops = [{"token": token, "logprob": -0.105}]
        if token in "AB":
            other = {"A": "B", "B": "A"}[token]
            tops += [{"token": other, "logprob": -2.526}, {"token": "Because", "logprob": -3.9}]
        found.append({"token": token, "logprob": -0.105, "top_logprobs": tops})
    return found
