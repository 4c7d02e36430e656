"""tasks/evaluate.py and tasks/quality.py on a made student whose right figures are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectors import no_detector, write_detector
from test_report import MACHINE, make_curve
from tiny_litert import relu6_bytes
from tiny_onnx import affine_bytes, graph_bytes

from models.errors import UserError
from tasks import evaluate as stage
from tasks import quality, slices
from tasks.evidence import SLICES, Evidence
from tasks.files import sha256_bytes, sha256_file, write_json, write_jsonl
from tasks.params import load_params
from tasks.records import Input, Verdict, write_records
from tasks.target import judged_file

SIZE, TRAIN, TEST = 64, 6, 7
ARCHITECTURE = {
    "encoder": "mobilenetv4_conv_small_050",
    "decoder_channels": [16, 16, 16, 16],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}
FIGURES = {"psnr_db", "ssim", "ms_ssim", "explained_effect", "sharpness_ratio", "chroma_ratio"}


def pictures(count: int, seed: int) -> np.ndarray:
    """(count,SIZE,SIZE,3) uint8: coloured blocks of 8 pixels, so that there are edges and flat parts."""
    blocks = np.random.default_rng(seed).integers(40, 215, size=(count, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def teach(inputs: np.ndarray) -> np.ndarray:
    """The teacher halves the contrast: 0.5 x + 0.25, which each file can do."""
    return np.rint(inputs * 0.5 + 0.25 * 255).astype(np.uint8)


def make_pairs(folder: Path, inputs_file: Path) -> dict[str, Any]:
    """pairs/ and data/inputs/inputs.jsonl; two crops of each test photo."""
    folder.mkdir(parents=True)
    verdicts, inputs = [], []
    for split, count in (("train", TRAIN), ("val", 2), ("test", TEST)):
        x = pictures(count, seed=count)
        np.save(folder / f"{split}.inputs.npy", x)
        np.save(folder / f"{split}.targets.npy", teach(x))
        for row in range(count):
            digest = sha256_bytes(f"{split}{row // 2}".encode())
            pair = sha256_bytes(f"{split}-{row}".encode())
            common: dict[str, Any] = {"pair": pair, "split": split, "input": digest}
            verdicts.append(Verdict(rule="", reason="", index=row, seed=0, **common))
            if row % 2 == 0:
                origin = f"folder:{split}{row}.png"
                size: dict[str, Any] = {"width": 99, "height": 99, "clip": "", "group": digest, "split": split}
                inputs.append(Input(digest=digest, origin=origin, licence="CC0", **size))
    write_records(folder / "kept.jsonl", verdicts)
    write_records(folder / "rejected.jsonl", [])
    write_records(inputs_file, inputs)
    yields = {"pairs": 9, "kept": 8, "broken": 1}
    write_json(folder / "yield.json", {"train": yields, "val": yields, "test": yields})
    rules = {"broken": {"rejected": 3, "objected": 3, "judged": 27, "limit": None, "how": ""}}
    decisions = {"keep": 0, "drop": 0, "stale": 0}
    told = {"rules": rules, "pairs": 27, "rejected": 3, "decisions": decisions, "notes": []}
    write_json(folder / "curation.json", told)
    files = {path.name: sha256_file(path) for path in folder.iterdir() if path.suffix in (".npy", ".jsonl")}
    record = {"digest": "d" * 64, "teacher": "e" * 64, "teacher_name": "half", "teacher_version": 1, "size": SIZE}
    record |= {"counts": {"train": TRAIN, "val": 2, "test": TEST}, "files": files}
    write_json(folder / "pairs.json", record)
    return record


def make_student(folder: Path) -> None:
    """student/: an untrained network with its record and a curve."""
    import torch
    from safetensors.torch import save

    from models.students import build_student

    torch.manual_seed(0)
    student = build_student(ARCHITECTURE, SIZE)
    weights = save({name: value.contiguous() for name, value in student.state_dict().items()})
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    record = {"architecture": ARCHITECTURE, "size": SIZE, "weights_sha256": sha256_bytes(weights), "pairs": "d" * 64}
    record |= {"teacher": "e" * 64, "parameters": 12345, "init": "scratch"}
    record |= {"train": {"steps": 10, "losses": {"pixel": 1.0, "structure": 0.5}}}
    write_json(folder / "student.json", record)
    write_jsonl(folder / "curve.jsonl", make_curve(400))
    write_json(folder / "errors.json", {"rows": list(range(TRAIN)), "error": [0.001] * TRAIN})


def make_exported(folder: Path, weights_sha256: str) -> list[dict[str, Any]]:
    """exported/: an fp32 file that is the teacher and an "int8" one that is a little off."""
    folder.mkdir(parents=True)
    records = []
    for precision, shift in (("fp32", 0.25), ("int8", 0.26)):
        data = affine_bytes(0.5, shift, shape=(1, 3, SIZE, SIZE))
        file = f"student.{precision}.onnx"
        (folder / file).write_bytes(data)
        record = {"file": file, "runtime": "onnx", "precision": precision, "sha256": sha256_bytes(data)}
        records.append(record | {"bytes": len(data), "layout": "NCHW"})
    write_json(folder / "exported.json", {"student": weights_sha256, "files": records})
    return records


def make_benchmark(folder: Path, records: list[dict[str, Any]]) -> None:
    """benchmark/ for these files."""
    times = {"threads": 1, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "peak_mib": 9.0, "runs": 5}
    folder.mkdir(parents=True)
    write_json(folder / "benchmark.json", {"machine": MACHINE, "files": [record | times for record in records]})


def make_video(folder: Path, phone: str) -> None:
    """video/ of that file."""
    ratios = {"camera": 1.2, "noise": 0.9, "jitter": 1.3, "clips": 4.0}
    flicker = {kind: {"input": 0.0, "teacher": 2.0, "float": 2.0, "phone": 2 * ratio} for kind, ratio in ratios.items()}
    record: dict[str, Any] = {"pairs": "d" * 64, "teacher": "e" * 64, "phone": phone, "without_teacher": ""}
    record |= {"over_teacher": {kind: {"float": 1.0, "phone": ratio} for kind, ratio in ratios.items()}}
    clip = {"of": "still", "frames": 2, "panels": 3, "width": 8, "height": 8}
    write_json(folder / "video.json", record | {"flicker": flicker, "clip": clip, "clips": 1})
    for name in ("clip.png", "clip.webp"):
        (folder / name).write_bytes(name.encode())


def make_workspace(root: Path, export: Callable[[Path, str], list[dict[str, Any]]]) -> Path:
    """A workspace with one student, `oil`, of the files that `export` makes, evaluated; returns its folder."""
    from models.torch_setup import prepare_torch

    folder = root / "data/students/oil"
    prepare_torch(1)
    make_pairs(folder / "pairs", root / "data/inputs/inputs.jsonl")
    make_student(folder / "student")
    sha256 = json.loads((folder / "student/student.json").read_text())["weights_sha256"]
    write_json(folder / "exportability/exportability.json", {"figures": {"partitions": 1}, "findings": []})
    write_json(folder / "variants/variants.json", {"student": "oil", "steps": 0, "rows": []})
    exported = export(folder / "exported", sha256)
    make_benchmark(folder / "benchmark", exported)
    make_video(folder / "video", judged_file(exported)["sha256"])
    write_detector(folder / "detector", no_detector("d" * 64, sha256))
    run(root)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one student, `oil`, evaluated once."""
    return make_workspace(tmp_path_factory.mktemp("workspace"), make_exported)


def run(root: Path) -> None:
    """Evaluate `oil` in a workspace."""
    params = load_params(Path(__file__).parent.parent / "params.yaml")
    name = next(iter(params.students))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        stage.evaluate(params, "oil", params.students[name])


def read_quality(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report/quality.json").read_text())
    return found


def test_every_contestant_has_every_figure(made: Path) -> None:
    found = read_quality(made)
    contestants = [found["student"], *found["baselines"].values(), *found["files"].values()]
    assert set(found["baselines"]) == {"identity", "colour_affine"}
    assert set(found["files"]) == {"student.fp32.onnx", "student.int8.onnx"}
    for figures in contestants:
        some = {"psnr_to_float_db", "worst_psnr_to_float_db", "banding", "grain", "perceptual"}
        assert figures.keys() - some == FIGURES
        assert all(isinstance(value, float) for value in figures.values())
    assert found["test_samples"] == TEST
    assert found["test_photos"] == 4


def test_figures_that_are_known_beforehand(made: Path) -> None:
    found = read_quality(made)
    fp32, int8 = found["files"]["student.fp32.onnx"], found["files"]["student.int8.onnx"]
    assert found["baselines"]["identity"]["explained_effect"] == 0.0
    # The teacher is a colour map, so the best colour map is the teacher, as is the fp32 file.
    assert found["baselines"]["colour_affine"]["explained_effect"] > 0.999
    assert fp32["explained_effect"] > 0.999
    assert fp32["sharpness_ratio"] == pytest.approx(1, abs=0.02)
    assert found["student"]["explained_effect"] < 0.9  # untrained
    assert found["baselines"]["identity"]["sharpness_ratio"] == pytest.approx(4, abs=0.1)  # contrast 2, squared
    # A constant offset of 0.01 is 40 dB for every picture.
    assert int8["psnr_to_float_db"] == pytest.approx(40, abs=1e-3)
    assert int8["worst_psnr_to_float_db"] == pytest.approx(40, abs=1e-3)
    assert "psnr_to_float_db" not in fp32


def test_what_limits_it_and_where_it_fails_is_told(made: Path) -> None:
    found = read_quality(made)
    assert found["intervals"].keys() == FIGURES
    low, value, high = (
        found["intervals"]["psnr_db"]["low"],
        found["files"]["student.fp32.onnx"]["psnr_db"],  # there is no LiteRT file, so a phone would run the first
        found["intervals"]["psnr_db"]["high"],
    )
    assert low <= value <= high
    # Seven pictures are too few for KID; the perceptual distance is of the phone's file and the student alone.
    assert found["files"]["student.fp32.onnx"]["perceptual"] < found["baselines"]["identity"]["perceptual"]
    assert "perceptual" not in found["files"]["student.int8.onnx"] and "kid" not in found["student"]
    shortfall, x = found["shortfall"], pictures(TRAIN, seed=TRAIN)
    change = np.square((x.astype(float) - teach(x)) / 255).mean(axis=(1, 2, 3)).sum()
    assert shortfall["training"] == pytest.approx(1 - 0.001 * TRAIN / change, abs=1e-4)
    assert shortfall["parts"]["quantisation"] == pytest.approx(shortfall["float"] - shortfall["phone"], abs=1e-5)
    assert shortfall["parts"]["data"] == pytest.approx(shortfall["training"] - shortfall["float"], abs=1e-5)
    assert shortfall["teacher_to_itself"] is None and found["evidence"]["dropped"] == pytest.approx(1 / 9, abs=1e-6)
    assert "6 training pairs of 3 inputs do not show what is usual" in found["failures"]["why_not"]
    text = (made / "report/index.html").read_text()
    assert 'id="limits"' in text and "Nothing could be judged" in text


def test_samples_name_their_pair_and_input(made: Path) -> None:
    found = read_quality(made)
    assert [sample["row"] for sample in found["per_sample"]] == list(range(TEST))
    assert found["per_sample"][3]["pair"] == sha256_bytes(b"test-3")
    assert found["per_sample"][3]["input"] == sha256_bytes(b"test1")
    assert found["per_sample_of"] == "student.fp32.onnx"
    assert found["explained_effect_interval"]["photos"] == 4


def test_the_gate_is_told_of_the_phones_file(made: Path) -> None:
    found = read_quality(made)
    evidence = Evidence.from_json(found["evidence"])
    exported = json.loads((made / "exported/exported.json").read_text())["files"]
    assert evidence.measured_sha256 == exported[0]["sha256"] and evidence.file_bytes == exported[0]["bytes"]
    assert evidence.shipped_sha256 is evidence.timed_with is None  # there is no bundle yet
    assert (evidence.pairs, evidence.teacher, evidence.test_samples) == ("d" * 64, "e" * 64, TEST)
    assert evidence.explained_effect == found["files"]["student.fp32.onnx"]["explained_effect"]
    assert evidence.colour_affine_explained == found["baselines"]["colour_affine"]["explained_effect"]
    assert evidence.int8_psnr_db is evidence.banding is None  # it is a float file
    assert found["files"]["student.int8.onnx"]["banding"] >= 0 and "banding" not in found["files"]["student.fp32.onnx"]
    assert evidence.p90_ms == 2.0 and evidence.bundle_mib == sum(one["bytes"] for one in exported) / 2**20
    # The file is a colour map: it follows every motion and keeps every edge, but for rounding.
    assert evidence.flicker < 0.01 and evidence.structure_kept > 0.999


def test_the_gate_is_told_of_flicker_over_the_teachers_and_the_clip_is_carried_over(made: Path) -> None:
    evidence = Evidence.from_json(read_quality(made)["evidence"])
    assert (evidence.flicker_over_teacher, evidence.without_teacher) == (1.3, "")  # the worst, but for the videos'
    for name in ("clip.png", "clip.webp"):
        assert (made / "report/images" / name).read_bytes() == name.encode()


def test_photos_and_halves_make_up_the_test_set(made: Path) -> None:
    evidence = Evidence.from_json(read_quality(made)["evidence"])
    assert sorted(photo.count for photo in evidence.photos) == [1, 2, 2, 2]
    change = sum(photo.change for photo in evidence.photos)
    assert [one.name for one in evidence.slices] == list(SLICES)
    for lower, upper in zip(evidence.slices[::2], evidence.slices[1::2], strict=True):
        assert lower.samples == 4 and upper.samples == 3
        assert lower.change + upper.change == pytest.approx(change, abs=1e-6)
    inputs, targets = (np.load(made / f"pairs/test.{side}.npy") / 255 for side in ("inputs", "targets"))
    darkest = np.argsort((inputs @ [0.299, 0.587, 0.114]).mean(axis=(1, 2)))[:4]
    expected = np.square(inputs - targets).mean(axis=(1, 2, 3))[darkest].sum()
    assert evidence.slices[0].name == "dark" and evidence.slices[0].change == pytest.approx(expected, abs=1e-5)


def test_latency_of_another_file_is_not_taken(made: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(made.parents[2] / "data", tmp_path / "data")
    folder = tmp_path / "data/students/oil"
    benchmark = json.loads((folder / "benchmark/benchmark.json").read_text())
    for row in benchmark["files"]:
        row["sha256"] = "0" * 64
    write_json(folder / "benchmark/benchmark.json", benchmark)
    run(tmp_path)
    assert read_quality(folder)["evidence"]["p90_ms"] is None


def test_equal_inputs_are_all_in_the_lower_half() -> None:
    columns = {"error": np.full(4, 0.1), "change": np.full(4, 0.4)}
    found = slices.halves(columns, dict.fromkeys(slices.HALVES, np.full(4, 0.5)))
    assert [one.samples for one in found] == [4, 0] * 3
    assert (found[0].error, found[0].change, found[1].change) == (0.4, 1.6, 0.0)


def test_the_report_stands_beside_the_figures(made: Path) -> None:
    names = {path.name for path in (made / "report").rglob("*")}
    assert {"index.html", "quality.json", "samples.png", "curves.png", "losses.svg"} <= names
    assert len([name for name in names if name.startswith(("best-", "median-", "worst-"))]) == 3 * 2 * 4
    assert not list(made.glob(".tmp-*"))


def test_evaluating_again_gives_the_same_bytes(made: Path) -> None:
    def read() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (made / "report").rglob("*") if path.is_file()}

    before = read()
    run(made.parents[2])
    assert read() == before


def damage_model(folder: Path) -> None:
    (folder / "exported/student.int8.onnx").write_bytes(b"torn")


def damage_pairs(folder: Path) -> None:
    path = folder / "pairs/test.targets.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def lose_model(folder: Path) -> None:
    (folder / "exported/student.fp32.onnx").unlink()


def other_weights(folder: Path) -> None:
    record = json.loads((folder / "exported/exported.json").read_text())
    write_json(folder / "exported/exported.json", record | {"student": "0" * 64})


def other_pairs(folder: Path) -> None:
    record = json.loads((folder / "student/student.json").read_text())
    write_json(folder / "student/student.json", record | {"pairs": "0" * 64})


def no_benchmark(folder: Path) -> None:
    (folder / "benchmark/benchmark.json").unlink()


def not_finite(folder: Path) -> None:
    # 0 / 0 wherever the input is 0 / 0: x - x over x - x.
    data = graph_bytes([("Sub", ("x", "x"), "a"), ("Div", ("a", "a"), "y")], shape=(1, 3, SIZE, SIZE))
    (folder / "exported/student.int8.onnx").write_bytes(data)
    record = json.loads((folder / "exported/exported.json").read_text())
    record["files"][1]["sha256"] = sha256_bytes(data)
    write_json(folder / "exported/exported.json", record)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_model, "sha256"),
        (damage_pairs, "sha256"),
        (lose_model, "no file at"),
        (other_weights, "other weights"),
        (other_pairs, "other pairs"),
        (no_benchmark, "missing"),
        (not_finite, "gives no picture"),
    ],
)
def test_damage_is_one_line_and_leaves_no_report(
    made: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    import shutil

    shutil.copytree(made.parents[2] / "data", tmp_path / "data")
    folder = tmp_path / "data/students/oil"
    shutil.rmtree(folder / "report")
    damage(folder)
    with pytest.raises(UserError, match=words) as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (folder / "report").exists()


def samples(effects: list[float]) -> list[dict[str, Any]]:
    return [{"row": row, "explained_effect": effect} for row, effect in enumerate(effects)]


def test_picking_best_median_and_worst() -> None:
    effects = [0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6]
    assert stage.pick(samples(effects), 1) == {"best": [1], "median": [2], "worst": [0]}
    assert stage.pick(samples(effects), 3) == {"best": [1, 6, 4], "median": [8, 2, 7], "worst": [0, 5, 3]}


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("grid", [1, 3, 9])
def test_no_picture_is_shown_twice(count: int, grid: int) -> None:
    bands = stage.pick(samples([0.5] * count), grid)
    rows = [row for band in bands.values() for row in band]
    assert len(rows) == len(set(rows))
    assert rows
    assert all(len(band) <= grid for band in bands.values())


def test_the_float_twin_is_of_the_same_runtime() -> None:
    files = [
        {"file": f"{runtime}-{precision}", "runtime": runtime, "precision": precision}
        for runtime in ("onnx", "litert")
        for precision in ("fp32", "int8")
    ]
    assert quality.float_twins(files) == {"onnx-int8": "onnx-fp32", "litert-int8": "litert-fp32"}
    assert quality.float_twins(files[1:2]) == {}
    assert quality.shown_file(files) == "litert-fp32"
    assert quality.shown_file(files[:2], "int8") == "onnx-int8"
    assert quality.shown_file([]) == quality.TORCH


def test_a_litert_file_takes_a_batch_picture_by_picture(tmp_path: Path) -> None:
    path = tmp_path / "student.fp32.tflite"
    path.write_bytes(relu6_bytes((1, SIZE, SIZE, 3)))
    batch = pictures(3, seed=0)
    np.testing.assert_array_equal(quality.open_file(path, "litert")(batch), quality.scale(batch))
