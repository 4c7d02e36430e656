"""Texts as tokens: a teacher's own tokeniser from its folder, or one trained on the training texts.

A tokeniser is one file, tokenizer.json, as the library tokenizers writes it: no code, no pickle. Its digest is over
what decides the ids; how long rows are is said apart.

WordPiece: Wu et al. 2016. Byte-pair encoding: Sennrich et al. 2016, on bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.files import replacing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.int64]

FILE = "tokenizer.json"
PAD, UNKNOWN, BEGIN, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHECKED = 4096  # texts whose lengths are looked at at a time
FILLERS = (PAD, "<pad>")  # what the token that fills is called


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Turns texts into rows of `max_tokens`; `data` is a tokenizer.json."""

    data: bytes
    max_tokens: int
    truncate: bool  # longer texts lose their end; else they are refused
    pad: int
    tokenizer: "Tokenizer"

    @property
    def digest(self) -> str:
        """Hex sha256 of what decides the ids: not of how rows are filled or cut, which is said here."""
        told = json.loads(self.data)
        told.pop("padding", None)
        told.pop("truncation", None)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def vocabulary(self) -> int:
        """How many ids there are: one more than the highest."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def __call__(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Texts -> ids and mask, both (B,max_tokens), the mask 1 where there is a token.

        UserError where texts are longer and `truncate` is false.
        """
        return filled(self.rows(texts), self.max_tokens, self.pad)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, as many as there are, none more than `max_tokens`."""
        found = [one.ids for one in self.tokenizer.encode_batch(list(texts))]
        long = [number for number, ids in enumerate(found) if len(ids) > self.max_tokens]
        self._refuse_long([len(found[number]) for number in long], len(texts), "")
        if long:
            self.tokenizer.enable_truncation(self.max_tokens)  # keeps what stands at the end of every text
            for number, one in zip(long, self.tokenizer.encode_batch([texts[number] for number in long]), strict=True):
                found[number] = one.ids
            self.tokenizer.no_truncation()
        return found

    def check_lengths(self, texts: Sequence[str], what: str) -> None:
        """Refuse, in one line as `what`, all texts that are too long, where `truncate` is false."""
        long: list[int] = []
        for start in range(0, len(texts), CHECKED):
            some = self.tokenizer.encode_batch(list(texts[start : start + CHECKED]))
            long += [len(one.ids) for one in some if len(one.ids) > self.max_tokens]
        self._refuse_long(long, len(texts), f"{what}: ")

    def _refuse_long(self, lengths: Sequence[int], count: int, what: str) -> None:
        if lengths and not self.truncate:
            raise UserError(
                f"{what}{len(lengths)} of {count} texts have more than {self.max_tokens} tokens, the longest "
                f"{max(lengths)}: raise max_tokens, or set truncate to true"
            )

    def texts(self, ids: Ids) -> list[str]:
        """Rows of ids back to texts, special tokens left out."""
        return self.tokenizer.decode_batch(ids.tolist(), skip_special_tokens=True)

    def save(self, folder: Path) -> str:
        """Write tokenizer.json; returns the sha256 of its bytes."""
        with replacing(folder / FILE) as temporary:
            temporary.write_bytes(self.data)
        return hashlib.sha256(self.data).hexdigest()


def filled(rows: Sequence[Sequence[int]], length: int, pad: int) -> tuple[Ids, Ids]:
    """Rows of ids, each at most `length` -> ids and mask (B,length)."""
    ids = np.full((len(rows), length), pad, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask


def open_tokens(data: bytes, what: str, *, max_tokens: int, truncate: bool, pad: int | None = None) -> Tokens:
    """The tokeniser that a tokenizer.json holds; `pad` is the id that fills where the file does not say it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # noqa: BLE001 - the library raises Exception itself
        raise UserError(
            f"{what} is no {FILE} of the library tokenizers ({' '.join(str(error).split()):.120})"
        ) from None
    if pad is None:
        names = (tokenizer.token_to_id(name) for name in FILLERS)
        stated = tokenizer.padding["pad_id"] if tokenizer.padding else None
        pad = next((one for one in (stated, *names) if one is not None), 0)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    least = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_tokens <= least:
        raise UserError(f"max_tokens {max_tokens}: {what} adds {least} of its own to every text: raise it")
    return Tokens(data=data, max_tokens=max_tokens, truncate=truncate, pad=pad, tokenizer=tokenizer)


def load_tokens(folder: Path, *, max_tokens: int, truncate: bool, pad: int | None = None) -> Tokens:
    """The tokeniser of a folder that transformers, or a student's training, wrote."""
    try:
        data = (folder / FILE).read_bytes()
    except OSError:
        raise UserError(
            f"no {FILE} in {folder}: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one"
        ) from None
    return open_tokens(data, str(folder / FILE), max_tokens=max_tokens, truncate=truncate, pad=pad)


def student_tokens(architecture: Mapping[str, Any], teacher: Tokens | None, texts: Iterable[str]) -> Tokens:
    """What a student's `architecture:` block asks for: the teacher's tokeniser, or one learnt from training texts."""
    settings, length = dict(architecture["tokens"]), architecture["max_tokens"]
    if settings["by"] != "teacher":
        return train_tokens(texts, **settings, max_tokens=length)
    if teacher is None:
        raise UserError(
            "architecture.tokens.by is teacher, and this teacher has no tokeniser: say wordpiece or bpe, with a "
            "vocabulary"
        )
    return replace(teacher, max_tokens=length, truncate=settings["truncate"])


def train_tokens(
    texts: Iterable[str], *, by: str, vocabulary: int, lowercase: bool, max_tokens: int, truncate: bool
) -> Tokens:
    """A tokeniser of at most `vocabulary` tokens, learnt by "wordpiece" or "bpe"; equal texts give equal bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    texts, first = list(texts), list(SPECIAL)
    if by == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=first, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        # The trainer meets the letters within words in an order of chance, and breaks ties by it: it is given one.
        first += inner_letters(tokenizer, texts)
        trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    begin, end = (tokenizer.token_to_id(name) for name in (BEGIN, END))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} $B:1 {END}:1",
        special_tokens=[(BEGIN, begin), (END, end)],
    )
    told = json.loads(tokenizer.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] in SPECIAL]
    data = (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode()
    return open_tokens(data, "the trained tokeniser", max_tokens=max_tokens, truncate=truncate)


def inner_letters(tokenizer: "Tokenizer", texts: Iterable[str]) -> list[str]:
    """The letters that stand within words, as WordPiece writes them: ##a, ##b, ..."""
    letters: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            letters.update(word[1:])
    return [f"##{letter}" for letter in sorted(letters)]


def check_same(teacher: Tokens, student: Tokens) -> None:
    """Refuse a teacher and a student that know texts by other ids."""
    if teacher.digest != student.digest:
        raise UserError(
            f"the teacher's tokeniser ({teacher.digest:.12}, {teacher.vocabulary} tokens) is not the student's "
            f"({student.digest:.12}, {student.vocabulary} tokens): give the student the teacher's (tokens.by: teacher)"
        )
