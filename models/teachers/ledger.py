"""The ledger of calls that cost money: what was asked, what it cost, and when the cap is reached.

A line is written before every call, with the most that it can cost, so that a call that a kill cut off counts as made;
one that the API did not work on is given back, and one whose price the API tells is put right. All runs of a teacher
share the file, also those of other processes at the same time: it is read on and written under a lock.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from models.errors import TryAgain, UserError

ATTEMPTS, BROKEN_ATTEMPTS = 8, 3  # of a call that met with a busy server; of one whose answer came broken
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONGEST_ASKED_WAIT_S = 600.0  # a server that wants to be left alone for longer is left alone
LEDGER = "ledger.jsonl"
Answer = TypeVar("Answer")


class Busy(Exception):
    """The API did not do the work, and takes nothing for it; a try after `wait_s` (None: not told) may succeed."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Lost(Exception):
    """No usable answer came, though the work may have been done and will be billed."""


class Ledger:
    """The calls of one teacher over all runs, at most so many a minute in this process.

    over(calls, cost): why not, with the next call counted in; "" where it may be made.
    """

    def __init__(self, folder: Path, *, name: str, calls_per_minute: float, over: Callable[[int, float], str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.name, self.over = folder / LEDGER, name, over
        self.calls_per_minute = calls_per_minute
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.next_call = 0.0
        self.made, self.cost, self._read_to = 0, 0.0, 0
        self._open: dict[str, float] = {}  # by key, what its last call was written down with
        with self._locked():
            pass

    def ask(self, key: str, call: Callable[[], Answer], cost: float = 0.0) -> Answer:
        """What `call` gives; waits longer and longer while it raises Busy. TryAgain where it never succeeds.

        cost: the most that a call can cost; `bill` says later what it did.
        """
        wait, broken = FIRST_WAIT_S, 0
        for attempt in range(1, ATTEMPTS + 1):
            self.reserve(key, cost)
            asked_wait = None
            try:
                return call()
            except Busy as error:
                self.give_back(key)
                why, asked_wait = str(error), error.wait_s
            except Lost as error:
                broken, why = broken + 1, str(error)
            except UserError:
                self.give_back(key)
                raise
            if broken == BROKEN_ATTEMPTS or attempt == ATTEMPTS or (asked_wait or 0) > LONGEST_ASKED_WAIT_S:
                break
            # Half of the wait is by chance, so that what was turned away together does not come back together.
            own = wait * (0.5 + 0.5 * np.random.default_rng().random())
            self.wait(max(own, asked_wait or 0))
            wait = min(2 * wait, LONGEST_WAIT_S)
        times = f"{attempt} times" if attempt > 1 else "once"
        when = f"in {asked_wait:.0f} s or later" if asked_wait else "later"
        raise TryAgain(f"teacher {self.name}: {why}, {times}: run again {when}; all answers so far are kept")

    def reserve(self, key: str, cost: float = 0.0) -> None:
        """Count a call before it is made, and wait for its turn; a UserError where the cap is reached."""
        with self.lock, self._locked() as file:
            refusal = self.over(self.made + 1, self.cost + cost)
            if refusal:
                raise UserError(f"teacher {self.name}: {refusal}; all answers so far are kept")
            self._write(file, {"key": key, "what": "called", "cost": cost})
            now = time.monotonic()
            turn = max(now, self.next_call)
            self.next_call = turn + 60 / self.calls_per_minute
        try:
            self.wait(turn - now)
        except TryAgain:
            self.give_back(key)
            raise

    def give_back(self, key: str) -> None:
        """The call was not worked on: it costs nothing."""
        with self.lock, self._locked() as file:
            self._write(file, {"key": key, "what": "given back"})

    def bill(self, key: str, cost: float) -> None:
        """What the call cost in truth."""
        with self.lock, self._locked() as file:
            self._write(file, {"key": key, "what": "billed", "cost": cost})

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until `stop`; TryAgain then."""
        if self.stopping.wait(seconds):
            raise TryAgain(f"teacher {self.name}: stopped; all answers so far are kept")

    def stop(self) -> None:
        """Let no further call be made, and no thread wait."""
        self.stopping.set()

    def _locked(self) -> "_LockedFile":
        return _LockedFile(self.path, self._read_on)

    def _read_on(self, file: IO[bytes]) -> None:
        """Take in what was written since; a last line that a kill cut short is a call that was not made."""
        file.seek(self._read_to)
        data = file.read()
        if data and not data.endswith(b"\n"):  # else the next line would be glued to it
            file.write(b"\n")
            data += b"\n"
        self._read_to += len(data)
        for line in data.splitlines():
            if line.endswith(b"}"):
                self._count(json.loads(line))

    def _count(self, line: dict[str, Any]) -> None:
        key, cost = line["key"], float(line.get("cost", 0.0))
        if line["what"] == "called":
            self.made += 1
            self.cost += cost
            self._open[key] = cost
            return
        self.cost += (cost if line["what"] == "billed" else 0.0) - self._open.pop(key, 0.0)
        if line["what"] == "given back":
            self.made -= 1

    def _write(self, file: IO[bytes], line: dict[str, Any]) -> None:
        data = json.dumps(line | {"at": round(time.time(), 3)}).encode() + b"\n"
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        self._read_to += len(data)
        self._count(line)


class _LockedFile:
    """The ledger's file, open at its end and read to there, while no other process has it."""

    def __init__(self, path: Path, read_on: Callable[[IO[bytes]], None]) -> None:
        self.path, self.read_on = path, read_on

    def __enter__(self) -> IO[bytes]:
        self.file = self.path.open("a+b")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.read_on(self.file)
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()  # which frees the lock
