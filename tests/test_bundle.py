"""The bundle: what is in it, what it refuses to be made of, and what a receiver refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from detectors import a_detector, no_detector, write_detector
from evidences import good
from tiny_onnx import affine_bytes

from models.errors import UserError
from tasks.bundle import bundle, find_evidence, read_work
from tasks.files import read_json, sha256_bytes, sha256_file, write_json, write_jsonl
from tasks.manifest import Manifest, verify_bundle
from tasks.params import load_params
from tasks.shifted import SETS

NAME = "oil"
FOLDER = Path("data/students") / NAME
BUNDLE = FOLDER / "bundle"
A, B, C = "a" * 64, "b" * 64, "c" * 64
FILES = [("litert", "fp32"), ("litert", "int8"), ("onnx", "fp32"), ("onnx", "int8")]
QUALITY = {
    "psnr_db": 24.0,
    "ssim": 0.8,
    "ms_ssim": 0.9,
    "explained_effect": 0.75,
    "sharpness_ratio": 0.9,
    "chroma_ratio": 0.95,
}


def write_inputs() -> None:
    def one(number: int, split: str, licence: str, origin: str) -> dict[str, Any]:
        digest = sha256_bytes(bytes([number]))
        return {
            "digest": digest,
            "origin": origin,
            "licence": licence,
            "width": 300,
            "height": 200,
            "clip": "",
            "group": digest,
            "split": split,
        }

    inputs = [
        one(1, "train", "public domain", "library:scikit-image/astronaut.png"),
        one(2, "train", "unknown", "folder:my | odd\n*name*.jpg"),
        one(3, "test", "test only", "folder:test.jpg"),
    ]
    write_jsonl(Path("data/inputs/inputs.jsonl"), inputs)
    kept = [
        {"pair": C, "split": item["split"], "rule": "", "reason": "", "index": 0, "input": item["digest"], "seed": 0}
        for item in inputs
    ]
    write_jsonl(FOLDER / "pairs/kept.jsonl", kept)


FASTEST = ["student.int8.tflite", "student.fp32.onnx"]


def write_models() -> list[dict[str, Any]]:
    records = []
    for runtime, precision in FILES:
        file = f"student.{precision}.{'tflite' if runtime == 'litert' else 'onnx'}"
        data = affine_bytes(0.5, 0.25, shape=(1, 3, 256, 256)) if file.endswith("onnx") else file.encode() * 100
        path = FOLDER / "exported" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        records.append(
            {
                "file": file,
                "runtime": runtime,
                "precision": precision,
                "sha256": sha256_bytes(data),
                "bytes": len(data),
                "layout": "NHWC" if runtime == "litert" else "NCHW",
                "parity": {"max_abs": 1e-6, "psnr_db": 60.0, "worst_psnr_db": 55.0},
            }
        )
    return records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """What the earlier stages leave, for a student that passes the gate; also the current folder."""
    params = (repository / "params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params)
    write_inputs()
    records = write_models()
    write_json(FOLDER / "exported/exported.json", {"student": B, "files": records})
    pairs = {"digest": A, "teacher": C, "teacher_name": "oil-painter", "teacher_version": 1, "size": 256}
    write_json(FOLDER / "pairs/pairs.json", pairs | {"counts": {"train": 2, "val": 0, "test": 1}, "files": {}})
    write_json(FOLDER / "student/student.json", {"weights_sha256": B, "pairs": A, "teacher": C})
    times = {"p50_ms": 5.0, "p90_ms": 6.0, "p99_ms": 7.0, "peak_mib": 40.0, "runs": 50}
    rows = [
        {key: record[key] for key in ("file", "runtime", "precision", "sha256", "bytes")}
        | times
        | {"threads": threads, "p50_ms": 4.0 if record["file"] in FASTEST else 5.0}
        for record in records
        for threads in (1, 2)
    ]
    machine = {"cores": 2, "processor": "x86-64"}
    write_json(FOLDER / "benchmark/benchmark.json", {"machine": machine, "files": rows})
    files = {
        record["file"]: QUALITY
        | ({"psnr_to_float_db": 45.0, "worst_psnr_to_float_db": 42.0} if record["precision"] == "int8" else {})
        for record in records
    }
    baselines = {"identity": QUALITY | {"explained_effect": 0.0}, "colour_affine": QUALITY | {"explained_effect": 0.3}}
    phone = next(record for record in records if record["file"] == "student.int8.tflite")
    evidence = good(pairs=A, teacher=C, measured_sha256=phone["sha256"], shipped_sha256=None, bundle_mib=None)
    quality = {"files": files, "baselines": baselines, "test_samples": 40, "more": "is ignored"}
    quality["evidence"] = evidence.to_json()
    write_json(FOLDER / "report/quality.json", quality)
    write_detector(FOLDER / "detector", a_detector(A, B))
    return tmp_path


def run() -> dict[str, Any]:
    params = load_params()
    bundle(params, NAME, params.students[NAME])
    manifest: dict[str, Any] = read_json(BUNDLE / "manifest.json")
    return manifest


def test_what_is_in_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run()
    assert sorted(path.name for path in BUNDLE.iterdir()) == [
        "MODEL_CARD.md",
        "detector.fp32.onnx",
        "detector.fp32.tflite",
        "manifest.json",
        "student.fp32.onnx",
        "student.fp32.tflite",
        "student.int8.onnx",
        "student.int8.tflite",
    ]
    assert manifest["schema"] == "understudy-bundle/1"
    assert manifest["digests"] == {
        "teacher": {"name": "oil-painter", "version": 1, "digest": C},
        "pairs": A,
        "weights": B,
    }
    phone = next(entry for entry in manifest["files"] if entry["file"] == "student.int8.tflite")
    assert phone["input"] == phone["output"]
    assert phone["input"] == {
        "shape": [1, 256, 256, 3],
        "dtype": "float32",
        "layout": "NHWC",
        "range": [0.0, 1.0],
        "colour": "RGB",
    }
    assert phone["quality"]["psnr_to_float_db"] == 45.0 and phone["parity"]["psnr_db"] == 60.0
    assert [row["threads"] for row in phone["latency"]] == [1, 2]
    assert {entry["file"] for entry in manifest["files"] if entry["fastest"]} == set(FASTEST)
    assert manifest["gate"]["passed"]
    rules = {row["name"]: row for row in manifest["gate"]["results"]}
    assert rules["max_p90_ms"]["blessing"] == "target" and rules["max_p90_ms"]["against"] == "the target"
    assert {"same_file", "min_worst_slice", "max_flicker"} < set(rules)
    assert not [name for name in rules if "champion" in name]
    assert verify_bundle(BUNDLE).to_json() == manifest
    assert "gate passed" in capsys.readouterr().out
    jsonschema.validate(manifest, Manifest.model_json_schema())


def test_what_a_slider_adds(folder: Path) -> None:
    plain = run()
    assert "control" not in plain
    exported = read_json(FOLDER / "exported/exported.json")
    exported["control"] = []
    for name, strength in (("student.strength.fp32.tflite", None), ("student.at-0.5.int8.tflite", 0.5)):
        like = next(one for one in exported["files"] if one["file"].endswith(name[-11:]))
        data = name.encode() * 100
        (FOLDER / "exported" / name).write_bytes(data)
        changed = {"file": name, "sha256": sha256_bytes(data), "bytes": len(data), "strength": strength}
        exported["control"].append(like | changed)
    write_json(FOLDER / "exported/exported.json", exported)
    quality = read_json(FOLDER / "report/quality.json")
    quality["control"] = {"files": {"student.at-0.5.int8.tflite": {"strength": 0.5, "explained_effect": 0.7}}}
    write_json(FOLDER / "report/quality.json", quality)
    manifest = run()
    takes, fixed = manifest["control"]
    assert (takes["strength"], takes["quality"]["explained_effect"], takes["latency"]) == (None, None, [])
    assert (fixed["strength"], fixed["quality"]["explained_effect"]) == (0.5, 0.7)
    assert manifest["files"] == plain["files"]
    assert verify_bundle(BUNDLE).phone.file == "student.int8.tflite"
    size = {one["name"]: one["value"] for one in manifest["gate"]["results"]}["max_bundle_mib"]
    every = manifest["files"] + manifest["control"] + manifest["detector"]["files"]
    assert size == pytest.approx(sum(one["bytes"] for one in every) / 2**20)
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert "| student.strength.fp32.tflite | litert | fp32 | an input |" in card
    assert "| student.at-0.5.int8.tflite | litert | int8 | 0.5 |" in card


def test_what_tells_an_app_that_a_frame_is_outside(folder: Path) -> None:
    told = run()["detector"]
    assert (told["fades_at"], told["passes_at"], told["time_share"]) == (1.0, 1.5, 0.25)
    assert [(one["runtime"], one["input"]["shape"]) for one in told["files"]] == [
        ("litert", [1, 256, 256, 3]),
        ("onnx", [1, 3, 256, 256]),
    ]
    assert told["alarms"]["fades"]["asked"] == 0.05 and {one["name"] for one in told["sets"]} == set(SETS)
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert "share = clip((1.5 - smooth) / (1.5 - 1), 0, 1)" in card and "| flat colours |" in card
    (BUNDLE / "detector.fp32.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match="detector.fp32.onnx has sha256"):
        verify_bundle(BUNDLE)


def test_a_bundle_without_a_detector_says_why(folder: Path) -> None:
    shutil.rmtree(FOLDER / "detector")
    write_detector(FOLDER / "detector", no_detector(A, B, left_out=False, without="two photos are too few"))
    manifest = run()
    assert "detector" not in manifest and verify_bundle(BUNDLE).detector is None
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert "There is no detector of frames unlike those it was taught on: two photos are too few." in card
    assert "see above" not in card


@pytest.mark.parametrize("other", [{"pairs": C}, {"student": C}])
def test_a_detector_of_another_student_is_refused(folder: Path, other: dict[str, str]) -> None:
    write_detector(FOLDER / "detector", a_detector(A, B) | other)
    with pytest.raises(UserError, match="detector was made for other weights or pairs"):
        run()


def test_equal_work_gives_equal_bytes(folder: Path) -> None:
    run()
    before = {path.name: sha256_file(path) for path in BUNDLE.iterdir()}
    run()
    assert {path.name: sha256_file(path) for path in BUNDLE.iterdir()} == before


def test_the_card(folder: Path) -> None:
    run()
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert "**Passed the gate.**" in card
    assert "| student.int8.tflite | 0.750 | 24.00 | 0.800 | 0.900 | 0.90 | 0.95 | 45.0 (42.0) |" in card
    assert "| colour affine | 0.300 |" in card and "| identity | 0.000 |" in card
    assert "measured on: cores 2, processor x86-64." in card
    assert len(re.findall(r"^\| student.*fastest of its runtime", card, flags=re.MULTILINE)) == 2
    assert "- public domain: 1 picture (library:scikit-image/astronaut.png)" in card
    assert r"- unknown: 1 picture (folder:my \| odd \*name\*.jpg)" in card  # a hostile name stays one line of text
    assert "test.jpg" not in card
    for digest in (A, B, C):
        assert digest in card
    assert "change by 6.0 levels of 255 beyond the motion" in card
    assert "| max_p90_ms | the target | 6.000 | 33.0 | passed |" in card
    assert "\n\n\n" not in card


def test_the_cards_code_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    snippets = re.findall(r"```python\n(.*?)```", (BUNDLE / "MODEL_CARD.md").read_text(), flags=re.DOTALL)
    litert, onnx = snippets
    compile(litert, "card", "exec")
    monkeypatch.chdir(BUNDLE)
    names: dict[str, Any] = {"picture": np.full((1, 3, 256, 256), 0.5, np.float32)}
    exec(onnx, names)  # the point is that a reader can
    np.testing.assert_allclose(names["output"], 0.5, atol=1e-6)


def change(path: str, edit: Callable[[Any], None]) -> None:
    value = read_json(FOLDER / path)
    edit(value)
    write_json(FOLDER / path, value)


def measured(**changed: Any) -> Callable[[Any], None]:
    """Edit the evidence in quality.json."""
    return lambda value: value["evidence"].update(changed)


def test_a_student_that_fails_the_gate_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("report/quality.json", measured(chroma_ratio=0.1))
    manifest = run()
    assert not manifest["gate"]["passed"]
    assert [row["name"] for row in manifest["gate"]["results"] if not row["passed"]] == ["min_chroma_ratio"]
    assert "chroma against the teacher 0.1 is below 0.8" in capsys.readouterr().out
    assert "**Did not pass the gate:** chroma against the teacher" in (BUNDLE / "MODEL_CARD.md").read_text()


def test_evidence_is_of_what_ships(folder: Path) -> None:
    evidence = find_evidence(read_work(FOLDER, Path("data/inputs/inputs.jsonl")), "local")
    assert evidence.shipped_sha256 == sha256_file(FOLDER / "exported/student.int8.tflite") == evidence.measured_sha256
    files = [*(FOLDER / "exported").glob("student.*"), *(FOLDER / "detector").glob("detector.fp32.*")]
    total = sum(path.stat().st_size for path in files)
    assert evidence.bundle_mib == total / 2**20


def test_another_file_than_the_measured_one_does_not_pass(folder: Path) -> None:
    change("report/quality.json", measured(measured_sha256=A))
    gate = run()["gate"]
    assert [row["name"] for row in gate["results"] if not row["passed"]] == ["same_file"]


def test_missing_figures_do_not_pass(folder: Path) -> None:
    change("report/quality.json", measured(flicker=None, p90_ms=None))
    gate = run()["gate"]
    assert [row["name"] for row in gate["results"] if not row["passed"]] == ["max_flicker", "max_p90_ms"]
    assert "that was not measured" in (BUNDLE / "MODEL_CARD.md").read_text()


def test_a_bundle_of_the_first_version_stays_readable(folder: Path) -> None:
    run()
    rewrite(lambda value: [row.pop(key) for row in value["gate"]["results"] for key in ("against", "blessing")])
    rewrite(lambda value: [value.pop(key) for key in ("targets", "frames")])
    rewrite(lambda value: [row.pop("target") for file in value["files"] for row in file["latency"]])
    manifest = verify_bundle(BUNDLE)
    assert manifest.gate.passed and manifest.phone.latency[0].target == "local"


def add_targets(value: dict[str, Any]) -> None:
    """A board that measured the phone's file, and a phone that did not answer."""
    phone = next(row for row in value["files"] if row["file"] == "student.int8.tflite" and row["threads"] == 1)
    value["files"].append(phone | {"target": "ssh:pi@board", "p90_ms": 50.0})
    machine = {"cpu": "Cortex-A76"}
    value["targets"] = [
        {"target": "ssh:pi@board", "machine": machine, "not_measured": {}},
        {"target": "adb:SERIAL1", "failed": "no Android device SERIAL1 answers"},
    ]
    step = {"step": "decode", "with": "PyAV", "p50_ms": 3.0, "p90_ms": 4.0}
    total = {"p50_ms": 3.0, "p90_ms": 4.0}
    frame = {"target": "local", "file": "student.int8.tflite", "threads": 1, "frames": 9, "height": 720, "width": 1280}
    value["frames"] = [frame | {"steps": [step], "total": total, "budget_ms": 33.0, "fits": True, "stops": None}]


@pytest.mark.parametrize(
    ("target", "value", "told"),
    [
        ("ssh:pi@board", 50.0, "p90 latency of int8 on one thread (student.int8.tflite on ssh) 50 ms is above 33 ms"),
        (
            "adb:SERIAL1",
            None,
            "p90 latency of int8 on one thread was not measured on adb: no Android device ... answers",
        ),
    ],
)
def test_the_gate_judges_its_target_and_fails_closed(folder: Path, target: str, value: float | None, told: str) -> None:
    params = Path("params.yaml").read_text().replace("targets: [local]", f"targets: [local, {target}]")
    Path("params.yaml").write_text(params.replace("target: local", f"target: {target}"))
    change("benchmark/benchmark.json", add_targets)
    manifest = run()
    (failed,) = [row for row in manifest["gate"]["results"] if not row["passed"]]
    assert (failed["name"], failed["value"], failed["reason"]) == ("max_p90_ms", value, told)
    text = (BUNDLE / "manifest.json").read_text() + (BUNDLE / "MODEL_CARD.md").read_text()
    assert "pi@board" not in text and "SERIAL1" not in text
    assert "| student.int8.tflite | ssh | 1 |" in text and "`adb` was not measured" in text
    assert "A 720p video frame" in text and "| student.int8.tflite | local | 1 | 3.0 | 3.0 (4.0) | fits |" in text
    assert verify_bundle(BUNDLE).targets[0]["machine"] == {"cpu": "Cortex-A76"}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda: (FOLDER / "exported/student.int8.tflite").write_bytes(b"x"), "exported.json says"),
        (lambda: (FOLDER / "exported/student.int8.tflite").unlink(), "no file at"),
        (lambda: change("student/student.json", lambda value: value.update(pairs=C)), "other pairs"),
        (lambda: change("exported/exported.json", lambda value: value.update(student=C)), "other weights"),
        (lambda: change("benchmark/benchmark.json", lambda value: value["files"][0].update(sha256=C)), "timed another"),
        (lambda: (FOLDER / "report/quality.json").unlink(), "missing .*quality.json"),
        (lambda: change("report/quality.json", lambda value: value.pop("evidence")), "no evidence for the gate"),
        (lambda: change("report/quality.json", measured(more=1)), "does not fit this version"),
        (lambda: change("report/quality.json", measured(pairs=B)), "measured on other pairs"),
        (lambda: change("report/quality.json", measured(teacher=B)), "measured on other pairs"),
    ],
)
def test_what_does_not_belong_together_is_refused(folder: Path, damage: Callable[[], Any], says: str) -> None:
    damage()
    with pytest.raises(UserError, match=says):
        run()
    assert not BUNDLE.exists()


def rewrite(edit: Callable[[Any], None]) -> None:
    manifest = read_json(BUNDLE / "manifest.json")
    edit(manifest)
    (BUNDLE / "manifest.json").write_text(json.dumps(manifest))


def link() -> None:
    (BUNDLE / "student.fp32.onnx").rename("elsewhere")
    (BUNDLE / "student.fp32.onnx").symlink_to(Path("elsewhere").absolute())


def rename_entry(name: str) -> Callable[[], None]:
    return lambda: rewrite(lambda value: value["files"][0].update(file=name))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda: (BUNDLE / "student.int8.tflite").write_bytes(b"x"), "has sha256"),
        (lambda: (BUNDLE / "MODEL_CARD.md").write_text("Passed."), "has sha256"),
        (lambda: (BUNDLE / "student.int8.tflite").unlink(), "no file at"),
        (lambda: (BUNDLE / "manifest.json").unlink(), "missing"),
        (lambda: (BUNDLE / "manifest.json").write_text("{"), "not JSON"),
        (lambda: (BUNDLE / "manifest.json").write_text("[]"), "schema is None"),
        (lambda: (BUNDLE / "extra.so").touch(), "holds 'extra.so'"),
        (lambda: (BUNDLE / "folder").mkdir(), "holds 'folder'"),
        (link, "not a plain file"),
        (rename_entry("../exported/student.fp32.tflite"), "files.0.file"),
        (rename_entry("/etc/passwd"), "files.0.file"),
        (rename_entry(".."), "files.0.file"),
        (rename_entry("student.fp32.tflite\n"), "files.0.file"),
        (rename_entry("Student.int8.tflite"), "two entries claim one file name"),
        (rename_entry("manifest.json"), "two entries claim one file name"),
        (lambda: rewrite(lambda value: value.update(schema="understudy-bundle/2")), "reads 'understudy-bundle/1'"),
        (lambda: rewrite(lambda value: value.update(more=1)), "more: Extra inputs"),
        (lambda: rewrite(lambda value: value.pop("gate")), "gate: Field required"),
        (lambda: rewrite(lambda value: value["files"][0].update(bytes="12")), "files.0.bytes"),
        (lambda: rewrite(lambda value: value["files"][0].update(bytes=12)), "does not have 12 bytes"),
        (lambda: rewrite(lambda value: value["files"][0]["quality"].update(ssim=float("nan"))), "files.0.quality.ssim"),
    ],
)
def test_a_receiver_refuses(folder: Path, damage: Callable[[], Any], says: str) -> None:
    run()
    damage()
    with pytest.raises(UserError, match=says) as caught:
        verify_bundle(BUNDLE)
    assert "\n" not in str(caught.value)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bundle at"):
        verify_bundle(tmp_path / "absent")
