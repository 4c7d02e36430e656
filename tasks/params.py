"""params.yaml as typed, strict values: one section per stage for what is shared, one block per student.

Here the whole is put together, read and checked; what each key means is told in tasks/stage_params.py,
curate_params.py, student_params.py, teacher_params.py, training_params.py and gate_params.py. Defaults live in
params.yaml alone. An unknown key, a wrong type or a value out of range is refused with one line that names the key.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from models.errors import UserError
from models.teachers.pinned import places
from tasks.chat_params import Written
from tasks.classification.params import TEACHER, Classifier, ImageClassifier, TextClassifier
from tasks.curate_params import Curate
from tasks.dataset_params import Dataset
from tasks.schema import Section
from tasks.stage_params import (
    Benchmark,
    Coverage,
    Detector,
    Drift,
    Evaluate,
    Exportability,
    Generate,
    Ingest,
    Quantise,
    Retrain,
    Splits,
    TrainShared,
    Video,
)
from tasks.student_params import Student
from tasks.teacher_params import TAGS

NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")
# The C parser reads 1,000 students in about a second, Python's own in ten; not every PyYAML has it.
YAML_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ClassifierBlock = ImageClassifier | TextClassifier
AnyStudent = Student | ClassifierBlock
Block = TypeVar("Block", bound=Section)
# Keys below a student's block, joined by dots, and the values they have instead.
Values = dict[str, bool | int | float | str | list[float]]


class Profile(Section):
    """A smaller run, by the section that a student's block is in."""

    students: Values = Field(default_factory=dict)
    classifiers: Values = Field(default_factory=dict)

    def of(self, section: str) -> Values:
        """The values for the students in a section of params.yaml."""
        values: Values = getattr(self, section)
        return values


class Params(Section):
    """The whole of params.yaml."""

    ingest: Ingest
    exportability: Exportability
    generate: Generate
    curate: Curate
    splits: Splits
    train: TrainShared
    quantise: Quantise
    detector: Detector
    benchmark: Benchmark
    video: Video
    evaluate: Evaluate
    retrain: Retrain
    drift: Drift
    coverage: Coverage
    profiles: dict[str, Profile]  # by name: a smaller run, such as CI makes of a pull request
    students: Annotated[dict[str, Student], Field(min_length=1)]
    # Of a file older than they, none.
    datasets: dict[str, Dataset] = Field(default_factory=dict)  # labelled examples, by name
    written: dict[str, Written] = Field(default_factory=dict)  # by dataset: texts that a language model writes
    classifiers: dict[str, Classifier] = Field(default_factory=dict)  # students that are no effects

    @field_validator("students", "classifiers", "datasets", "written")
    @classmethod
    def _plain_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not NAME.fullmatch(name):
                raise ValueError(f"name {name!r}: use small letters, digits and -, beginning with a letter")
        return named

    @model_validator(mode="after")
    def _each_name_once_and_each_dataset_there(self) -> "Params":
        twice = sorted(self.students.keys() & self.classifiers.keys())
        if twice:
            raise ValueError(f"{twice[0]} is a student and a classifier: give one of them another name")
        for name, block in self.classifiers.items():
            if block.dataset not in self.datasets:
                there = ", ".join(self.datasets) or "none"
                raise ValueError(f"classifiers.{name}.dataset {block.dataset!r} is not among datasets ({there})")
        return self

    @model_validator(mode="after")
    def _gates_ask_what_is_measured(self) -> "Params":
        for name, block in self.every.items():
            if block.gate.target not in self.benchmark.targets:
                raise ValueError(
                    f"{self.section_of(name)}.{name}.gate.target {block.gate.target} is not among benchmark.targets "
                    f"({', '.join(self.benchmark.targets)})"
                )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> "Params":
        for name, block in self.students.items():
            if block.train.batch_size % self.train.processes:
                raise ValueError(
                    f"students.{name}.train.batch_size {block.train.batch_size} is no multiple of train.processes "
                    f"{self.train.processes}, which share it evenly"
                )
        return self

    @property
    def every(self) -> dict[str, AnyStudent]:
        """The blocks of all students, whatever they do."""
        return {**self.students, **self.classifiers}

    def block(self, name: str) -> AnyStudent:
        """The block of one student, whatever it does, or one line with the names there are."""
        found = self.students.get(name) or self.classifiers.get(name)
        if found is None:
            raise UserError(f"no student {name!r} in params.yaml; there are: {', '.join(self.every)}")
        return found

    def student(self, name: str) -> Student:
        """The block of one student of pictures, or one line with the names there are."""
        block = self.block(name)
        if not isinstance(block, Student):
            names = ", ".join(self.students)
            raise UserError(f"{name} is a student of {block.task}, and this is about pictures; there are: {names}")
        return block

    def section_of(self, name: str) -> str:
        """The section of params.yaml that a student's block is in."""
        return "classifiers" if name in self.classifiers else "students"

    def dataset(self, name: str) -> Dataset:
        """A dataset's block, or one line with the names there are."""
        if name not in self.datasets:
            there = ", ".join(self.datasets) or "none"
            raise UserError(f"no dataset {name!r} in params.yaml; there are: {there}")
        return self.datasets[name]

    def dataset_of(self, student: str) -> Dataset | None:
        """The dataset's block of a classifier; None of a student of pictures."""
        block = self.classifiers.get(student)
        return self.datasets[block.dataset] if block else None


def _plain(error: ValidationError, where: str = "params.yaml") -> str:
    # An unknown key first: what it was meant to be is then missing too.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    tags = TAGS if "teacher" in first["loc"] else ()  # elsewhere `onnx` is a key as any other
    keys = [str(part) for part in first["loc"] if part not in tags or first["loc"][-1] == part]
    key = ".".join(keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key}{more}"
    if first["type"] == "missing":
        return f"{where}: missing key {key}{more}"
    # What was pasted there may be a key itself, alone or within a block.
    told = keys[-1:] != ["key_variable"] and not (keys[:1] == ["written"] and isinstance(first["input"], Mapping))
    got = f", got {first['input']!r:.80}" if told else ""
    return f"{where}: {key or 'top level'}: {first['msg']}{got}{more}"


def check_files(params: Params, student: str) -> None:
    """Refuse paths that lead nowhere before anything starts, naming the key."""
    block = params.block(student)
    if not isinstance(block, Student):
        check_classifier_files(params, student, block)
        return
    wanted = {
        "ingest.folder": params.ingest.folder,
        "video.clips": params.video.clips,
        f"students.{student}.init": block.init,
        f"students.{student}.train.replay.pairs": block.train.replay.pairs,
    }
    for key, path in wanted.items():
        if not Path(path).is_dir() and not path.startswith("data/students/"):
            raise UserError(f"params.yaml: {key}: no folder at {path}")
    faces = params.curate.faces
    if faces.kind == "onnx" and not Path(faces.path).is_file():
        raise UserError(f"params.yaml: curate.faces.path: no file at {faces.path}")
    for place in places(block.teacher.model_dump()):
        if not (place.is_here or place.revision):
            raise UserError(f"params.yaml: students.{student}.teacher.{place.key}: nothing lies at {place.where}")


def check_classifier_files(params: Params, name: str, block: ClassifierBlock) -> None:
    """Refuse paths of a classifier that lead nowhere."""
    if block.init not in ("", TEACHER) and not (Path(block.init).is_dir() or block.init.startswith("data/students/")):
        raise UserError(f"params.yaml: classifiers.{name}.init: no folder at {block.init}")
    source = params.datasets[block.dataset].source
    if not Path(source).exists():
        raise UserError(f"params.yaml: datasets.{block.dataset}.source: nothing lies at {source}")


def with_profile(block: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a student's block with the values of a profile; the given block, whose parts may be shared, stays."""
    changed = copy.deepcopy(block)
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = changed
        for part in path:
            place = place.get(part)  # type: ignore[assignment]
            if not isinstance(place, dict):
                raise UserError(f"unknown key {key}")
        if path[:1] == ["teacher"] or key in ("teacher", "task"):
            raise UserError(f"{key} may not be changed: a profile makes the same student from the same teacher")
        place[last] = value
    return changed


def changed_student(block: Block, overrides: Mapping[str, Any], where: str) -> Block:
    """A student's block with other values at keys joined by dots; UserError with `where` if it does not fit."""
    try:
        return type(block).model_validate(with_profile(block.model_dump(), overrides))
    except ValidationError as error:
        raise UserError(_plain(error, where)) from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_profiles(params: Params) -> None:
    """Refuse a profile that does not fit every student, before it is wanted in the middle of a night."""
    for profile, values in params.profiles.items():
        for name, block in params.every.items():
            section = params.section_of(name)
            where = f"params.yaml: profiles.{profile}.{section} for {name}"
            changed_student(block, values.of(section), where)


def parse_params(raw: Any) -> Params:
    """Check a parsed YAML value against the schema; raises UserError naming the first wrong key."""
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(_plain(error)) from None
    _check_profiles(params)
    return params


def parse_yaml(text: str, what: str = "params.yaml") -> Any:
    """The value of a YAML text; raises UserError with one line that names it as `what`."""
    try:
        return yaml.load(text, Loader=YAML_LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split())}") from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml; raises UserError with one line."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"no {path} here: run this from the repository's root") from None
    return parse_params(parse_yaml(text, str(path)))
