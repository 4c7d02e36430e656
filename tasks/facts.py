"""What each stage left on disk, told as parameters, figures, pictures and digests: what lineage hands to MLflow.

Reads the JSON beside the tensors, never the tensors. One function per stage, in the dict FACTS.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.files import read_json, read_jsonl, sha256_file
from tasks.params import Params, Student
from tasks.stage import STUDENTS, work_folder

INPUTS = Path("data/inputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """One stage of one student, as a child run in MLflow shows it."""

    stage: str
    digest: str  # of what it wrote
    params: Mapping[str, Any]  # as in params.yaml
    made_from: Mapping[str, str]  # what it read -> digest
    figures: Mapping[str, Any] = field(default_factory=dict)  # nested; its numbers become metrics
    curve: tuple[Mapping[str, Any], ...] = ()  # lines with `step`
    files: tuple[Path, ...] = ()  # to look at: pictures, pages, cards
    tags: Mapping[str, str] = field(default_factory=dict)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, keys joined by dots; a list is a leaf."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def flat_params(value: Mapping[str, Any]) -> dict[str, str]:
    """Leaves as text, lists as JSON."""
    return {key: leaf if isinstance(leaf, str) else json.dumps(leaf) for key, leaf in flat(value)}


def numbers(value: Mapping[str, Any]) -> dict[str, float]:
    """The leaves that are numbers; truth values and missing ones are none."""
    return {
        key: float(leaf) for key, leaf in flat(value) if isinstance(leaf, int | float) and not isinstance(leaf, bool)
    }


def run_record(stage: str, student: str) -> dict[str, float]:
    """Seconds and peak memory of the stage's last run here, if it ran here."""
    path = work_folder(None if stage == "ingest" else student) / f"{stage}.run.json"
    if not path.exists():
        return {}
    record = read_json(path)
    return {"run.seconds": float(record["seconds"]), "run.peak_mib": float(record["peak_mib"])}


def _ingest(params: Params, name: str, block: Student) -> StageFacts:
    inputs = read_jsonl(INPUTS / "inputs.jsonl")
    splits = [line["split"] for line in inputs]
    return StageFacts(
        stage="ingest",
        digest=sha256_file(INPUTS / "inputs.jsonl"),
        params=params.ingest.model_dump(),
        made_from={},
        figures={
            "inputs": len(inputs),
            "set_aside": len(read_jsonl(INPUTS / "set_aside.jsonl")),
            "split": {split: splits.count(split) for split in sorted(set(splits))},
        },
    )


def _generate(params: Params, name: str, block: Student) -> StageFacts:
    raw = STUDENTS / name / "raw"
    teacher = read_json(raw / "teacher.json")
    shards = read_jsonl(raw / "manifest.jsonl")
    return StageFacts(
        stage="generate",
        digest=sha256_file(raw / "manifest.jsonl"),
        params={
            "generate": params.generate.model_dump(),
            "teacher": block.teacher.model_dump(),
            "pairs": block.pairs.model_dump(),
        },
        made_from={"inputs": sha256_file(INPUTS / "inputs.jsonl"), "teacher": teacher["digest"]},
        figures={"shards": len(shards), "pairs": sum(int(shard["pairs"]) for shard in shards)},
        tags={
            "teacher.name": teacher["name"],
            "teacher.version": str(teacher["version"]),
            "teacher.digest": teacher["digest"],
        },
    )


def _curate(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name
    pairs = read_json(folder / "pairs" / "pairs.json")
    return StageFacts(
        stage="curate",
        digest=pairs["digest"],
        params=params.curate.model_dump(),
        made_from={"raw": sha256_file(folder / "raw" / "manifest.jsonl")},
        figures=read_json(folder / "pairs" / "yield.json"),
        tags={"pairs.digest": pairs["digest"]},
    )


def _train(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "student"
    student = read_json(folder / "student.json")
    return StageFacts(
        stage="train",
        digest=student["weights_sha256"],
        params={
            "shared": params.train.model_dump(),
            "train": block.train.model_dump(),
            "architecture": block.architecture.model_dump(),
            "init": block.init,
        },
        made_from={"pairs": student["pairs"], "init": student["init"]},
        figures={"parameters": student["parameters"], "val": student.get("val"), "final": student.get("final")},
        curve=tuple(read_jsonl(folder / "curve.jsonl")),
        tags={"weights.sha256": student["weights_sha256"]},
    )


def _quantise(params: Params, name: str, block: Student) -> StageFacts:
    path = STUDENTS / name / "exported" / "exported.json"
    exported = read_json(path)
    return StageFacts(
        stage="quantise",
        digest=sha256_file(path),
        params=params.quantise.model_dump(),
        made_from={"weights": exported["student"]},
        figures={file["file"]: {"bytes": file["bytes"], "parity": file["parity"]} for file in exported["files"]},
        tags={f"file.{file['file']}": file["sha256"] for file in exported["files"]},
    )


def _benchmark(params: Params, name: str, block: Student) -> StageFacts:
    path = STUDENTS / name / "benchmark" / "benchmark.json"
    rows = read_json(path)["files"]
    return StageFacts(
        stage="benchmark",
        digest=sha256_file(path),
        params=params.benchmark.model_dump(),
        made_from={row["file"]: row["sha256"] for row in rows},
        figures={f"{row['file']}.threads-{row['threads']}": row for row in rows},
    )


def _evaluate(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name
    quality = read_json(folder / "report" / "quality.json")
    exported = read_json(folder / "exported" / "exported.json")
    pairs = read_json(folder / "pairs" / "pairs.json")
    pictures = sorted(path for path in (folder / "report").rglob("*") if path.suffix in (".html", ".png", ".svg"))
    return StageFacts(
        stage="evaluate",
        digest=sha256_file(folder / "report" / "quality.json"),
        params=params.evaluate.model_dump(),
        made_from={"pairs": pairs["digest"], **{file["file"]: file["sha256"] for file in exported["files"]}},
        figures={key: value for key, value in quality.items() if not key.startswith("per_sample")},
        files=tuple(pictures),
    )


def _bundle(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "bundle"
    manifest = read_json(folder / "manifest.json")
    results = {f"{rule['name']}": rule["value"] for rule in manifest["gate"]["results"]}
    return StageFacts(
        stage="bundle",
        digest=sha256_file(folder / "manifest.json"),
        params=block.gate.model_dump(),
        made_from={file["file"]: file["sha256"] for file in manifest["files"]},
        figures={"gate": results, "passed": int(manifest["gate"]["passed"])},
        files=(folder / "manifest.json", *sorted(folder.glob("*.md"))),
        tags={
            "bundle.sha256": sha256_file(folder / "manifest.json"),
            "gate": "passed" if manifest["gate"]["passed"] else "failed",
            "gate.reason": manifest["gate"]["reason"],
        },
    )


FACTS: dict[str, Callable[[Params, str, Student], StageFacts]] = {
    "ingest": _ingest,
    "generate": _generate,
    "curate": _curate,
    "train": _train,
    "quantise": _quantise,
    "benchmark": _benchmark,
    "evaluate": _evaluate,
    "bundle": _bundle,
}
