"""How a chat API is reached over HTTP: one POST, within a time, to one server only, the key in no message.

Busy: nothing was sent, or nothing came of it. Lost: an answer may have been made, and was not received whole.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from models.teachers.ledger import Busy, Lost

if TYPE_CHECKING:
    import httpx

CONNECT_S = 10.0
MOST_BYTES = 8 << 20  # of an answer
MOST_REDIRECTS = 3
SECRET = 8  # characters from which a key is one, and not the word that a local server is content with


class Endpoint:
    """The address that a teacher's questions go to."""

    def __init__(self, *, name: str, url: str, key_variable: str, timeout_s: float) -> None:
        import httpx

        self.name, self.url, self.timeout_s = name, url, timeout_s
        self._key = _key(name, key_variable)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        # Each call has a connection of its own: a server that closes an idle one at the wrong moment costs an answer.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)

    def close(self) -> None:
        """Let the connections go."""
        self.http.close()

    def post(self, body: Mapping[str, Any]) -> tuple[int, "httpx.Headers", bytes]:
        """Status, headers and bytes of the answer to a POST."""
        import httpx

        try:
            request = self.http.build_request("POST", self.url, json=body)
            for _ in range(MOST_REDIRECTS + 1):
                with self._sent(request) as response:
                    follow = response.next_request
                    if follow is None:
                        return response.status_code, response.headers, self._read(response)
                    request = self._followed(request, follow)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Busy(f"{self.url} cannot be reached ({self.safe(error)})") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
            raise UserError(f"teacher {self.name}: base_url: {self.safe(error)}") from None
        except httpx.HTTPError as error:
            raise Lost(f"{self.url} gave no whole answer ({self.safe(error) or type(error).__name__})") from None
        raise UserError(f"teacher {self.name}: {self.url} redirects without end: correct base_url")

    @contextmanager
    def _sent(self, request: "httpx.Request") -> "Generator[httpx.Response, None, None]":
        response = self.http.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _followed(self, asked: "httpx.Request", follow: "httpx.Request") -> "httpx.Request":
        """The request of a redirect, to the same server only: what is asked and the key are for no other."""
        here, there = [(url.scheme, url.host, url.port) for url in (asked.url, follow.url)]
        if here != there or follow.method != "POST":
            to = self.safe(f"{follow.method} {follow.url.copy_with(query=None)}")
            raise UserError(f"teacher {self.name}: {self.url} redirects to {to}, which is not followed: set base_url")
        return follow

    def _read(self, response: "httpx.Response") -> bytes:
        """The body, within the time and size that an answer may have."""
        data, until = bytearray(), time.monotonic() + self.timeout_s
        for part in response.iter_bytes():
            data += part
            if time.monotonic() > until:  # the client's own time-out begins anew with every byte
                raise Lost(f"{self.url} did not end its answer within {self.timeout_s:g} s")
            if len(data) > MOST_BYTES:
                raise Lost(f"{self.url} sent more than {MOST_BYTES >> 20} MiB")
        return bytes(data)

    def masked(self, text: str) -> str:
        """A text without the key; one that is too short for a secret would be found everywhere."""
        return text.replace(self._key, "***") if len(self._key) >= SECRET else text

    def safe(self, what: object) -> str:
        """A message in one line of printable characters, without the key."""
        line = " ".join(self.masked(str(what)).split())[:300]
        return "".join(one for one in line if one.isprintable())


def _key(name: str, variable: str) -> str:
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise UserError(f"teacher {name}: no key: set {variable} in the environment")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"teacher {name}: {variable} holds characters that no key has: set it again")
    return key
