"""bundle, of classifiers: the folder an app ships: model files, manifest.json and a model card.

A text classifier's tokeniser is shipped beside its files. Reads, of one student, pairs/, student/, exported/,
benchmark/ and report/; refuses what does not belong together. A student that does not pass the gate is bundled too; its
manifest says so.

The command is that of tasks/bundle.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.bundle import CARD, read_model
from tasks.classification.evidence import LabelEvidence
from tasks.classification.params import Classifier
from tasks.classification.taken import TOKENIZER
from tasks.files import check_sha256, read_json, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.gate import Decision, decide
from tasks.manifest import (
    MANIFEST,
    SCHEMA,
    Document,
    LabelParity,
    LabelQuality,
    Latency,
    Logits,
    Manifest,
    ModelFile,
    Tensor,
    TokenizerFile,
    Tokens,
    verify_bundle,
)
from tasks.params import Params
from tasks.phone import MIB, on_target
from tasks.records import read_made
from tasks.stage import STUDENTS
from tasks.target import fastest_files, judged_file, without_addresses
from tasks.templates import render_markdown

TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def bundle(params: Params, name: str, block: Classifier) -> None:
    """Write data/students/NAME/bundle; UserError where what it reads does not belong together."""
    folder = STUDENTS / name
    pairs, student, exported = read_made(folder)
    benchmark = read_json(folder / "benchmark" / "benchmark.json")
    quality = read_json(folder / "report" / "quality.json")
    models = {record["file"]: read_model(folder / "exported", record) for record in exported["files"]}
    for row in benchmark["files"]:
        if row["file"] not in models or row["sha256"] != sha256_bytes(models[row["file"]]):
            raise UserError(f"{folder}/benchmark timed another {row['file']} than the exported one: run dvc repro")
    tokenizer = read_tokenizer(folder / "student", student)
    shipped = sum(map(len, models.values())) + (tokenizer[0].bytes if tokenizer else 0)
    evidence = find_evidence(quality, pairs, exported, benchmark, models, block.gate.target, shipped)
    decision = decide(evidence, None, block.gate)  # its own merits; tasks/compare.py is about the champion
    entry = tokenizer[0] if tokenizer else None
    manifest = describe(name, block.task, pairs, exported, benchmark, quality, models, entry, decision)
    card = render_markdown(TEMPLATE, manifest=manifest, pairs=pairs, student=student, quality=quality).encode()
    document = Document(file=CARD, sha256=sha256_bytes(card), bytes=len(card))
    with replacing_folder(folder / "bundle") as made:
        for file, data in models.items():
            write_bytes(made / file, data)
        if tokenizer:
            write_bytes(made / tokenizer[0].file, tokenizer[1])
        write_bytes(made / CARD, card)
        write_json(made / MANIFEST, manifest.model_copy(update={"documents": [document]}).to_json())
        verify_bundle(made)
    print(f"{name}: gate {'passed' if decision.passed else 'not passed: ' + decision.reason}; {folder}/bundle")


def read_tokenizer(student: Path, record: Mapping[str, Any]) -> tuple[TokenizerFile, bytes] | None:
    """The tokeniser of a text classifier, as a part of the manifest and as bytes; None of pictures."""
    if "tokens" not in record:
        return None
    told, data = record["tokens"], (student / TOKENIZER).read_bytes()
    check_sha256(student / TOKENIZER, told["sha256"], "student's tokeniser")
    shape = {key: told[key] for key in ("max_tokens", "truncate", "pad")}
    return TokenizerFile(file=TOKENIZER, sha256=told["sha256"], bytes=len(data), **shape), data


def find_evidence(
    quality: Mapping[str, Any],
    pairs: Mapping[str, Any],
    exported: Mapping[str, Any],
    benchmark: Mapping[str, Any],
    models: Mapping[str, bytes],
    target: str,
    shipped: int,
) -> LabelEvidence:
    """What evaluate measured of the file a phone runs, its time on the target, and what this bundle ships, in bytes."""
    evidence = LabelEvidence.from_json(dict(quality["evidence"]))
    if (evidence.pairs, evidence.teacher) != (pairs["digest"], pairs["teacher"]):
        raise UserError("report/quality.json was measured on other pairs than those of pairs/: run dvc repro evaluate")
    return replace(
        on_target(evidence, benchmark, exported["files"], target),
        shipped_sha256=sha256_bytes(models[judged_file(exported["files"])["file"]]),
        bundle_mib=shipped / MIB,
    )


def describe(
    name: str,
    task: str,
    pairs: Mapping[str, Any],
    exported: Mapping[str, Any],
    benchmark: Mapping[str, Any],
    quality: Mapping[str, Any],
    models: Mapping[str, bytes],
    tokenizer: TokenizerFile | None,
    decision: Decision,
) -> Manifest:
    """The manifest, but for the model card, which is written from it."""
    public = without_addresses(benchmark)
    fastest = fastest_files(benchmark["files"], exported["files"]).values()

    def model_file(record: Mapping[str, Any]) -> ModelFile:
        rows = [row for row in public["files"] if row["file"] == record["file"]]
        return ModelFile(
            file=record["file"],
            sha256=record["sha256"],
            bytes=len(models[record["file"]]),
            runtime=record["runtime"],
            precision=record["precision"],
            input=tokens_in(record, tokenizer) if tokenizer else picture_in(record, pairs["size"]),
            output=Logits(shape=(1, len(pairs["classes"])), dtype="float32"),
            parity=LabelParity.model_validate(record["parity"]),
            quality=_quality(quality["files"][record["file"]]),
            fastest=record["file"] in fastest,
            latency=[
                Latency.model_validate({key: row[key] for key in Latency.model_fields if key in row}) for row in rows
            ],
        )

    return Manifest.model_validate(
        {
            "schema": SCHEMA,
            "name": name,
            "task": task,
            "classes": pairs["classes"],
            "tokenizer": tokenizer,
            "digests": {
                "teacher": {
                    "name": pairs["teacher_name"],
                    "version": pairs["teacher_version"],
                    "digest": pairs["teacher"],
                },
                "pairs": pairs["digest"],
                "weights": exported["student"],
            },
            "files": [model_file(record) for record in exported["files"]],
            "documents": [],
            "baselines": {label: _quality(found) for label, found in quality["baselines"].items()},
            "test_samples": quality["test_samples"],
            "machine": benchmark["machine"],
            "targets": public["targets"],
            "frames": [],
            "gate": {
                "passed": decision.passed,
                "reason": decision.reason,
                "results": [result.to_json() for result in decision.results],
            },
        }
    )


def picture_in(record: Mapping[str, Any], size: int) -> Tensor:
    """What a file takes of pictures."""
    shape = (1, size, size, 3) if record["layout"] == "NHWC" else (1, 3, size, size)
    return Tensor(shape=shape, dtype="float32", layout=record["layout"], range=(0.0, 1.0), colour="RGB")


def tokens_in(record: Mapping[str, Any], tokenizer: TokenizerFile) -> Tokens:
    """What a file takes of texts."""
    litert = record["runtime"] == "litert"
    return Tokens(
        names=("ids", "mask"),
        shape=(1, tokenizer.max_tokens),
        dtype="int32" if litert else "int64",
        shorter=not litert,
    )


def _quality(found: Mapping[str, Any]) -> LabelQuality:
    """The figures a bundle carries, out of those the report has."""
    return LabelQuality.model_validate({key: found.get(key) for key in LabelQuality.model_fields})
