"""lineage, of classifiers: the chain dataset -> teacher -> answers -> student -> files -> verdict, checked on disk.

Reads everything of one student; writes data/students/NAME/lineage.json, then tells MLflow (tasks/tracking.py).

The command is that of tasks/lineage.py.
"""

from pathlib import Path
from typing import Any

from tasks.classification.examples import open_examples
from tasks.classification.params import Classifier
from tasks.classification.taken import TOKENIZER
from tasks.files import check_sha256, read_json, write_json
from tasks.lineage import all_facts, linked, same
from tasks.params import Params
from tasks.stage import STUDENTS


def lineage(params: Params, name: str, block: Classifier) -> None:
    """Write lineage.json and log the run; a UserError where something was not made from what lies beside it."""
    from tasks.tracking import log_run

    folder = STUDENTS / name
    write_json(folder / "lineage.json", chain(folder, block.dataset))
    log_run(name, all_facts(params, name, block))


def chain(folder: Path, dataset: str) -> dict[str, Any]:
    """Every link with its digest, after each was compared with the bytes on disk and with the link before."""
    examples = open_examples(dataset)
    answers = read_json(folder / "raw" / "answers.json")
    teacher = read_json(folder / "raw" / "teacher.json")
    pairs = read_json(folder / "pairs" / "pairs.json")
    student = read_json(folder / "student" / "student.json")
    exported = read_json(folder / "exported" / "exported.json")
    for place, files in (("raw", answers["files"]), ("pairs", pairs["files"])):
        for file, digest in files.items():
            check_sha256(folder / place / file, digest, place)
    check_sha256(folder / "student" / "weights.safetensors", student["weights_sha256"], "student")
    known = {file["file"]: file["sha256"] for file in exported["files"]}
    for file, digest in known.items():
        check_sha256(folder / "exported" / file, digest, "exported")
    if "tokens" in student:
        known[TOKENIZER] = student["tokens"]["sha256"]
        check_sha256(folder / "student" / TOKENIZER, known[TOKENIZER], "student")
    same("answers", "dataset", answers["dataset"], examples.digest)
    same("answers", "teacher", answers["teacher"], teacher["digest"])
    return linked(folder, teacher, pairs, student, exported, known) | {
        "dataset": {"name": dataset, "digest": examples.digest},
        "raw": answers["digest"],
    }
