"""Teachers of classifiers: a network with weights, a trained student, a model of transformers, or several of these.

A teacher is offline and repeatable: it works on one thread, in batches of one size that are filled up, and texts in
rows whose length hangs on the text alone. So what it says of an input hangs on that input, whatever is asked with it
(tests/test_label_teachers.py). Every file is pinned by its sha256.

Born-again networks (Furlanello et al. 2018) have a trained student as their teacher; means of several are as old as
distillation (Hinton et al. 2015).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.batches import to_tensor
from models.classification.networks import build, classes_of, load_network, load_weights, read_weights
from models.classification.tokens import Tokens, filled, load_tokens
from models.classification.transformer import TextClassifier, check_tokens, load_folder
from models.errors import UserError
from models.teachers import answers_folder
from models.teachers.chat_classifier import ChatClassifier, load_classifier
from models.teachers.digests import teacher_digest
from models.teachers.pinned import places
from models.terms import inner_outputs

Floats = npt.NDArray[np.float32]

BATCH = 32  # inputs at a time, always
STEP = 16  # tokens: rows are of so many, or twice, ...


class LabelTeacher(Protocol):
    """What every teacher of classifiers offers."""

    digest: str  # hex sha256 of everything that decides its answers
    classes: int
    labels: tuple[str, ...]  # their names in order, where it knows them
    network: nn.Module | None  # for losses that look inside while a student trains
    tokens: Tokens | None  # of texts: how its network takes them

    def __call__(self, inputs: Any) -> Floats:
        """Pictures (B,S,S,3) uint8 or B texts -> logits (B,C)."""
        ...

    def with_pooled(self, inputs: Any) -> tuple[Floats, Floats]:
        """The same -> logits (B,C) and what stands before the last layer, (B,D), in one pass."""
        ...


class PictureTeacher:
    """A network that classifies pictures."""

    tokens = None
    labels: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, classes: int, name: str, digest: str) -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes, self.name, self.digest = classes, name, digest

    def __call__(self, inputs: npt.NDArray[np.uint8]) -> Floats:
        """(B,S,S,3) uint8 RGB -> (B,C)."""
        return checked(self._run(inputs, self.network), self.name)

    def with_pooled(self, inputs: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """(B,S,S,3) uint8 RGB -> (B,C), (B,D)."""
        return apart(self._run(inputs, both(self.network, "pool")), self.classes, self.name)

    def _run(self, inputs: npt.NDArray[np.uint8], function: Callable[[Tensor], Tensor]) -> Floats:
        def some(rows: slice) -> Tensor:
            whole = np.zeros((BATCH, *inputs.shape[1:]), np.uint8)
            whole[: len(inputs[rows])] = inputs[rows]
            return function(to_tensor(whole))

        return in_batches(some, len(inputs))


class TextTeacher:
    """A network that classifies texts, with its tokeniser."""

    def __init__(self, network: TextClassifier, tokens: Tokens, name: str, digest: str) -> None:
        self.network, self.tokens, self.name, self.digest = network.eval(), tokens, name, digest
        self.classes, self.labels = int(network.model.num_labels), network.labels()  # type: ignore[arg-type]
        check_tokens(network, tokens, f"teacher {name}")

    def __call__(self, inputs: Sequence[str]) -> Floats:
        """B texts -> (B,C)."""
        return checked(self._run(inputs, self.network), self.name)

    def with_pooled(self, inputs: Sequence[str]) -> tuple[Floats, Floats]:
        """B texts -> (B,C), (B,D)."""
        return apart(self._run(inputs, both(self.network, self.network.base())), self.classes, self.name)

    def _run(self, texts: Sequence[str], function: Callable[..., Tensor]) -> Floats:
        rows = self.tokens.rows(texts)
        lengths = np.array([-(-max(1, len(row)) // STEP) * STEP for row in rows]).clip(max=self.tokens.max_tokens)
        found: Floats | None = None
        for length in sorted(set(lengths.tolist())):
            alike = np.flatnonzero(lengths == length)
            answers = in_batches(self._of([rows[one] for one in alike], length, function), len(alike))
            found = np.empty((len(rows), answers.shape[1]), np.float32) if found is None else found
            found[alike] = answers
        return np.empty((0, self.classes), np.float32) if found is None else found

    def _of(self, rows: list[list[int]], length: int, function: Callable[..., Tensor]) -> Callable[[slice], Tensor]:
        def some(chosen: slice) -> Tensor:
            mine = rows[chosen]
            ids, mask = filled(mine + mine[:1] * (BATCH - len(mine)), length, self.tokens.pad)
            return function(torch.from_numpy(ids), torch.from_numpy(mask))

        return some


class ChatTeacher:
    """A language model behind an API; rows of what it refuses are NaN (models/teachers/chat_classifier.py)."""

    network = None
    tokens = None

    def __init__(self, chat: ChatClassifier, name: str) -> None:
        self.chat, self.name, self.digest = chat, name, chat.digest
        self.classes, self.labels = len(chat.classes), chat.classes

    def __call__(self, inputs: Sequence[str]) -> Floats:
        """B texts -> log-probabilities (B,C)."""
        return self.chat(inputs)

    def with_pooled(self, inputs: Sequence[str]) -> tuple[Floats, Floats]:
        """Refused: an API shows no features."""
        raise UserError(f"teacher {self.name}: a model behind an API shows no features: set pairs.pooled to false")

    def refusal(self, text: str) -> str:
        """Why a text that was asked about is refused; "" if it is not."""
        return self.chat.refusal(text)


class SeveralTeachers:
    """The weighted mean of what teachers say: of their logits, or of their probabilities.

    Of probabilities it is given as logarithms, so that its softmax is that mean.
    """

    network = None
    tokens = None

    def __init__(
        self, teachers: Sequence[LabelTeacher], weights: Sequence[float], mean_of: str, name: str, digest: str
    ) -> None:
        self.teachers, self.mean_of, self.name, self.digest = list(teachers), mean_of, name, digest
        self.weights = [weight / sum(weights) for weight in weights]
        counts = [teacher.classes for teacher in teachers]
        if len(set(counts)) > 1:
            raise UserError(f"teacher {name}: its teachers know {', '.join(map(str, counts))} classes: they must agree")
        self.classes = counts[0]
        told = {teacher.labels for teacher in teachers if teacher.labels}
        if len(told) > 1:
            first, second, *_ = sorted(told)
            raise UserError(
                f"teacher {name}: one of its teachers has the classes {', '.join(first)}, one {', '.join(second)}: "
                "they must be the same, in one order"
            )
        self.labels: tuple[str, ...] = told.pop() if told else ()

    def __call__(self, inputs: Any) -> Floats:
        """Pictures (B,S,S,3) uint8 or B texts -> (B,C)."""
        answers = [teacher(inputs).astype(np.float64) for teacher in self.teachers]
        if self.mean_of == "probabilities":
            answers = [np.exp(one - np.logaddexp.reduce(one, axis=1, keepdims=True)) for one in answers]
        mean = sum(weight * one for weight, one in zip(self.weights, answers, strict=True))
        if self.mean_of == "probabilities":
            mean = np.log(np.maximum(mean, np.finfo(np.float32).tiny))
        return np.asarray(mean, np.float32)

    def with_pooled(self, inputs: Any) -> tuple[Floats, Floats]:
        """Refused: each has features of its own."""
        raise UserError(
            f"teacher {self.name}: several teachers have no pooled features in common: set pairs.pooled to false"
        )


def both(network: nn.Module, path: str) -> Callable[..., Tensor]:
    """The network as a function that gives (B,C+D): logits, then what the module at `path` gave, of tokens the first's.

    By the first token these models classify.
    """

    def run(*inputs: Tensor) -> Tensor:
        with inner_outputs(network, [path]) as inner:
            logits = network(*inputs)
        found = inner[path]
        return torch.cat([logits, found if found.ndim == 2 else found[:, 0]], dim=1)

    return run


def apart(found: Floats, classes: int, name: str) -> tuple[Floats, Floats]:
    """Logits, which are checked, and features out of what `both` gave."""
    return checked(found[:, :classes], name), found[:, classes:]


def checked(logits: Floats, name: str) -> Floats:
    """The same; UserError where they are not numbers."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise UserError(
            f"teacher {name}: its logits of {len(broken)} of {len(logits)} inputs are NaN or infinite, the first of "
            f"input {broken[0]}: its weights are broken; take others"
        )
    return logits


@contextmanager
def one_thread() -> Iterator[None]:
    """While open, torch adds in one order; gradients are not kept."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def in_batches(some: Callable[[slice], Tensor], count: int) -> Floats:
    """What `some` gives for `count` inputs, BATCH at a time; it fills the last batch up, and the filling is cut off."""
    with one_thread():
        found = [
            some(slice(start, start + BATCH))[: count - start].float().contiguous().numpy()
            for start in range(0, max(1, count), BATCH)
        ]
    return np.concatenate(found)


def load_teacher(settings: Mapping[str, Any]) -> LabelTeacher:
    """The teacher of a `teacher:` block: `kind`, and that kind's own settings; its files are checked first."""
    if settings["kind"] == "chat":
        chat = load_classifier(settings, answers_folder())
        return ChatTeacher(chat, f"{settings['api']['name']} v{settings['api']['version']}")
    name = f"{settings['name']} v{settings['version']}"
    digest = teacher_digest(settings)
    if settings["kind"] == "several":
        teachers = [load_teacher(part["teacher"]) for part in settings["teachers"]]
        weights = [part["weight"] for part in settings["teachers"]]
        return SeveralTeachers(teachers, weights, settings["mean_of"], name, digest)
    [place] = places(settings)
    if not place.is_here:
        raise UserError(f"teacher {name}: nothing lies at {place.where}: put it there, or change the key `path`")
    path = place.check(name)
    return LOADERS[settings["kind"]](path, settings, name, digest)


def _network(path: Path, settings: Mapping[str, Any], name: str, digest: str) -> LabelTeacher:
    values = read_weights(path, f"teacher {name}")
    architecture = settings["architecture"]
    classes = classes_of(architecture, values, f"teacher {name}")
    network = build(architecture, classes)
    load_weights(network, values, f"teacher {name}")
    return PictureTeacher(network, classes, name, digest)


def _student(path: Path, settings: Mapping[str, Any], name: str, digest: str) -> LabelTeacher:
    for file in ("student.json", "weights.safetensors"):
        if not (path / file).is_file():
            raise UserError(f"teacher {name}: {path} is no trained student, it has no {file}")
    network = load_network(path)
    if not isinstance(network, TextClassifier):
        classes = json.loads((path / "student.json").read_text())["classes"]
        return PictureTeacher(network, len(classes), name, digest)
    return TextTeacher(network, _tokens(path, settings, name, network), name, digest)


def _transformers(path: Path, settings: Mapping[str, Any], name: str, digest: str) -> LabelTeacher:
    network = load_folder(path, f"teacher {name}")
    return TextTeacher(network, _tokens(path, settings, name, network), name, digest)


def _tokens(path: Path, settings: Mapping[str, Any], name: str, network: TextClassifier) -> Tokens:
    if settings.get("max_tokens") is None or settings.get("truncate") is None:
        raise UserError(f"teacher {name}: it takes texts: say max_tokens and truncate")
    # RoBERTa finds its positions by the token that fills: the network says which it is.
    pad: Any = network.model.config.pad_token_id  # type: ignore[union-attr]
    return load_tokens(path, max_tokens=settings["max_tokens"], truncate=settings["truncate"], pad=pad)


LOADERS: dict[str, Callable[[Path, Mapping[str, Any], str, str], LabelTeacher]] = {
    "network": _network,
    "student": _student,
    "transformers": _transformers,
}
