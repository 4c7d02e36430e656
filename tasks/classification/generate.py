"""generate, of classifiers: the teacher's logits of every example, of training pictures in several augmented views.

Reads data/datasets/NAME. Writes data/students/NAME/raw: SPLIT.logits.npy (N,V,C) float32 (V is 1 of held-out examples
and of texts), SPLIT.pooled.npy (N,V,D) float16 where `pairs.pooled` asks for what the teacher holds before its last
layer, refused.jsonl where a language model would not answer (its logits are NaN), teacher.json, answers.json (of which
teacher, dataset and views they are, by digest). Until it is whole it grows in data/.work/NAME/generate-KEY, a file a
block of examples, from where a later run goes on.

The command is that of tasks/generate.py.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.classification.views import Viewer, Views
from models.errors import UserError
from models.teachers.pinned import without_places
from tasks.arrays import ArrayFile
from tasks.classification.examples import Examples, ExampleSet, open_examples
from tasks.classification.params import Classifier
from tasks.files import replacing_folder, sha256_file, sha256_json, write_bytes, write_json
from tasks.params import Params
from tasks.progress import progress
from tasks.records import SPLITS, Record, SplitName, write_records
from tasks.stage import STUDENTS, work_folder

Floats = npt.NDArray[np.float32]

FORMAT = 2  # raise it when answers are made or stored in another way
BLOCK = 256  # examples whose answers are kept together: the most that a kill can cost
MIB = 2**20
REFUSED = "refused.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Record):
    """An example that the teacher would not answer; its logits are NaN."""

    split: SplitName
    row: int
    reason: str


def generate(params: Params, name: str, block: Classifier) -> None:
    """Make data/students/NAME/raw, going on from what an earlier run left."""
    from models.classification.networks import check_classes
    from models.classification.teachers import load_teacher

    examples = open_examples(block.dataset)
    if examples.kind != block.takes:
        raise UserError(
            f"classifiers.{name}: {block.task} takes {block.takes}, and dataset {block.dataset} is of {examples.kind}"
        )
    teacher = load_teacher(block.teacher.model_dump())
    check_classes(teacher.labels, teacher.classes, examples.classes, f"teacher {block.teacher.name}")
    check_budget(name, examples, block)
    check_lengths(teacher, examples)
    about = {
        "format": FORMAT,
        "teacher": teacher.digest,
        "dataset": examples.digest,
        "pairs": block.pairs.model_dump(exclude={"max_mib"}),
    }
    folder = work_folder(name) / f"generate-{sha256_json(about)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob("generate-*"):
        if other != folder and other.is_dir():
            shutil.rmtree(other)
    viewers = {split: viewer(examples.splits[split], block, split == "train") for split in SPLITS}
    count = sum(len(examples.splits[split]) * views_of(viewers[split]) for split in SPLITS)
    with progress(f"generate {name}", count, "answers") as advance:
        for split in SPLITS:
            for start in range(0, len(examples.splits[split]), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(examples.splits[split])))
                path = folder / f"{split}-{start:09d}.safetensors"
                if not path.exists():
                    answer(teacher, viewers[split], rows, len(examples.classes), block.pairs.pooled, path)
                advance(len(rows) * views_of(viewers[split]))
    with replacing_folder(STUDENTS / name / "raw") as raw:
        files = {file: sha256_file(raw / file) for split in SPLITS for file in join(folder, raw, split)}
        refused = refusals(teacher, examples, raw)
        if refused:
            write_records(raw / REFUSED, refused)
            files[REFUSED] = sha256_file(raw / REFUSED)
        write_json(raw / "teacher.json", without_places(block.teacher.model_dump()) | {"digest": teacher.digest})
        record = about | {"classes": examples.classes, "files": files}
        write_json(raw / "answers.json", record | {"digest": sha256_json(record)})
    shutil.rmtree(folder)


def viewer(examples: Examples, block: Classifier, training: bool) -> Any:
    """What shows the examples: views of training pictures, everything else as it is."""
    if not isinstance(examples.inputs, np.ndarray):
        return examples.inputs
    asked = block.pairs
    views = Views(count=len(examples), views=asked.views, pad=asked.pad, flip=asked.flip, seed=asked.seed)
    return Viewer(examples.inputs, views if training else None)


def views_of(shown: Any) -> int:
    """How many views of an example there are."""
    return shown.views.views if isinstance(shown, Viewer) and shown.views else 1


def check_budget(name: str, examples: ExampleSet, block: Classifier) -> None:
    """Refuse answers that take more room than `pairs.max_mib`."""
    held_out = len(examples.splits["val"]) + len(examples.splits["test"])
    views = block.pairs.views if examples.kind == "images" else 1
    needed = 4 * len(examples.classes) * (len(examples.splits["train"]) * views + held_out) / MIB
    if needed > block.pairs.max_mib:
        raise UserError(
            f"classifiers.{name}: the teacher's logits take {needed:.0f} MiB, and pairs.max_mib is "
            f"{block.pairs.max_mib:g}: ask for fewer views, or raise it"
        )


def check_lengths(teacher: Any, examples: ExampleSet) -> None:
    """Refuse texts of any split that are longer than the teacher takes, all of them in one line."""
    if examples.kind == "texts":
        texts = [text for split in SPLITS for text in examples.splits[split].inputs]
        for one in getattr(teacher, "teachers", [teacher]):
            if one.tokens is not None:
                one.tokens.check_lengths(texts, f"teacher {one.name}")


def answer(teacher: Any, shown: Any, rows: npt.NDArray[np.int64], classes: int, pooled: bool, path: Path) -> None:
    """Ask the teacher about some rows in all their views, and keep what it says."""
    from safetensors.numpy import save

    logits, features = [], []
    for view in range(views_of(shown)):
        if isinstance(shown, Viewer):
            inputs: Any = shown(rows, np.full(len(rows), view))
        else:
            inputs = [shown[row] for row in rows]
        if pooled:
            found, inside = teacher.with_pooled(inputs)
            features.append(np.asarray(inside, np.float16))
        else:
            found = teacher(inputs)
        check_answers(found, len(rows), classes, may_refuse=hasattr(teacher, "refusal"))
        logits.append(np.asarray(found, np.float32))
    arrays = {"logits": np.stack(logits, axis=1)} | ({"pooled": np.stack(features, axis=1)} if pooled else {})
    write_bytes(path, save({what: np.ascontiguousarray(values) for what, values in arrays.items()}))


def check_answers(found: Floats, count: int, classes: int, *, may_refuse: bool = False) -> None:
    """Refuse logits that are not (count,classes), or not finite; whole rows of NaN are those that a teacher refuses."""
    if found.shape != (count, classes):
        raise UserError(
            f"the teacher gives logits of {found.shape[-1]} classes, and the dataset has {classes}: take a teacher of "
            "these classes, or name the dataset's `classes` in its order"
        )
    refused = np.isnan(found).all(axis=1) & may_refuse
    broken = int((~np.isfinite(found).all(axis=1) & ~refused).sum())
    if broken:
        raise UserError(f"the teacher's logits of {broken} of {count} examples are not finite: look at its weights")


def refusals(teacher: Any, examples: ExampleSet, raw: Path) -> list[Refusal]:
    """What a teacher would not answer, and why; curation takes these examples out."""
    found: list[Refusal] = []
    for split in SPLITS:
        logits = np.load(raw / f"{split}.logits.npy", mmap_mode="r", allow_pickle=False)
        for row in np.flatnonzero(np.isnan(logits).any(axis=(1, 2))).tolist():
            found.append(Refusal(split=split, row=row, reason=teacher.refusal(examples.splits[split].inputs[row])))
    return found


def join(folder: Path, raw: Path, split: str) -> list[str]:
    """Put the blocks of a split together; the names of the files."""
    made: dict[str, ArrayFile] = {}
    for rows in blocks(folder, split):
        for what, values in rows.items():
            file = f"{split}.{what}.npy"
            for value in values:
                if file not in made:
                    made[file] = ArrayFile(raw / file, value.shape, value.dtype)
                made[file].append(value)
    for one in made.values():
        one.close()
    return sorted(made)


def blocks(folder: Path, split: str) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The kept answers of a split, in the order of rows."""
    from safetensors.numpy import load_file

    for path in sorted(folder.glob(f"{split}-*.safetensors")):
        yield load_file(path)
