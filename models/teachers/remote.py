"""A teacher behind an API, whose answers cost money: none is lost, none is paid for twice, and the bill has a cap.

Every answer is kept as it came, in a file named by the picture and its seed, before anything is made of it; a later run
takes it from there. The ledger beside them has a line for every call before it is made, so that a call that a kill cut
off counts as made; one that was refused for load (429, 5xx) is given back. What the API will not paint for reasons of
safety is kept as such, and is a pair without a picture.
"""

import hashlib
import io
import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import TryAgain, UserError
from models.files import replacing
from models.teachers.sizes import enlarged, resized

ATTEMPTS, BROKEN_ATTEMPTS = 8, 3  # of a call that met with a busy server; of one whose picture came broken
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LEDGER = "ledger.jsonl"


class Busy(Exception):
    """The API did not do the work, and takes nothing for it; a later try may succeed."""


class Lost(Exception):
    """No usable answer came, though the work may have been done and will be billed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The API will not paint this picture; asking again changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent: over all runs of this teacher, and per minute."""

    calls_per_minute: float
    max_calls: int
    price_per_call: float
    max_cost: float

    @property
    def calls(self) -> int:
        """The most calls that keep to both caps."""
        by_cost = int(self.max_cost / self.price_per_call + 1e-9) if self.price_per_call else self.max_calls
        return min(self.max_calls, by_cost)


class RemoteTeacher(ABC):
    """What teachers behind an API share; a subclass asks its API for one picture."""

    def __init__(self, *, name: str, digest: str, store: Path, limits: Limits, size: int) -> None:
        self.name, self.digest, self.limits, self.size = name, digest, limits, size
        self.folder = store / digest[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.next_call = 0.0
        self.made = self._read_ledger()

    @abstractmethod
    def ask(self, picture: bytes, seed: int) -> bytes | Refused:
        """One call: a PNG in, the bytes of a picture out. Raises Busy, Lost, or UserError where trying is no use."""

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32 in [0,1], NaN where the API refuses; all are asked for at once."""
        with ThreadPoolExecutor(len(inputs)) as pool:
            jobs = [pool.submit(self._answer, picture, seed) for picture, seed in zip(inputs, seeds, strict=True)]
        return np.stack([job.result() for job in jobs])

    def refusal(self, picture: npt.NDArray[np.uint8], seed: int) -> str:
        """The API's reason for not painting a picture (H,W,3) it was asked for; "" if it did."""
        kept = self._kept(_key(picture, seed))
        return kept.reason if isinstance(kept, Refused) else ""

    def _answer(self, picture: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.float32]:
        key = _key(picture, seed)
        found = self._kept(key)
        if found is None:
            found = self._asked(key, _png(enlarged(picture, self.size)), seed)
        if isinstance(found, Refused):
            return np.full(picture.shape, np.nan, np.float32)
        return resized(_pixels(found).astype(np.float32) / 255, picture.shape[:2])

    def _kept(self, key: str) -> bytes | Refused | None:
        """The answer that an earlier call got."""
        if (self.folder / f"{key}.picture").exists():
            return (self.folder / f"{key}.picture").read_bytes()
        if (self.folder / f"{key}.json").exists():
            return Refused(json.loads((self.folder / f"{key}.json").read_text())["refused"])
        return None

    def _asked(self, key: str, picture: bytes, seed: int) -> bytes | Refused:
        """The API's answer, kept; waits longer and longer while it is busy."""
        wait, broken = FIRST_WAIT_S, 0
        for attempt in range(1, ATTEMPTS + 1):
            self._reserve(key)
            try:
                answer = self.ask(picture, seed)
                if isinstance(answer, bytes):
                    _pixels(answer)
                self._keep(key, answer)
                return answer
            except Busy as error:
                self._give_back(key)
                why = str(error)
            except Lost as error:
                broken, why = broken + 1, str(error)
            if broken == BROKEN_ATTEMPTS or attempt == ATTEMPTS:
                break
            # Half of the wait is by chance, so that what was turned away together does not come back together.
            time.sleep(wait * (0.5 + 0.5 * np.random.default_rng().random()))
            wait = min(2 * wait, LONGEST_WAIT_S)
        raise TryAgain(f"teacher {self.name}: {why}, {attempt} times: run again later; all answers so far are kept")

    def _reserve(self, key: str) -> None:
        """Count a call before it is made, and wait for its turn; a UserError where the cap is reached."""
        with self.lock:
            if self.made >= self.limits.calls:
                cost = self.made * self.limits.price_per_call
                raise UserError(
                    f"teacher {self.name}: stopped at its cap of {self.limits.calls} calls ({cost:.2f} spent): raise "
                    "max_calls or max_cost and run again; all answers so far are kept"
                )
            self._write({"key": key, "what": "called", "at": round(time.time(), 3)})
            self.made += 1
            now = time.monotonic()
            turn = max(now, self.next_call)
            self.next_call = turn + 60 / self.limits.calls_per_minute
        time.sleep(turn - now)

    def _give_back(self, key: str) -> None:
        with self.lock:
            self._write({"key": key, "what": "given back", "at": round(time.time(), 3)})
            self.made -= 1

    def _write(self, line: dict[str, object]) -> None:
        with (self.folder / LEDGER).open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_ledger(self) -> int:
        """The calls made by all runs; a last line that a kill cut short is a call that was not made."""
        if not (self.folder / LEDGER).exists():
            return 0
        lines = (self.folder / LEDGER).read_text().split("\n")
        if lines[-1]:  # else the next line would be glued to it
            with (self.folder / LEDGER).open("a") as file:
                file.write("\n")
        kinds = [json.loads(line)["what"] for line in lines[:-1] if line.endswith("}")]
        return kinds.count("called") - kinds.count("given back")

    def _keep(self, key: str, answer: bytes | Refused) -> None:
        refused = isinstance(answer, Refused)
        data = json.dumps({"refused": answer.reason}).encode() if isinstance(answer, Refused) else answer
        with replacing(self.folder / f"{key}.{'json' if refused else 'picture'}") as temporary:
            temporary.write_bytes(data)


def _key(picture: npt.NDArray[np.uint8], seed: int) -> str:
    return hashlib.sha256(f"{picture.shape} {seed} ".encode() + picture.tobytes()).hexdigest()


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def _pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """(H,W,3); Lost where the bytes are no whole picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise Lost(f"the API sent a picture that cannot be read ({error})") from None
