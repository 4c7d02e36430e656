"""Evidence of a candidate and of the champion, both classifiers, on the candidate's test examples: tasks/compare.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.classification.evaluate import of_file, read_work
from tasks.classification.evidence import LabelEvidence
from tasks.classification.phone import label_evidence
from tasks.classification.quality import MAJORITY, measure_all
from tasks.classification.taken import Pictures, Taken, texts_of
from tasks.compare import alone, beside_bundle, in_turn
from tasks.files import read_json, sha256_file
from tasks.manifest import read_manifest, verify_bundle


def compare(
    folder: Path, champion: Path | None, dataset: str, *, warmup: int, runs: int, target: str
) -> dict[str, Any]:
    """Evidence of the classifier in `folder` and of the bundle at `champion`, as JSON.

    Raises a UserError where a bundle is not whole, the evidence is of other pairs, or the champion tells other classes.
    """
    mine = verify_bundle(folder / "bundle")
    found = LabelEvidence.from_json(read_json(folder / "report" / "quality.json").get("evidence") or {})
    candidate = beside_bundle(found, folder, mine, target)
    own, gives = folder / "bundle" / mine.phone.file, bundle_takes(folder / "bundle").gives
    if champion is None:
        return alone(own, candidate, warmup=warmup, runs=runs, gives=gives)
    other = read_manifest(champion / "manifest.json")
    if (other.task, other.classes) != (mine.task, mine.classes):
        raise UserError(
            f"the champion tells {', '.join(other.classes)} apart ({other.task}), the candidate "
            f"{', '.join(mine.classes)} ({mine.task}): they cannot be compared; give the new one another name"
        )
    work = read_work(folder, dataset)

    def measure(file: Path) -> LabelEvidence:
        answers = measure_all({file.name: of_file(file, "litert", bundle_takes(file.parent))}, work)
        return replace(label_evidence(answers[file.name], answers[MAJORITY], work), measured_sha256=sha256_file(file))

    return in_turn(own, champion, candidate, measure, warmup=warmup, runs=runs, gives=gives)


def bundle_takes(bundle: Path) -> Taken:
    """What the files of a bundle take: texts by its own tokeniser, cut where they are too long, as an app does."""
    tokenizer = read_manifest(bundle / "manifest.json").tokenizer
    return texts_of(bundle, tokenizer.model_dump() | {"truncate": True}, "bundle") if tokenizer else Pictures()
