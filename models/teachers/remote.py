"""A teacher behind an API, whose answers cost money: none is lost, none is paid for twice, and the bill has a cap.

Every answer is kept as it came, in a file named by the picture and its seed, before anything is made of it; a later run
takes it from there. The ledger beside them (models/teachers/ledger.py) counts the calls. What the API will not paint
for reasons of safety is kept as such, and is a pair without a picture.
"""

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.files import replacing
from models.teachers.ledger import Ledger, Lost
from models.teachers.sizes import enlarged, resized


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
        self.ledger = Ledger(self.folder, name=name, calls_per_minute=limits.calls_per_minute, over=self._over)

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
            sent = _png(enlarged(picture, self.size))
            found = self.ledger.ask(key, lambda: self._whole_answer(key, sent, seed))
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

    def _whole_answer(self, key: str, picture: bytes, seed: int) -> bytes | Refused:
        """The API's answer, kept; Lost where it is half a picture."""
        answer = self.ask(picture, seed)
        if isinstance(answer, bytes):
            _pixels(answer)
        self._keep(key, answer)
        return answer

    def _over(self, calls: int, _: float) -> str:
        if calls <= self.limits.calls:
            return ""
        spent = (calls - 1) * self.limits.price_per_call
        return (
            f"stopped at its cap of {self.limits.calls} calls ({spent:.2f} spent): raise max_calls or max_cost and run "
            "again"
        )

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
