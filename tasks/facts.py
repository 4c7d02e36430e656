"""What each stage left on disk, told as parameters, figures, pictures and digests: what lineage hands to MLflow.

Reads the JSON beside the tensors, never the tensors. One function per stage, in the dict FACTS. Figures are named
GROUP.WHAT or GROUP.WHOSE.WHAT, the same in every run (mlflow/metrics.yaml); WHOSE is a model file by its precision,
with `onnx-` before it where it is not LiteRT's, or a contestant of the quality table. Where nobody is named it is the
file a phone runs.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.evidence import Evidence
from tasks.files import read_json, read_jsonl, sha256_file
from tasks.gate import RuleResult
from tasks.gate_table import cell, row
from tasks.params import Params
from tasks.quality import IDENTITY, TORCH
from tasks.records import SPLITS, read_detector
from tasks.rules import explained_low, worst_slice
from tasks.stage import STUDENTS, work_folder
from tasks.student_params import Student
from tasks.target import LOCAL, judged_file, public_names, without_addresses

INPUTS = Path("data/inputs")
BANDS = ("best", "median", "worst")  # of the report's pictures, by the student's own explained effect
TABLE = ("| rule | against | found | limit | verdict |", "|---|---|---|---|---|")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """One stage of one student, as a child run in MLflow shows it."""

    stage: str
    digest: str  # of what it wrote
    params: Mapping[str, Any]  # as in params.yaml
    made_from: Mapping[str, str]  # what it read -> digest
    figures: Mapping[str, Any] = field(default_factory=dict)  # nested; its numbers become metrics
    curve: tuple[Mapping[str, Any], ...] = ()  # lines with `step`
    pictures: Mapping[str, Path] = field(default_factory=dict)  # by the same keys in every run
    sheets: tuple[Path, ...] = ()  # of the files, those by which pipeline runs are compared
    files: tuple[Path, ...] = ()  # to look at: pages, cards, pictures
    tags: Mapping[str, str] = field(default_factory=dict)
    told: str = ""  # in Markdown, for the pipeline run's page


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
            "inputs": {split: splits.count(split) for split in SPLITS}
            | {"set_aside": len(read_jsonl(INPUTS / "set_aside.jsonl"))}
        },
    )


def _exportability(params: Params, name: str, block: Student) -> StageFacts:
    path = STUDENTS / name / "exportability" / "exportability.json"
    result = read_json(path)
    timed = work_folder(name) / "exportability.latency.json"
    p50_ms = read_json(timed).get("p50_ms", {}) if timed.exists() else {}
    predicted = {f"{file.replace(' ', '-').removeprefix('litert-')}": {"p50_ms": ms} for file, ms in p50_ms.items()}
    return StageFacts(
        stage="exportability",
        digest=sha256_file(path),
        params=params.exportability.model_dump(),
        made_from={"architecture": result["architecture"]},
        figures={
            "exportability": result["figures"] | {"findings": len(result["findings"])},
            "predicted": predicted,
        },
        files=(path,),
    )


def _generate(params: Params, name: str, block: Student) -> StageFacts:
    raw = STUDENTS / name / "raw"
    teacher = read_json(raw / "teacher.json")
    shards = read_jsonl(raw / "manifest.jsonl")
    return StageFacts(
        stage="generate",
        digest=sha256_file(raw / "manifest.jsonl"),
        params={
            "generate": params.generate.model_dump(exclude={"cluster"}),  # an address is no fact of the pairs
            "teacher": block.teacher.model_dump(),
            "pairs": block.pairs.model_dump(),
        },
        made_from={"inputs": sha256_file(INPUTS / "inputs.jsonl"), "teacher": teacher["digest"]},
        figures={"raw": {"shards": len(shards), "pairs": sum(int(shard["pairs"]) for shard in shards)}},
        tags=teacher_tags(teacher),
    )


def teacher_tags(teacher: Mapping[str, Any]) -> dict[str, str]:
    """What raw/teacher.json says of who the teacher is."""
    return {
        "teacher.name": teacher["name"],
        "teacher.version": str(teacher["version"]),
        "teacher.digest": teacher["digest"],
    }


def _curate(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name
    pairs = read_json(folder / "pairs" / "pairs.json")
    return StageFacts(
        stage="curate",
        digest=pairs["digest"],
        params=params.curate.model_dump(),
        made_from={"raw": sha256_file(folder / "raw" / "manifest.jsonl")},
        figures={"yield": read_json(folder / "pairs" / "yield.json"), "pairs": pairs["counts"]},
        tags={"pairs.digest": pairs["digest"]},
    )


def _train(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "student"
    student = read_json(folder / "student.json")
    replay = student.get("replay", {})  # a student of an older version has none
    return StageFacts(
        stage="train",
        digest=student["weights_sha256"],
        params={
            "shared": params.train.model_dump(),
            "train": block.train.model_dump(),
            "architecture": block.architecture.model_dump(),
            "init": block.init,
        },
        made_from={"pairs": student["pairs"], "init": student["init"]}
        | ({"replay": replay["pairs"]} if replay else {}),
        figures={
            "train": {"parameters": student["parameters"]}
            | ({"replay": {key: replay[key] for key in ("share", "count", "forgetting")}} if replay else {})
        },
        curve=tuple(read_jsonl(folder / "curve.jsonl")),
        tags={"weights.sha256": student["weights_sha256"]},
    )


def _exported(name: str) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """exported.json: its path, what it says, and each file's name in figures."""
    path = STUDENTS / name / "exported" / "exported.json"
    exported = read_json(path)
    return path, exported, file_names(exported["files"])


def file_names(files: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Each model file's name in figures."""
    return {file["file"]: _whose(file) for file in files}


def _whose(file: Mapping[str, Any]) -> str:
    return str(file["precision"]) if file["runtime"] == "litert" else f"{file['runtime']}-{file['precision']}"


def _quantise(params: Params, name: str, block: Student) -> StageFacts:
    path, exported, whose = _exported(name)
    int8 = [file for file in exported["files"] if "to_float" in file]
    return StageFacts(
        stage="quantise",
        digest=sha256_file(path),
        params=params.quantise.model_dump(),
        made_from={"weights": exported["student"]},
        figures={
            "size": {whose[file["file"]]: {"bytes": file["bytes"]} for file in exported["files"]},
            "parity": {whose[file["file"]]: file["parity"] for file in exported["files"]},
            "to_float": {whose[file["file"]]: file["to_float"] for file in int8},
            "sensitivity": {row["block"]: row["cost_db"] for row in exported.get("sensitivity", ())},
        },
        tags={f"file.{file['file']}": file["sha256"] for file in exported["files"]}
        | {f"in_float.{file['file']}": ", ".join(file["high"]) or "none" for file in int8},
    )


def _detector(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "detector"
    found = read_detector(folder)
    figures: dict[str, Any] = {}
    if found["sets"]:
        aurocs = [one["auroc"] for one in found["sets"]]
        figures = {one["name"]: {key: one[key] for key in ("auroc", "fpr_at_95", "fades")} for one in found["sets"]}
        figures |= {"auroc": sum(aurocs) / len(aurocs), "false_positives": found["alarms"]["fades"]["found"]}
        figures |= {"passes_at": found["passes_at"], "time_share": found["latency"]["share"]}
    return StageFacts(
        stage="detector",
        digest=sha256_file(folder / "detector.json"),
        params=params.detector.model_dump(),
        made_from={"pairs": found["pairs"], "weights": found["student"]},
        figures={"detector": figures},
        files=tuple(sorted(folder.glob("*.json"))),
        tags={f"file.{file['file']}": file["sha256"] for file in found["files"]},
    )


def _benchmark(params: Params, name: str, block: Student) -> StageFacts:
    path = STUDENTS / name / "benchmark" / "benchmark.json"
    measured = without_addresses(read_json(path))
    rows = measured["files"]
    _, _, whose = _exported(name)
    figures: dict[str, Any] = {}
    for timed in rows:
        key = whose[timed["file"]]
        place = f"latency.{key}{_where(timed)}"
        figures[place] = {what: timed[what] for what in ("p50_ms", "p90_ms", "p99_ms")}
        if timed["target"] == LOCAL:
            figures[f"memory.{key}"] = {"peak_mib": timed["peak_mib"]}
    for one in measured["frames"]:
        figures[f"frames{_where(one)}.total"] = one["total"]
        figures |= {f"frames{_where(one)}.{step['step']}": step for step in one["steps"]}
    for one in measured["targets"]:
        if "sustained" in one:
            slow = {"last_over_first": one["sustained"]["last_over_first"]}
            figures[f"sustained.{one['target']}"] = slow | {"energy": one["sustained"]["energy"]}
    return StageFacts(
        stage="benchmark",
        digest=sha256_file(path),
        params=params.benchmark.model_dump(exclude={"targets"})
        | {"targets": list(public_names(params.benchmark.targets).values())},
        made_from={timed["file"]: timed["sha256"] for timed in rows},
        figures=figures,
    )


def _variants(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "variants"
    rows = read_json(folder / "variants.json")["rows"]
    return StageFacts(
        stage="variants",
        digest=sha256_file(folder / "variants.json"),
        params=block.variants.model_dump(),
        made_from={"student": read_json(STUDENTS / name / "student" / "student.json")["weights_sha256"]},
        figures={"variants": {"compared": len(rows), "on_front": sum(row["front"] for row in rows)}},
        files=tuple(sorted(folder.iterdir())),
    )


def _video(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "video"
    found = read_json(folder / "video.json")
    return StageFacts(
        stage="video",
        digest=sha256_file(folder / "video.json"),
        params=params.video.model_dump(exclude={"clips"}),
        made_from={"pairs": found["pairs"], "teacher": found["teacher"], "phone": found["phone"]},
        figures={
            "flicker": {kind: levels["phone"] for kind, levels in found["flicker"].items()}
            | {f"{kind}_over_teacher": ratios["phone"] for kind, ratios in found["over_teacher"].items()}
            | {
                whose: {kind: levels[key] for kind, levels in found["flicker"].items()}
                for whose, key in (("teacher", "teacher"), ("fp32", "float"), (IDENTITY, "input"))
            },
        },
        files=tuple(sorted(folder.iterdir())),
    )


def _where(timed: Mapping[str, Any]) -> str:
    """What stands behind a figure's owner: target and threads, where they are not this machine and one."""
    place = "" if timed["target"] == LOCAL else f".{timed['target']}"
    place += f"-{timed['provider']}" if timed.get("provider", "wasm") != "wasm" else ""
    return place if timed["threads"] == 1 else f"{place}.threads-{timed['threads']}"


def _evaluate(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name
    report = folder / "report"
    quality = read_json(report / "quality.json")
    evidence = Evidence.from_json(quality["evidence"])
    pairs = read_json(folder / "pairs" / "pairs.json")
    _, exported, whose = _exported(name)
    phone = judged_file(exported["files"])["file"]
    of_phone = quality["files"][phone] | {"flicker": evidence.flicker, "structure_kept": evidence.structure_kept}
    of_phone |= {"flicker_over_teacher": evidence.flicker_over_teacher}
    of_phone |= {"explained_low": explained_low(evidence).value, "worst_slice": worst_slice(evidence).value}
    others = {whose[file]: found for file, found in quality["files"].items() if file != phone}
    failures = {key: value for key, value in quality["failures"].items() if key != "rows"}
    panel = quality.get("panel") or {}  # none is frozen everywhere
    return StageFacts(
        stage="evaluate",
        digest=sha256_file(report / "quality.json"),
        params=params.evaluate.model_dump(),
        made_from={"pairs": pairs["digest"], **{file["file"]: file["sha256"] for file in exported["files"]}},
        figures={
            "quality": of_phone | others | {TORCH: quality["student"]} | quality["baselines"],
            "shortfall": quality["shortfall"]["parts"]
            | {
                key: value
                for key in ("training", "teacher_to_itself")
                if (value := quality["shortfall"][key]) is not None
            },
            "failures": failures,
            "panel": panel.get("phone") or {},
        },
        pictures=_samples(report / "images"),
        sheets=tuple(report.glob("samples.png")),
        files=tuple(sorted(path for path in report.rglob("*") if path.suffix in (".html", ".png", ".svg", ".webp"))),
    )


def _samples(images: Path) -> dict[str, Path]:
    """The first picture of each band: input, teacher and what the phone's file makes of it."""
    panels = {"input": "input", "teacher": "teacher", "student": "int8"}
    found = {
        f"samples/{band}.{key}": images / f"{band}-1-{panel}.png" for band in BANDS for key, panel in panels.items()
    }
    return {key: path for key, path in found.items() if path.exists()}


def _bundle(params: Params, name: str, block: Student) -> StageFacts:
    folder = STUDENTS / name / "bundle"
    digest, manifest = sha256_file(folder / "manifest.json"), read_json(folder / "manifest.json")
    gate = manifest["gate"]
    # Bundles made before had neither of the two.
    results = [RuleResult.from_json({"against": "", "blessing": "quality"} | one) for one in gate["results"]]
    verdict = "passed" if gate["passed"] else "failed"
    return StageFacts(
        stage="bundle",
        digest=digest,
        params=block.gate.model_dump(),
        made_from={file["file"]: file["sha256"] for file in manifest["files"]},
        figures={
            "gate": {"passed": int(gate["passed"]), "failed_rules": sum(not one.passed for one in results)},
            "gate.rule": {one.name: one.value for one in results},
        },
        files=(folder / "manifest.json", *sorted(folder.glob("*.md"))),
        tags={"bundle.sha256": digest, "gate": verdict, "gate.reason": gate["reason"]},
        told="\n".join([f"**Gate {verdict}:** {cell(gate['reason'])}", "", *TABLE, *map(row, results)]),
    )


FACTS: dict[str, Callable[[Params, str, Student], StageFacts]] = {
    "ingest": _ingest,
    "exportability": _exportability,
    "generate": _generate,
    "curate": _curate,
    "train": _train,
    "quantise": _quantise,
    "detector": _detector,
    "benchmark": _benchmark,
    "variants": _variants,
    "video": _video,
    "evaluate": _evaluate,
    "bundle": _bundle,
}
