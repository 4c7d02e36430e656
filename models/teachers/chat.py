"""A language model behind an OpenAI-compatible API (POST {base_url}/chat/completions): answers kept, bill capped.

Every answer is kept in a file named by the digest of what was asked, before anything is made of it; a later run takes
it from there. Where the server lies is no part of that digest, name, version and model are: raise `version` when
another model stands behind the same name. The ledger (models/teachers/ledger.py) takes for each call the most that it
can cost, then what the server's `usage` says. The key comes from the environment, and is in no message, file or log.
"""

import email.utils
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from models.errors import UserError
from models.files import replacing
from models.teachers.chat_http import Endpoint
from models.teachers.ledger import Busy, Ledger, Lost

MESSAGE_TOKENS = 32  # that a server's template may put around a message
# What a server may not know, by the words its complaint has: it is asked without, and told so no more.
OPTIONAL = {
    "response_format": ("response_format", "json_schema", "schema", "grammar"),
    "logprobs": ("logprobs",),
    "seed": ("seed",),
    "temperature": ("temperature",),
    "max_tokens": ("max_completion_tokens",),  # its newer name
}
TOO_LONG = ("context_length", "context length", "context size", "maximum context", "too many tokens")
USAGE = ("prompt_tokens", "completion_tokens")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What may be spent: over all runs of a teacher of this name and version, and per minute."""

    calls_per_minute: float
    max_calls: int
    price_in: float  # per million tokens of what is asked
    price_out: float  # and of what is answered
    max_cost: float

    def cost(self, asked: int, answered: int) -> float:
        """Of a call of so many tokens."""
        return (asked * self.price_in + answered * self.price_out) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said; `refused` says why it is nothing, where it is nothing."""

    text: str
    refused: str
    tokens: tuple[tuple[str, Mapping[str, float]], ...]  # each with the log-probabilities of what else it might be
    asked: int  # tokens, as the server tells, else the most that it can be
    answered: int
    cost: float
    told: bool  # whether the server told the tokens


class Chat:
    """One model behind one server."""

    def __init__(
        self,
        *,
        name: str,
        version: int,
        model: str,
        base_url: str,
        key_variable: str,  # of the environment, which holds it; "" is a server that asks for none
        timeout_s: float,
        parallel: int,
        store: Path,
        **spend: Any,
    ) -> None:
        self.name, self.model, self.parallel = f"{name} v{version}", model, parallel
        self.spend = Spend(**spend)
        self.folder = store / f"chat-{name}-v{version}"
        self.key_variable, url = key_variable, f"{base_url.rstrip('/')}/chat/completions"
        self.endpoint = Endpoint(name=self.name, url=url, key_variable=key_variable, timeout_s=timeout_s)
        self.asking: dict[str, threading.Lock] = {}
        self.used: dict[str, Answer] = {}  # by digest of what was asked, in this run
        self.missing: set[str] = set()  # of OPTIONAL, what this server does not take
        self.ledger = Ledger(self.folder, name=self.name, calls_per_minute=self.spend.calls_per_minute, over=self._over)

    def close(self) -> None:
        """Let the connections go."""
        self.endpoint.close()

    def bill(self) -> dict[str, Any]:
        """What the answers used so far cost, whichever run paid for them; without calls whose answers were lost."""
        used = self.used.values()
        return {
            "calls": len(used),
            "tokens_in": sum(one.asked for one in used),
            "tokens_out": sum(one.answered for one in used),
            "untold": sum(not one.told for one in used),  # calls whose tokens are the most that they can be
            "cost": round(math.fsum(one.cost for one in used), 9),  # which adds up alike in any order
        }

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
        """What `work` makes of each item, in their order, `parallel` at once; where one fails no further is begun."""
        pool = ThreadPoolExecutor(self.parallel)
        try:
            for job in [pool.submit(work, item) for item in items]:
                yield job.result()
        except BaseException:
            self.ledger.stop()  # a thread that waits for its next try would hold up the end for minutes
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def ask(self, messages: Sequence[Mapping[str, str]], *, seed: int, max_tokens: int, **more: Any) -> Answer:
        """The model's answer, kept or new. more: temperature, response_format, logprobs ... as the API calls them."""
        body = {"model": self.model, "messages": list(messages), "seed": seed, "max_tokens": max_tokens, **more}
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        most = (len(json.dumps(body)) + MESSAGE_TOKENS * len(messages), max_tokens)  # no token is less than a byte
        path = self.folder / f"{key}.json"
        with self.asking.setdefault(key, threading.Lock()):  # what two threads want to know is asked once
            if not path.exists():
                cost = self.spend.cost(*most)
                self.ledger.ask(key, lambda: self._asked(path, key, body, most), cost)
        try:
            self.used[key] = self._answer(json.loads(path.read_text()), most)
            return self.used[key]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"teacher {self.name}: the answer kept in {path} is damaged: delete it") from None

    def _asked(self, path: Path, key: str, body: Mapping[str, Any], most: tuple[int, int]) -> None:
        """Ask the server, and keep what it says."""
        said = self._said(body)
        if "refused" not in said:
            _check(said)
        answer = self._answer(said, most)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(said, sort_keys=True))
        self.ledger.bill(key, answer.cost)

    def _answer(self, said: Mapping[str, Any], most: tuple[int, int]) -> Answer:
        """What the JSON of an answer says."""
        usage = said.get("usage") or {}
        told = all(isinstance(usage.get(part), int) for part in USAGE)
        asked, answered = (usage[USAGE[0]], usage[USAGE[1]]) if told else most
        text, refused, tokens = "", str(said.get("refused", "")), []
        if refused:  # before any work was done
            asked, answered, told = 0, 0, True
        elif not said["choices"]:
            refused = "the server gave no choices"
        else:
            choice = said["choices"][0]
            text, refused = choice["message"].get("content") or "", choice["message"].get("refusal") or ""
            if not text and not refused:
                refused = f"an empty answer (finish_reason {choice.get('finish_reason')})"
            for one in (choice.get("logprobs") or {}).get("content") or []:
                tokens.append((one["token"], {top["token"]: top["logprob"] for top in one["top_logprobs"]}))
        cost = self.spend.cost(asked, answered)
        return Answer(
            text=text, refused=refused, tokens=tuple(tokens), asked=asked, answered=answered, cost=cost, told=told
        )

    def _said(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of the server's answer; Busy, Lost or UserError as the ledger takes them."""
        while True:
            sent = {key: value for key, value in body.items() if key.removeprefix("top_") not in self.missing}
            if "max_tokens" in self.missing:
                sent["max_completion_tokens"] = body["max_tokens"]
            status, headers, data = self.endpoint.post(sent)
            if status == 200:
                return self._json(data)
            told = self._told(status, data)
            if status in (408, 409, 425, 429) or status >= 500:
                if "insufficient_quota" in told:
                    raise UserError(f"teacher {self.name}: {told}: pay, or ask another server")
                raise Busy(told, _wait_s(headers.get("retry-after")))
            if status in (401, 403):
                raise UserError(f"teacher {self.name}: {told}: {self._mend_key()}")
            if status in (400, 413, 422) and any(words in told.lower() for words in TOO_LONG):
                return {"refused": "longer than the model takes"}
            unknown = [
                name
                for name, words in OPTIONAL.items()
                if name in sent and status in (400, 422) and any(word in told.lower() for word in words)
            ]
            if not unknown:
                raise UserError(f"teacher {self.name}: {told}: check base_url ({self.endpoint.url}) and model")
            self.missing.update(unknown)

    def _mend_key(self) -> str:
        return (
            f"set a valid key in {self.key_variable}"
            if self.key_variable
            else "name the variable of its key in key_variable"
        )

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(self.endpoint.masked(data.decode()))
        except ValueError as error:
            raise Lost(f"{self.endpoint.url} sent no JSON ({self.endpoint.safe(error)})") from None
        if not isinstance(found, dict):
            raise Lost(f"{self.endpoint.url} sent JSON that is no object")
        found.pop("refused", None)
        return found

    def _told(self, status: int, data: bytes) -> str:
        """What an error says, in one line."""
        text = data[:5000].decode(errors="replace")
        try:
            error = json.loads(text).get("error", text)
            text = f"{error.get('message', '')} {error.get('code') or ''}" if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError):
            pass
        return f"{self.model} answers {status} ({self.endpoint.safe(text) or 'no reason'})"

    def _over(self, calls: int, cost: float) -> str:
        spent = f"{self.ledger.made} calls, {self.ledger.cost:.4f} spent"
        if calls > self.spend.max_calls:
            return f"stopped at its cap of {self.spend.max_calls} calls ({spent}): raise max_calls and run again"
        if cost > self.spend.max_cost * (1 + 1e-9):
            return f"stopped before its cap of {self.spend.max_cost:g} ({spent}): raise max_cost and run again"
        return ""


def _wait_s(header: str | None) -> float | None:
    """Seconds that a Retry-After asks for: a number, or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _check(said: Mapping[str, Any]) -> None:
    """Refuse an answer that is not one of the API's; Lost says that another try may come right."""
    try:
        usage = said.get("usage") or {}
        if any(usage.get(part) is not None and usage[part] < 0 for part in USAGE):
            raise ValueError("tokens below 0")
        for choice in said["choices"]:
            if not isinstance(choice["message"].get("content"), str | None):
                raise TypeError("content is no text")
            for one in (choice.get("logprobs") or {}).get("content") or []:
                tops = [float(top["logprob"]) for top in one["top_logprobs"] if isinstance(top["token"], str)]
                if not isinstance(one["token"], str) or any(math.isnan(top) for top in tops):
                    raise ValueError("a log-probability that is none")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Lost(f"the server's answer is none of this API ({type(error).__name__}: {error})") from None
