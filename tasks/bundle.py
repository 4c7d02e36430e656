"""bundle: the folder an app ships: model files, a detector's files, manifest.json and a model card.

Reads data/inputs/inputs.jsonl and, of one student, pairs/, student/, exported/, detector/, benchmark/ and report/;
refuses what does not belong together. Writes data/students/NAME/bundle/. A student that does not pass the gate is
bundled too, so that it can be looked at; its manifest says so.
Command: python -m tasks.bundle --student NAME
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.evidence import Evidence
from tasks.files import read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.gate import Decision, decide
from tasks.manifest import (
    MANIFEST,
    SCHEMA,
    DetectorFile,
    Document,
    Latency,
    Manifest,
    ModelFile,
    Parity,
    Quality,
    ShiftedSet,
    Tensor,
    verify_bundle,
)
from tasks.params import Params
from tasks.phone import MIB, on_target
from tasks.records import Input, Verdict, made_files, read_detector, read_made, read_records
from tasks.stage import STUDENTS, student_main
from tasks.student_params import Student
from tasks.target import fastest_files, judged_file, without_addresses
from tasks.templates import render_markdown

INPUTS = Path("data/inputs/inputs.jsonl")
CARD = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
ORIGINS_SHOWN = 12  # per licence, in the card


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the earlier stages left, checked to belong together."""

    pairs: dict[str, Any]  # pairs.json
    exported: dict[str, Any]  # exported.json
    benchmark: dict[str, Any]  # benchmark.json
    quality: dict[str, Any]  # quality.json
    detector: dict[str, Any]  # detector.json, with what latency.json says under `latency`
    models: dict[str, bytes]  # by file name, of the recorded sha256
    training: list[Input]  # that kept training pairs were cut from


def bundle(params: Params, name: str, student: Student) -> None:
    """Write data/students/NAME/bundle; raises UserError where what it reads does not belong together."""
    folder = STUDENTS / name
    work = read_work(folder, INPUTS)
    evidence = find_evidence(work, student.gate.target)
    decision = decide(evidence, None, student.gate)  # its own merits; tasks/compare.py is about the champion
    manifest = describe(name, student.task, work, decision)
    card = write_card(manifest, work, evidence).encode()
    document = Document(file=CARD, sha256=sha256_bytes(card), bytes=len(card))
    with replacing_folder(folder / "bundle") as made:
        for file, data in work.models.items():
            write_bytes(made / file, data)
        write_bytes(made / CARD, card)
        write_json(made / MANIFEST, manifest.model_copy(update={"documents": [document]}).to_json())
        verify_bundle(made)
    print(f"{name}: gate {'passed' if decision.passed else 'not passed: ' + decision.reason}; {folder}/bundle")


def read_work(folder: Path, inputs: Path) -> Work:
    """Read and check what the bundle is made of."""
    pairs, _, exported = read_made(folder)
    benchmark = read_json(folder / "benchmark" / "benchmark.json")
    models = {record["file"]: read_model(folder / "exported", record) for record in made_files(exported)}
    detector = read_detector(folder / "detector")
    if (detector["student"], detector["pairs"]) != (exported["student"], pairs["digest"]):
        raise UserError(f"{folder}/detector was made for other weights or pairs: run dvc repro")
    for row in benchmark["files"]:
        if row["file"] not in models or row["sha256"] != sha256_bytes(models[row["file"]]):
            raise UserError(f"{folder}/benchmark timed another {row['file']} than the exported one: run dvc repro")
    kept = {one.input for one in read_records(folder / "pairs" / "kept.jsonl", Verdict) if one.split == "train"}
    models |= {record["file"]: read_model(folder / "detector", record, "detector") for record in detector["files"]}
    return Work(
        pairs=pairs,
        exported=exported,
        detector=detector,
        benchmark=benchmark,
        quality=read_json(folder / "report" / "quality.json"),
        models=models,
        training=[one for one in read_records(inputs, Input) if one.digest in kept],
    )


def read_model(folder: Path, record: Mapping[str, Any], stage: str = "quantise") -> bytes:
    """A model file's bytes; those that were checked are those that are shipped."""
    path: Path = folder / record["file"]
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"exported model: no file at {path}: run dvc repro -f {stage}@{folder.parent.name}") from None
    if sha256_bytes(data) != record["sha256"]:
        raise UserError(
            f"exported model: {path} has sha256 {sha256_bytes(data)}, {folder.name}.json says {record['sha256']}: "
            f"delete {folder} and run dvc repro {stage}@{folder.parent.name}"
        )
    return data


def find_evidence(work: Work, target: str) -> Evidence:
    """What evaluate measured of the file a phone runs, its time on the target, and what this bundle ships of it."""
    found = work.quality.get("evidence")
    if not isinstance(found, dict):
        raise UserError("report/quality.json holds no evidence for the gate: run dvc repro evaluate")
    evidence = Evidence.from_json(found)
    if (evidence.pairs, evidence.teacher) != (work.pairs["digest"], work.pairs["teacher"]):
        raise UserError("report/quality.json was measured on other pairs than those of pairs/: run dvc repro evaluate")
    phone = judged_file(work.exported["files"])
    return replace(
        on_target(evidence, work.benchmark, work.exported["files"], target),
        shipped_sha256=sha256_bytes(work.models[phone["file"]]),
        bundle_mib=sum(len(data) for data in work.models.values()) / MIB,
    )


def describe(name: str, task: str, work: Work, decision: Decision) -> Manifest:
    """The manifest, but for the model card, which is written from it."""
    return Manifest.model_validate(
        {
            "schema": SCHEMA,
            "name": name,
            "task": task,
            "digests": {
                "teacher": {
                    "name": work.pairs["teacher_name"],
                    "version": work.pairs["teacher_version"],
                    "digest": work.pairs["teacher"],
                },
                "pairs": work.pairs["digest"],
                "weights": work.exported["student"],
            },
            "files": [_model_file(record, work) for record in work.exported["files"]],
            "control": [_slider_file(record, work) for record in work.exported.get("control", ())],
            "detector": _detector(work),
            "sizes": work.exported.get("sizes", []),
            "documents": [],
            "baselines": {label: _quality(found) for label, found in work.quality["baselines"].items()},
            "test_samples": work.quality["test_samples"],
            "machine": work.benchmark["machine"],
            "targets": without_addresses(work.benchmark)["targets"],
            "frames": without_addresses(work.benchmark)["frames"],
            "gate": {
                "passed": decision.passed,
                "reason": decision.reason,
                "results": [result.to_json() for result in decision.results],
            },
        }
    )


def _detector(work: Work) -> dict[str, Any] | None:
    """What detector.json says that an app needs, if there is one."""
    found = work.detector
    if found["without"]:
        return None
    shown = [{key: one[key] for key in ShiftedSet.model_fields} for one in found["sets"]]
    files = [
        {key: one[key] for key in DetectorFile.model_fields if key != "input"} | {"input": _tensor(one, work)}
        for one in found["files"]
    ]
    kept = {key: found[key] for key in ("looks_at", "passes_at", "alarms")}
    return {**kept, "files": files, "sets": shown, "time_share": found["latency"]["share"]}


def _tensor(record: Mapping[str, Any], work: Work) -> Tensor:
    size = work.pairs["size"]
    shape = (1, size, size, 3) if record["layout"] == "NHWC" else (1, 3, size, size)
    return Tensor(shape=shape, dtype="float32", layout=record["layout"], range=(0.0, 1.0), colour="RGB")


def _slider_file(record: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Of a file that a slider added; those that take the strength are judged as a whole, in quality.json."""
    found = work.quality["control"]["files"].get(record["file"], {})
    return {**_model_file(record, work).model_dump(), "strength": record["strength"], "quality": _quality(found)}


def _model_file(record: Mapping[str, Any], work: Work) -> ModelFile:
    tensor = _tensor(record, work)
    rows = [row for row in without_addresses(work.benchmark)["files"] if row["file"] == record["file"]]
    return ModelFile(
        file=record["file"],
        sha256=record["sha256"],
        bytes=len(work.models[record["file"]]),
        runtime=record["runtime"],
        precision=record["precision"],
        input=tensor,
        output=tensor,
        parity=Parity.model_validate({key: record["parity"].get(key) for key in Parity.model_fields}),
        quality=_quality(work.quality["files"].get(record["file"], {})),
        high=tuple(record.get("high", ())),
        fastest=record["file"] in fastest_files(work.benchmark["files"], work.exported["files"]).values(),
        latency=[Latency.model_validate({key: row[key] for key in Latency.model_fields if key in row}) for row in rows],
    )


def _quality(found: Mapping[str, Any]) -> Quality:
    """The figures a bundle carries, out of those the report has."""
    return Quality.model_validate({key: found.get(key) for key in Quality.model_fields})


def write_card(manifest: Manifest, work: Work, evidence: Evidence) -> str:
    """MODEL_CARD.md: the manifest in words."""
    rows = [{"label": entry.file, "quality": entry.quality} for entry in manifest.files]
    rows += [{"label": label.replace("_", " "), "quality": found} for label, found in manifest.baselines.items()]
    return render_markdown(
        TEMPLATE,
        **dict(manifest),
        size=work.pairs["size"],
        evidence=evidence,
        rows=rows,
        machine_words=_in_words(manifest.machine),
        training_pairs=work.pairs["counts"]["train"],
        training_inputs=len(work.training),
        sources=_sources(work.training),
        without_detector=work.detector["without"],
    )


def _in_words(machine: Mapping[str, Any]) -> str:
    if isinstance(machine.get("words"), str):
        return str(machine["words"])
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in sorted(machine.items()))


def _sources(training: Sequence[Input]) -> list[dict[str, Any]]:
    """The training inputs by licence, the origin of the first few of each."""
    sources = []
    for licence in sorted({item.licence for item in training}):
        items = [item for item in training if item.licence == licence]
        origins = sorted({item.origin.partition("#")[0] if item.clip else item.origin for item in items})
        shown = origins[:ORIGINS_SHOWN]
        sources.append({"licence": licence, "inputs": len(items), "origins": shown, "more": len(origins) - len(shown)})
    return sources


if __name__ == "__main__":
    student_main("bundle", bundle)
