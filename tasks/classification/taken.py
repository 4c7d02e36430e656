"""What a classifier takes, pictures or texts: as torch is given a batch of it, and as a file is given one.

Everything else about a classifier is alike for both, so that training, quantisation, evaluation and comparison ask
here. A text classifier's tokeniser lies beside its weights, and beside its files in a bundle.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from tasks.files import check_sha256, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from models.classification.tokens import Tokens
    from models.runtimes import Gives

TOKENIZER = "tokenizer.json"


class Taken(Protocol):
    """One of the two."""

    gives: "Gives"  # what its files give, as models.runtimes.open_model wants to know

    def batch(self, inputs: Any) -> "tuple[Tensor, ...]":
        """Some inputs as the torch student takes them."""
        ...

    def sample(self, one: Any) -> Any:
        """One input as an opened file takes it."""
        ...


class Pictures:
    """(S,S,3) uint8 each."""

    gives: "Gives" = "logits"

    def batch(self, inputs: "Sequence[npt.NDArray[np.uint8]]") -> "tuple[Tensor, ...]":
        """B pictures -> (B,3,S,S) in [0,1]."""
        import torch

        from models.batches import to_floats

        return (to_floats(torch.from_numpy(np.stack(list(inputs)))),)

    def sample(self, one: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(1,S,S,3) in [0,1]."""
        return one[None].astype(np.float32) / np.float32(255)


class Texts:
    """Texts, by their tokens."""

    gives: "Gives" = "logits-of-tokens"

    def __init__(self, tokens: "Tokens") -> None:
        self.tokens = tokens

    def batch(self, inputs: Sequence[str]) -> "tuple[Tensor, ...]":
        """B texts -> ids and mask (B,L), L being the longest's."""
        import torch

        ids, mask = self._rows(inputs)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def sample(self, one: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and mask, (1,L)."""
        return self._rows([one])

    def _rows(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        from models.classification.tokens import filled

        rows = self.tokens.rows(texts)
        return filled(rows, max(1, *map(len, rows)), self.tokens.pad)

    def record(self) -> dict[str, Any]:
        """What student.json says of it, but for the sha256 of the file."""
        tokens = self.tokens
        return {
            "digest": tokens.digest,
            "max_tokens": tokens.max_tokens,
            "truncate": tokens.truncate,
            "pad": tokens.pad,
            "vocabulary": tokens.vocabulary,
        }


def student_takes(folder: Path) -> Taken:
    """What the student in a folder takes; UserError where its tokeniser is another than it was trained with."""
    told = read_json(folder / "student.json").get("tokens")
    return texts_of(folder, told, "student") if told else Pictures()


def texts_of(folder: Path, told: Any, what: str) -> Texts:
    """The tokeniser in a folder as a record of it says: sha256, max_tokens, truncate, pad."""
    from models.classification.tokens import open_tokens

    path = folder / TOKENIZER
    check_sha256(path, told["sha256"], f"{what}'s tokeniser")
    shape = {key: told[key] for key in ("max_tokens", "truncate", "pad")}
    return Texts(open_tokens(path.read_bytes(), str(path), **shape))


def taught_texts(block: Any, teacher: Any, texts: Sequence[str]) -> Texts:
    """The tokeniser that a text classifier is to have: that of the weights it starts from, else as its block says.

    `teacher` is a function that gives the loaded teacher, asked only where its tokeniser is wanted. UserError where the
    student and its weights, or the teacher that runs beside it, know texts by other ids.
    """
    from models.classification.tokens import check_same, student_tokens

    architecture = block.architecture.model_dump()
    own = block.architecture.tokens
    settings = {"max_tokens": architecture["max_tokens"], "truncate": own.truncate}
    if block.init:
        found = _of_start(Path(block.init), settings)
    elif architecture["kind"] == "transformer-layers":
        found = _of_layers(Path(architecture["path"]), settings)
    else:
        found = student_tokens(architecture, teacher().tokens if own.by == "teacher" else None, texts)
    if block.asks_teacher:  # what it holds inside is compared token by token
        theirs = teacher().tokens
        if theirs is None:
            raise UserError("train.losses: several teachers show none of their insides: take a loss on logits")
        check_same(theirs, found)
    return Texts(found)


def _of_start(folder: Path, settings: dict[str, Any]) -> "Tokens":
    told = read_json(folder / "student.json").get("tokens")
    if not told:
        raise UserError(f"init: {folder} holds no text classifier: start from one, or from scratch")
    return texts_of(folder, told | settings, "init").tokens


def _of_layers(folder: Path, settings: dict[str, Any]) -> "Tokens":
    from models.classification.tokens import load_tokens

    # RoBERTa finds its positions by the token that fills: the network says which it is.
    return load_tokens(folder, pad=read_json(folder / "config.json").get("pad_token_id"), **settings)
