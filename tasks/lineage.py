"""Stage lineage: the chain inputs -> teacher -> pairs -> student -> files -> verdict, by digest, checked on disk.

Reads everything of one student; writes data/students/NAME/lineage.json, then tells MLflow (tasks/tracking.py).
lineage.json holds no run ids: MLflow points at digests, never the other way.
Command: python -m tasks.lineage --student NAME
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.facts import INPUTS, StageFacts
from tasks.files import check_sha256, read_json, read_jsonl, sha256_file, write_json
from tasks.kinds import facts_of
from tasks.manifest import verify_bundle
from tasks.params import AnyStudent, Params, load_params
from tasks.records import made_files
from tasks.stage import STUDENTS, locked, student_main, work_folder
from tasks.student_params import Student

Json = Mapping[str, Any]


def lineage(params: Params, name: str, student: Student) -> None:
    """Write lineage.json and log the run; a UserError where something was not made from what lies beside it."""
    from tasks.tracking import log_run

    folder = STUDENTS / name
    write_json(folder / "lineage.json", chain(folder, INPUTS))
    log_run(name, all_facts(params, name, student))


def chain(folder: Path, inputs: Path) -> dict[str, Any]:
    """Every link with its digest, after each was compared with the bytes on disk and with the link before."""
    teacher = read_json(folder / "raw" / "teacher.json")
    pairs = read_json(folder / "pairs" / "pairs.json")
    student = read_json(folder / "student" / "student.json")
    exported = read_json(folder / "exported" / "exported.json")
    _check_bytes(folder, pairs, student, exported)
    detector = read_json(folder / "detector" / "detector.json")
    known = {file["file"]: file["sha256"] for file in (*made_files(exported), *detector["files"])}
    links = linked(folder, teacher, pairs, student, exported, known)
    same("detector", "weights", detector["student"], student["weights_sha256"])
    same("detector", "pairs", detector["pairs"], pairs["digest"])
    return links | {
        "inputs": {"digest": sha256_file(inputs / "inputs.jsonl"), "count": len(read_jsonl(inputs / "inputs.jsonl"))},
        "exportability": sha256_file(folder / "exportability" / "exportability.json"),
        "raw": sha256_file(folder / "raw" / "manifest.jsonl"),
        "detector": sha256_file(folder / "detector" / "detector.json"),
    }


def linked(folder: Path, teacher: Json, pairs: Json, student: Json, exported: Json, known: Json) -> dict[str, Any]:
    """The links that every kind of student has, from its teacher to the verdict.

    `known` is the sha256 of every file that may be shipped.
    """
    manifest = verify_bundle(folder / "bundle")
    digests = manifest.digests
    same("pairs", "teacher", pairs["teacher"], teacher["digest"])
    same("student", "teacher", student["teacher"], teacher["digest"])
    same("student", "pairs", student["pairs"], pairs["digest"])
    same("exported", "weights", exported["student"], student["weights_sha256"])
    same("bundle", "teacher", digests.teacher.digest, teacher["digest"])
    same("bundle", "pairs", digests.pairs, pairs["digest"])
    same("bundle", "weights", digests.weights, student["weights_sha256"])
    for file in manifest.loaded:
        same("bundle", f"file {file.file}", file.sha256, known.get(file.file, "none"))
    return {
        "student": manifest.name,
        "teacher": {key: teacher[key] for key in ("kind", "name", "version", "digest")},
        "pairs": {"digest": pairs["digest"], "counts": pairs["counts"]},
        "weights": {"sha256": student["weights_sha256"], "init": student["init"]},
        "files": known,
        "benchmark": sha256_file(folder / "benchmark" / "benchmark.json"),
        "quality": sha256_file(folder / "report" / "quality.json"),
        "bundle": sha256_file(folder / "bundle" / "manifest.json"),
        "gate": {"passed": manifest.gate.passed, "reason": manifest.gate.reason},
    }


def _check_bytes(folder: Path, pairs: dict[str, Any], student: dict[str, Any], exported: dict[str, Any]) -> None:
    """Every file that a record names by sha256 is the one on disk."""
    for line in read_jsonl(folder / "raw" / "manifest.jsonl"):
        check_sha256(folder / "raw" / f"{line['shard']}.safetensors", line["sha256"], "raw")
        check_sha256(folder / "raw" / f"{line['shard']}.jsonl", line["records_sha256"], "raw")
    for file, digest in pairs["files"].items():
        check_sha256(folder / "pairs" / file, digest, "pairs")
    check_sha256(folder / "student" / "weights.safetensors", student["weights_sha256"], "student")
    for record in made_files(exported):
        check_sha256(folder / "exported" / record["file"], record["sha256"], "exported")
    for record in read_json(folder / "detector" / "detector.json")["files"]:
        check_sha256(folder / "detector" / record["file"], record["sha256"], "detector")


def same(link: str, what: str, found: str, expected: str) -> None:
    """Refuse a link that names another thing than lies on disk."""
    if found != expected:
        raise UserError(f"{link} names {what} {found:.12}, on disk lies {expected:.12}: run dvc repro to make it again")


def all_facts(params: Params, name: str, block: AnyStudent) -> list[StageFacts]:
    """The facts of every stage, this one included."""
    path = STUDENTS / name / "lineage.json"
    record = read_json(path)
    own = StageFacts(
        stage="lineage", digest=sha256_file(path), params={}, made_from={"bundle": record["bundle"]}, files=(path,)
    )
    return [*(told(params, name, block) for told in facts_of(block.task).values()), own]


def log_again(name: str) -> None:
    """Tell MLflow of a run whose outputs all came from DVC's cache, so that this stage did not run."""
    from tasks.tracking import log_run

    params = load_params()
    with locked(work_folder(name) / "lineage.lock"):
        log_run(name, all_facts(params, name, params.block(name)))


def log_failure(name: str, done: Sequence[str], failed: str, reason: str) -> None:
    """Tell MLflow of a run that ended early: the stages that are done, the one that failed and why.

    If MLflow cannot be told either, that is one more line; the failure itself stays the error.
    """
    try:
        from tasks.tracking import log_run

        params = load_params()
        with locked(work_folder(name) / "lineage.lock"):
            block = params.block(name)
            known = facts_of(block.task)
            facts = [known[stage](params, name, block) for stage in done if stage in known]
            log_run(name, facts, failed=failed, reason=reason)
    except UserError as error:
        print(f"the failure is not in MLflow: {error}", file=sys.stderr)


if __name__ == "__main__":
    student_main("lineage", lineage)
