"""The data that flows between stages: small frozen records, written as JSON beside the tensors.

Identity is always a digest, never a path, a time or a host name, so that equal work gives equal bytes.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from models.errors import UserError
from tasks.files import read_json, read_jsonl, write_jsonl

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A line of a JSON-lines file."""

    def to_json(self) -> dict[str, Any]:
        """This record as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The record a JSON object stands for; a UserError when its keys are not this version's."""
        try:
            return cls(**value)
        except TypeError as error:
            raise UserError(f"a {cls.__name__} record does not fit this version ({error}): run dvc repro") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Input(Record):
    """One image or video frame: data/inputs/images/DIGEST.png, listed in data/inputs/inputs.jsonl."""

    digest: str  # sha256 of the decoded, upright, scaled RGB pixels and their shape
    origin: str  # library:NAME/FILE, or folder:PATH BELOW THE FOLDER; #SECONDS follows for a video frame
    licence: str
    width: int
    height: int
    clip: str  # inputs of one video share it; "" for a photo
    group: str  # inputs of one clip or near-duplicate cluster share it; never on two sides of a split
    split: SplitName


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside(Record):
    """A file ingest did not take, in data/inputs/set_aside.jsonl."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Record):
    """One (input crop, teacher output) pair; a pure function of its four digests and its seed."""

    id: str  # sha256 of teacher, input, crop, size, seed and what was done to the crop
    teacher: str  # the teacher's digest
    input: str  # Input.digest; "" where the teacher drew the input too
    crop: tuple[int, int, int]  # left, top, side in pixels of the input; scaled to the pair's size
    hue: int  # degrees by which the crop's hues are turned before the teacher sees it; 0 leaves it as it is
    seed: int
    split: SplitName
    group: str  # the input's
    finite: bool  # the teacher gave neither NaN nor infinity
    clipped: float  # share of the teacher's values outside [0,1]
    refused: str = ""  # the teacher's reason for not making a picture, where it gives one
    strength: float | None = None  # of the effect, where the teacher says it
    # What else was done to the crop before the teacher saw it.
    occluder: str = ""  # what was drawn into it from the seed (tasks/occluders.py), if anything
    stops: float = 0.0  # by which its exposure was changed
    gamma: float = 1.0  # to whose power its light was taken
    again: int | None = None  # the seed with which the teacher was asked once more, where it was
    disagreement: float | None = None  # root mean square difference of its two answers, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """Curation of one pair: empty `rule` keeps it. In pairs/kept.jsonl and pairs/rejected.jsonl."""

    pair: str
    split: SplitName
    rule: str  # the rule that rejected it, or ""
    reason: str  # in words, with the figure and the threshold
    index: int  # row in pairs/SPLIT.{inputs,targets}.npy, -1 when rejected
    input: str  # Input.digest
    seed: int
    # By rule, the higher the worse; what could not be measured, such as the likeness of faces that are not there, is
    # missing.
    scores: dict[str, float] = field(default_factory=dict)
    also: list[str] = field(
        default_factory=list
    )  # rules that come after `rule` and object too, or that a person overruled
    by: str = ""  # whose decision it was, where a person's was (tasks/decisions.py)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one record a line."""
    write_jsonl(path, (record.to_json() for record in records))


def read_records(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Read one record a line; a UserError for a missing, broken or older file."""
    return [kind.from_json(value) for value in read_jsonl(path)]


def rows_of(verdicts: Iterable[Verdict], split: SplitName, count: int, kept: Path) -> list[Verdict]:
    """The verdict of each of the `count` rows of a split's arrays, by row, of those that the file `kept` lists.

    Raises UserError where it lists others.
    """
    mine = sorted((one for one in verdicts if one.split == split), key=lambda one: one.index)
    if [one.index for one in mine] != list(range(count)):
        raise UserError(f"{kept} does not list the {count} rows of {split}.inputs.npy: curate again")
    return mine


def read_made(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """pairs.json, student.json and exported.json of a student; a UserError if one was not made from the one before."""
    pairs = read_json(folder / "pairs" / "pairs.json")
    student = read_json(folder / "student" / "student.json")
    exported = read_json(folder / "exported" / "exported.json")
    if student["pairs"] != pairs["digest"]:
        raise UserError(f"{folder}/student was trained on other pairs than {folder}/pairs: run dvc repro")
    if exported["student"] != student["weights_sha256"]:
        raise UserError(f"{folder}/exported was made from other weights than {folder}/student: run dvc repro")
    return pairs, student, exported


def read_detector(folder: Path) -> dict[str, Any]:
    """detector.json with what latency.json says under `latency`, None where there is no detector."""
    found: dict[str, Any] = read_json(folder / "detector.json")
    return found | {"latency": None if found["without"] else read_json(folder / "latency.json")}


def made_files(exported: dict[str, Any]) -> list[dict[str, Any]]:
    """Every file's line in exported.json, those that a slider added (models/controls.py) last."""
    return [*exported["files"], *exported.get("control", ())]
