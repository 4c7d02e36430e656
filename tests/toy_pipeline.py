"""A repository in miniature: nine stages that write files of the real form in milliseconds.

`python toy_pipeline.py STAGE [STUDENT]` is a stage's command in it. The file `mode` holds "WHAT STAGE" to make a
stage fail, break, hang or be killed.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from models.errors import UserError
from tasks.files import sha256_file, write_json, write_jsonl
from tasks.pipeline import STAGES
from tasks.stage import STUDENTS, _run, guarded

INPUTS = Path("data/inputs")
STUDENT = "oil"
OUTPUT = {
    "generate": "raw",
    "curate": "pairs",
    "train": "student",
    "quantise": "exported",
    "benchmark": "benchmark",
    "evaluate": "report",
    "bundle": "bundle",
}
FILE = "student.int8.tflite"
FIGURES = {"psnr_db": 20.0, "explained_effect": 0.7, "sharpness_ratio": 1.0, "chroma_ratio": 0.9}


def make_repository(root: Path, source: Path) -> Path:
    """A toy repository below `root` with the real params.yaml of `source`; returns its folder."""
    toy = root / "toy"
    (toy / ".dvc").mkdir(parents=True)
    (toy / "data" / "sources").mkdir(parents=True)
    (toy / "start").mkdir()
    (toy / "mlflow").mkdir()
    (toy / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    params = yaml.safe_load((source / "params.yaml").read_text())
    params["students"] = {STUDENT: params["students"][STUDENT] | {"init": "start"}}
    (toy / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(__file__, toy / "toy_pipeline.py")
    stages: dict[str, Any] = {}
    before = ["toy_pipeline.py", "seed"]
    for stage in STAGES:
        out = "data/inputs" if stage == "ingest" else f"data/students/{STUDENT}/{OUTPUT.get(stage, 'lineage.json')}"
        command = f"python toy_pipeline.py {stage} {STUDENT}"
        if stage == "ingest":
            command = "python toy_pipeline.py ingest"
        elif stage == "lineage":
            command = f"python -m tasks.lineage --student {STUDENT}"
        entry = {"cmd": command, "deps": before, "outs": [out]}
        stages[stage] = entry if stage == "ingest" else {"foreach": {STUDENT: 1}, "do": entry}
        before = [out]
    (toy / "seed").write_text("1")
    (toy / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    return toy


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(stage: str, out: Path) -> None:
    """The stage's files; everything depends on the seed, as a change of it must show."""
    seed = Path("seed").read_text().strip()
    folder = out.parent
    if stage == "ingest":
        write_jsonl(out / "inputs.jsonl", [{"digest": digest(f"photo {seed}"), "split": "train"}])
        write_jsonl(out / "set_aside.jsonl", [])
    elif stage == "generate":
        (out / "shard-00000.safetensors").write_text(f"pairs {seed}")
        write_jsonl(out / "shard-00000.jsonl", [{"id": seed}])
        write_json(
            out / "teacher.json", {"kind": "painter", "name": "oil-painter", "version": 1, "digest": digest("teacher")}
        )
        line = {"shard": "shard-00000", "pairs": 1, "sha256": sha256_file(out / "shard-00000.safetensors")}
        write_jsonl(out / "manifest.jsonl", [line | {"records_sha256": sha256_file(out / "shard-00000.jsonl")}])
    elif stage == "curate":
        (out / "train.inputs.npy").write_text(f"array {seed}")
        write_json(out / "yield.json", {"train": {"pairs": 1, "kept": 1}})
        files = {"train.inputs.npy": sha256_file(out / "train.inputs.npy")}
        counts = {"train": 1, "val": 0, "test": 0}
        write_json(
            out / "pairs.json",
            {"digest": digest(f"pairs {seed}"), "teacher": digest("teacher"), "counts": counts, "files": files},
        )
    elif stage == "train":
        pairs = json.loads((folder / "pairs" / "pairs.json").read_text())
        (out / "weights.safetensors").write_text(f"weights {seed}")
        record = {"weights_sha256": sha256_file(out / "weights.safetensors"), "pairs": pairs["digest"]}
        more = {"teacher": pairs["teacher"], "init": "scratch", "parameters": 10, "val": {"l1": 0.1}, "final": {}}
        write_json(out / "student.json", record | more)
        curve = [{"step": step, "loss": 1 / (step + 1), "losses": {"pixel": 0.5}} for step in range(5)]
        write_jsonl(out / "curve.jsonl", [*curve, {"step": 4, "val_l1": 0.1}])
    elif stage == "quantise":
        student = json.loads((folder / "student" / "student.json").read_text())
        (out / FILE).write_text(f"model {seed}")
        parity = {"max_abs": 0.1, "psnr_db": 40.0, "worst_psnr_db": 38.0}
        entry = {"file": FILE, "sha256": sha256_file(out / FILE), "bytes": (out / FILE).stat().st_size}
        entry |= {"runtime": "litert", "precision": "int8", "layout": "NHWC", "parity": parity}
        write_json(out / "exported.json", {"student": student["weights_sha256"], "files": [entry]})
    elif stage == "benchmark":
        row = {"file": FILE, "sha256": sha256_file(folder / "exported" / FILE), "threads": 1, "p50_ms": 5.0}
        more = {"p90_ms": 6.0, "p99_ms": 7.0, "peak_mib": 20.0, "runs": 5, "bytes": 7}
        write_json(out / "benchmark.json", {"machine": {"cpu": "toy"}, "files": [row | more]})
    elif stage == "evaluate":
        baselines = {"identity": {"explained_effect": 0.0}, "colour_affine": {"explained_effect": 0.3}}
        quality = {"files": {FILE: FIGURES}, "student": FIGURES, "baselines": baselines, "test_samples": 8}
        write_json(out / "quality.json", quality | {"per_sample": [{"row": 0, "psnr_db": 1.0}]})
        (out / "index.html").write_text(f"<title>{seed}</title>")
    elif stage == "bundle":
        write_bundle(folder, out)


def write_bundle(folder: Path, out: Path) -> None:
    """A manifest that tasks.manifest accepts."""
    pairs = json.loads((folder / "pairs" / "pairs.json").read_text())
    exported = json.loads((folder / "exported" / "exported.json").read_text())
    row = json.loads((folder / "benchmark" / "benchmark.json").read_text())["files"][0]
    shutil.copy(folder / "exported" / FILE, out)
    (out / "MODEL_CARD.md").write_text("# toy\n")
    card = {"file": "MODEL_CARD.md", "sha256": sha256_file(out / "MODEL_CARD.md"), "bytes": 6}
    tensor = {"shape": [1, 64, 64, 3], "dtype": "float32", "layout": "NHWC", "range": [0.0, 1.0], "colour": "RGB"}
    entry = {key: value for key, value in exported["files"][0].items() if key != "layout"}
    latency = {key: row[key] for key in ("threads", "p50_ms", "p90_ms", "p99_ms", "peak_mib", "runs")}
    entry |= {"input": tensor, "output": tensor, "quality": FIGURES, "latency": [latency]}
    rule = {"name": "min_explained_effect", "value": 0.7, "limit": 0.6, "passed": True, "reason": "it is"}
    teacher = {"name": "oil-painter", "version": 1, "digest": pairs["teacher"]}
    manifest = {
        "schema": "understudy-bundle/1",
        "name": STUDENT,
        "task": "image-to-image",
        "digests": {"teacher": teacher, "pairs": pairs["digest"], "weights": exported["student"]},
        "files": [entry],
        "documents": [card],
        "baselines": {"identity": {"explained_effect": 0.0}, "colour_affine": {"explained_effect": 0.3}},
        "test_samples": 8,
        "machine": {"cpu": "toy"},
        "gate": {"passed": True, "reason": "every rule is met", "results": [rule]},
    }
    write_json(out / "manifest.json", manifest)


def stage_body(stage: str, student: str | None) -> None:
    """What `mode` says, or the stage's files."""
    mode = Path("mode").read_text().strip() if Path("mode").exists() else ""
    if mode == f"fail {stage}":
        raise UserError("the toy is broken: mend it")
    if mode == f"break {stage}":
        raise ValueError("a bug")
    if mode == f"kill {stage}":
        os.kill(os.getpid(), 9)
    if mode == f"hang {stage}":
        Path("hanging.tmp").write_text(str(os.getpid()))
        Path("hanging.tmp").rename("hanging")
        time.sleep(600)
    out = INPUTS if student is None else STUDENTS / student / OUTPUT[stage]
    out.mkdir(parents=True, exist_ok=True)
    write(stage, out)


if __name__ == "__main__":
    stage_name, student_name = sys.argv[1], (sys.argv[2:] or [None])[0]
    guarded(
        stage_name,
        lambda: _run(stage_name, student_name, lambda: stage_body(stage_name, student_name)),
        student_name,
    )
