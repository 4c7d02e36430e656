"""A repository in miniature: thirteen stages that write files of the real form in milliseconds.

`python toy_pipeline.py STAGE [STUDENT]` is a stage's command in it. The file `mode`, or TOY_MODE, holds "WHAT STAGE" to
make a stage fail, break, hang or be killed; "blind quantise" makes a student that changes nothing, "nan evaluate" a
figure that is no number. The teacher of version v maps a picture x to 0.5 x + 0.1 v, its student learns just that;
from version 10 on the teacher is noise, which no student learns.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models.errors import UserError
from models.teachers.digests import teacher_digest
from tasks.files import sha256_file, write_json, write_jsonl
from tasks.pipeline import STAGES
from tasks.stage import STUDENTS, _run, guarded
from tasks.starts import RECORD, find_weights

INPUTS = Path("data/inputs")
STUDENT = "oil"
OUTPUT = {
    "exportability": "exportability",
    "generate": "raw",
    "curate": "pairs",
    "train": "student",
    "quantise": "exported",
    "detector": "detector",
    "benchmark": "benchmark",
    "variants": "variants",
    "video": "video",
    "evaluate": "report",
    "bundle": "bundle",
}
FILE = "student.int8.tflite"
SIZE, SAMPLES = 64, 8
SCALE, SHIFT, SEED = 0.123456, 0.654321, "seed000000000000"  # in the student's file, to be replaced by what it learnt
VIDEO = {
    "flicker": {"camera": {"input": 0.0, "teacher": 5.0, "float": 5.4, "phone": 5.5}},
    "over_teacher": {"camera": {"float": 1.08, "phone": 1.1}},
    "without_teacher": "",
    "clips": 0,
    "clip": None,
}
FIGURES = {"psnr_db": 20.0, "explained_effect": 0.7, "sharpness_ratio": 1.0, "chroma_ratio": 0.9}


def make_repository(root: Path, source: Path) -> Path:
    """A toy repository below `root` with the real params.yaml of `source`; returns its folder."""
    toy = root / "toy"
    (toy / ".dvc").mkdir(parents=True)
    (toy / "data" / "sources").mkdir(parents=True)
    (toy / "start").mkdir()
    (toy / "start" / ".keep").touch()  # before it is a dependency: git keeps no empty folder
    (toy / "mlflow").mkdir()
    (toy / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    params = yaml.safe_load((source / "params.yaml").read_text())
    params["students"] = {STUDENT: params["students"][STUDENT] | {"init": "start"}}
    params["students"][STUDENT]["gate"] |= {"max_p90_over_champion": 1000.0}  # microseconds: the ratio means nothing
    params["students"][STUDENT]["train"]["replay"]["pairs"] = "start"
    params["profiles"]["small"]["students"] |= {"init": "start"}
    params["benchmark"] |= {"warmup": 1, "runs": 3, "frames": 0}
    params |= {"classifiers": {}, "datasets": {}}
    (toy / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(__file__, toy / "toy_pipeline.py")
    from tiny_litert import affine_bytes

    (toy / "start" / "model.tflite").write_bytes(affine_bytes(SCALE, SHIFT, (1, SIZE, SIZE, 3)))
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
        if stage == "exportability":  # hangs on no other stage, as in dvc.yaml
            entry["deps"] = ["toy_pipeline.py"]
        elif stage == "train":
            entry["deps"] = [*before, f"data/students/{STUDENT}/exportability", "${item.init}"]
        if stage == "generate":
            entry["params"] = [f"students.{STUDENT}.teacher"]
        students: Any = "${students}" if stage == "train" else {STUDENT: 1}
        stages[stage] = entry if stage == "ingest" else {"foreach": students, "do": entry}
        # Variants, video and detector say the same of every student here: what comes after hangs on what is before too.
        same = ("detector", "variants", "video")
        before = before if stage == "exportability" else [*before, out] if stage in same else [out]
    (toy / "seed").write_text("1")
    (toy / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    return toy


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(stage: str, out: Path) -> None:
    """The stage's files; everything depends on the seed, as a change of it must show."""
    seed = Path("seed").read_text().strip()
    folder = out.parent
    block = yaml.safe_load(Path("params.yaml").read_text())["students"][STUDENT]["teacher"]
    if stage == "ingest":
        inputs = [
            {"digest": digest(f"photo {number} {seed}"), "origin": f"folder:{number}.png", "licence": "CC0"}
            | {"width": SIZE, "height": SIZE, "clip": "", "group": f"photo {number}"}
            | {"split": "test" if number else "train"}
            for number in range(3)
        ]
        write_jsonl(out / "inputs.jsonl", inputs)
        write_jsonl(out / "set_aside.jsonl", [])
    elif stage == "exportability":
        figures = {"partitions": 1, "transposes": 1, "mega_macs": 1.5}
        write_json(out / "exportability.json", {"architecture": digest("toy"), "figures": figures, "findings": []})
    elif stage == "generate":
        (out / "shard-00000.safetensors").write_text(f"pairs {seed}")
        write_jsonl(out / "shard-00000.jsonl", [{"id": seed}])
        about = {key: block[key] for key in ("kind", "name", "version")}
        write_json(out / "teacher.json", about | {"digest": teacher_digest(block)})
        line = {"shard": "shard-00000", "pairs": 1, "sha256": sha256_file(out / "shard-00000.safetensors")}
        write_jsonl(out / "manifest.jsonl", [line | {"records_sha256": sha256_file(out / "shard-00000.jsonl")}])
    elif stage == "curate":
        write_pairs(out, seed, block)
    elif stage == "train":
        write_student(out, seed, json.loads((folder / "pairs" / "pairs.json").read_text()))
        curve = [{"step": step, "loss": 1 / (step + 1), "losses": {"pixel": 0.5}} for step in range(5)]
        write_jsonl(out / "curve.jsonl", [*curve, {"step": 4, "val_l1": 0.1}])
    elif stage == "quantise":
        student = json.loads((folder / "student" / "student.json").read_text())
        write_model(out / FILE, block["version"], seed)
        parity = {"max_abs": 0.1, "psnr_db": 40.0, "worst_psnr_db": 38.0}
        entry = {"file": FILE, "sha256": sha256_file(out / FILE), "bytes": (out / FILE).stat().st_size}
        entry |= {"runtime": "litert", "precision": "int8", "layout": "NHWC", "parity": parity}
        write_json(out / "exported.json", {"student": student["weights_sha256"], "files": [entry]})
    elif stage == "detector":
        student = json.loads((folder / "student" / "student.json").read_text())
        none: dict[str, Any] = {"without": "a toy has none", "left_out": True, "files": [], "sets": []}
        made_for_it = {"pairs": student["pairs"], "student": student["weights_sha256"], "size": SIZE}
        write_json(out / "detector.json", none | made_for_it)
    elif stage == "benchmark":
        row = {"file": FILE, "sha256": sha256_file(folder / "exported" / FILE), "threads": 1, "p50_ms": 5.0}
        more = {"p90_ms": 6.0, "p99_ms": 7.0, "peak_mib": 20.0, "runs": 5, "bytes": 7}
        write_json(out / "benchmark.json", {"machine": {"cpu": "toy"}, "files": [row | more]})
    elif stage == "variants":
        write_json(out / "variants.json", {"student": STUDENT, "steps": 0, "rows": []})
    elif stage == "video":
        write_json(out / "video.json", VIDEO | {"phone": sha256_file(folder / "exported" / FILE)} | made_for(folder))
    elif stage == "evaluate":
        baselines = {"identity": {"explained_effect": 0.0}, "colour_affine": {"explained_effect": 0.3}}
        quality = {"files": {FILE: FIGURES}, "student": FIGURES, "baselines": baselines, "test_samples": SAMPLES}
        quality["evidence"] = find_evidence(folder)
        quality |= {"per_sample": [{"row": 0, "psnr_db": 1.0}]}
        parts = {"quantisation": 0.0, "data": 0.1, "rest": 0.1}
        quality["shortfall"] = {"phone": 0.8, "float": 0.8, "training": 0.9, "parts": parts, "limited_by": "data"}
        quality["shortfall"] |= {"teacher_to_itself": None, "asked_again": 0}
        quality["failures"] = {"tested": 1, "known": 0, "copied": 0, "invented": 0, "why_not": "", "rows": []}
        (out / "quality.json").write_text(json.dumps(quality))  # as a bug would: NaN is let through
        (out / "index.html").write_text(f"<title>{seed}</title>")
    elif stage == "bundle":
        write_bundle(folder, out)


def write_student(out: Path, seed: str, pairs: dict[str, Any]) -> None:
    """Weights and record; a start that is a record has to have its weights, as in tasks/train.py."""
    block = yaml.safe_load(Path("params.yaml").read_text())["students"][STUDENT]
    start, init = Path(block["init"]), "scratch"
    if (start / RECORD).exists():
        init = json.loads((start / RECORD).read_text())["weights_sha256"]
        assert sha256_file(find_weights(start, init)) == init
    (out / "weights.safetensors").write_text(f"weights {seed} {pairs['digest']} {init}")
    record = {"weights_sha256": sha256_file(out / "weights.safetensors"), "pairs": pairs["digest"], "init": init}
    record |= {"teacher": pairs["teacher"], "architecture": block["architecture"], "size": SIZE, "ranks": {}}
    record |= {"compress": block["compress"], "parameters": 10, "val": {"l1": 0.1}, "final": {}}
    write_json(out / RECORD, record)


def made_for(folder: Path) -> dict[str, str]:
    """The digests of the pairs and of their teacher."""
    pairs = json.loads((folder / "pairs" / "pairs.json").read_text())
    return {"pairs": pairs["digest"], "teacher": pairs["teacher"]}


def write_pairs(out: Path, seed: str, block: dict[str, Any]) -> None:
    """Test pairs of two photos; the teacher's version decides what it makes of them."""
    chance = np.random.default_rng([int(seed), block["version"]])
    inputs = np.random.default_rng(0).integers(0, 256, (SAMPLES, SIZE, SIZE, 3), np.uint8)
    noise = block["version"] >= 10
    targets = chance.random(inputs.shape) * 255 if noise else inputs * 0.5 + 255 * 0.1 * block["version"]
    for number, side in enumerate(("inputs", "targets")):
        np.save(out / f"train.{side}.npy", np.full((1, SIZE, SIZE, 3), (int(seed) + number) % 256, np.uint8))
    np.save(out / "test.inputs.npy", inputs)
    np.save(out / "test.targets.npy", np.clip(np.rint(targets), 0, 255).astype(np.uint8))
    write_json(out / "yield.json", {"train": {"pairs": 1, "kept": 1}})
    photos = [digest(f"photo {1 + number % 2} {seed}") for number in range(SAMPLES)]
    verdict = {"split": "test", "rule": "", "reason": "", "seed": 0}
    write_jsonl(
        out / "kept.jsonl",
        [verdict | {"pair": f"pair {i}", "index": i, "input": photo} for i, photo in enumerate(photos)],
    )
    files = {path.name: sha256_file(path) for path in sorted(out.glob("*.npy"))}
    made_by = {"teacher": teacher_digest(block), "teacher_name": block["name"], "teacher_version": block["version"]}
    counts = {"train": 1, "val": 0, "test": SAMPLES}
    pairs = digest(json.dumps([seed, files, made_by], sort_keys=True))
    write_json(out / "pairs.json", {"digest": pairs, "counts": counts, "files": files, "size": SIZE} | made_by)


def write_model(path: Path, version: int, seed: str) -> None:
    """A real LiteRT file that does what the teacher does, or nothing in the mode "blind quantise"."""
    scale, shift = learnt(version)
    model = (Path("start") / "model.tflite").read_bytes()
    for placeholder, value in ((SCALE, scale), (SHIFT, shift + int(seed) * 1e-6)):
        model = model.replace(struct.pack("<f", placeholder), struct.pack("<f", value))
    path.write_bytes(model)


def find_evidence(folder: Path) -> dict[str, Any]:
    """Evidence of the student's file: what it explains is computed from the pairs, as a comparison will find it."""
    from tasks.evidence import SLICES, Evidence, Photo, Slice

    pairs = json.loads((folder / "pairs" / "pairs.json").read_text())
    row = json.loads((folder / "benchmark" / "benchmark.json").read_text())["files"][0]
    x, y = (np.load(folder / "pairs" / f"test.{side}.npy").astype(np.float64) / 255 for side in ("inputs", "targets"))
    scale, shift = learnt(pairs["teacher_version"])
    error = ((np.clip(x * scale + shift, 0, 1) - y) ** 2).mean(axis=(1, 2, 3))
    change = ((x - y) ** 2).mean(axis=(1, 2, 3))
    sums = [(float(error[part].sum()), float(change[part].sum())) for part in (slice(0, None, 2), slice(1, None, 2))]
    explained = 1 - float(error.sum() / change.sum())
    evidence = Evidence(
        pairs=pairs["digest"],
        teacher=pairs["teacher"],
        measured_sha256=row["sha256"],
        explained_effect=float("nan") if mode() == "nan evaluate" else explained,
        colour_affine_explained=0.3,
        sharpness_ratio=1.0,
        chroma_ratio=0.9,
        int8_psnr_db=42.0,
        banding=0.8,
        flicker=0.5,
        flicker_over_teacher=1.1,
        dropped=0.0,
        copied_failures=0.0,
        invented_failures=0.0,
        without_detector=True,
        structure_kept=1.0,
        p90_ms=6.0,
        test_samples=SAMPLES,
        photos=tuple(Photo(name=f"photo {1 + at}", count=4, error=e, change=c) for at, (e, c) in enumerate(sums)),
        slices=tuple(Slice(name=name, samples=4, error=sums[0][0], change=sums[0][1]) for name in SLICES),
    )
    return dataclasses.asdict(evidence)


def learnt(version: int) -> tuple[float, float]:
    """Scale and shift that a student of this teacher learns; none in the mode "blind quantise"."""
    return (1.0, 0.0) if mode() == "blind quantise" else (0.5, min(0.1 * version, 0.5))


def mode() -> str:
    """What this toy is to do wrong, if anything."""
    written = Path("mode").read_text() if Path("mode").exists() else os.environ.get("TOY_MODE", "")
    return written.strip()


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
    teacher = {"name": pairs["teacher_name"], "version": pairs["teacher_version"], "digest": pairs["teacher"]}
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
    wrong = mode()
    if wrong == f"fail {stage}":
        raise UserError("the toy is broken: mend it")
    if wrong == f"break {stage}":
        raise ValueError("a bug")
    if wrong == f"kill {stage}":
        os.kill(os.getpid(), 9)
    if wrong == f"hang {stage}":
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
