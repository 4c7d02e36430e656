"""Lines of `make bench` about a student on the device: speed, int8's fidelity, a video frame, quality for the time.

Speed is measured here, in turn in one process; the rest is read from what the pipeline and `python -m
tasks.architectures` found, as a bench cannot train students.
"""

from pathlib import Path
from statistics import median
from typing import Any

from models.errors import UserError
from tasks.architectures import COMPARED
from tasks.bench_lines import Line, at_least, at_most, say
from tasks.files import check_sha256, read_json
from tasks.params import Params
from tasks.stage import STUDENTS
from tasks.student_params import Student
from tasks.target import LOCAL
from tasks.timing import interleaved

CALIBRATION = 8  # how well int8 is calibrated does not change its latency

# The student one would write without measuring.
REFERENCE: dict[str, Any] = {
    "encoder": "mobilenetv3_small_050",
    "decoder_channels": [96, 64, 48, 32],
    "skip": "concat",
    "upsample": "bilinear",
    "head": "full-resolution",
}
LATENCY = ("latency, int8 over reference fp32, LiteRT, 1 thread", 0.28, "ratio")
FILES = (
    ("LiteRT, 1 thread, fp32 over int8", 1.4, "ratio"),
    ("LiteRT int8, 1 thread over 2", 1.5, "ratio"),
    ("ONNX Runtime, the file to take over the other", 1.0, "ratio"),
)
FIDELITY = (("int8 to float on test photos, mean", 45.0, "dB"), ("int8 to float on test photos, worst", 42.0, "dB"))
FRAME = ("720p frame: decode, resize, network, composite, p90", 33.0, "ms")
QUALITY = (
    ("explained effect over the reference's, equal samples", 1.0, "ratio"),
    ("MS-SSIM over the reference's, equal samples", 1.0, "ratio"),
    ("sharpness over the reference's, equal samples", 1.0, "ratio"),
)


def mega_macs(architecture: dict[str, Any], size: int) -> float:
    """Millions of multiplications with addition that one picture takes."""
    from models.exportability import blank
    from models.exportability import mega_macs as of_student
    from models.students import build_student

    return of_student(build_student(architecture, size).eval(), blank(size))


def int8_file(name: str, block: Student, work: Path) -> tuple[Path, str]:
    """The student's LiteRT int8 file and which weights it holds; latency is the same with random ones."""
    folder = STUDENTS / name / "exported"
    architecture, size = block.architecture.model_dump(), block.pairs.size
    if (folder / "exported.json").exists():
        record = read_json(STUDENTS / name / "student" / "student.json")
        files = {one["file"]: one for one in read_json(folder / "exported.json")["files"]}
        if record["architecture"] == architecture and record["size"] == size:
            path = folder / "student.int8.tflite"
            check_sha256(path, files[path.name]["sha256"], path.name)
            return path, "trained weights"

    import numpy as np

    from models.litert import to_litert
    from models.litert_int8 import to_litert_int8
    from models.students import build_student

    say("converting the default student, which is not trained yet")
    chance = np.random.default_rng(0).random((CALIBRATION, 1, size, size, 3), dtype=np.float32)
    path = work / "student.int8.tflite"
    path.write_bytes(
        to_litert_int8(to_litert(build_student(architecture, size).eval(), size), [(one,) for one in chance], 1)
    )
    return path, "random weights"


def latency(params: Params, name: str, block: Student, work: Path) -> list[Line]:
    """p50 of the default student, LiteRT int8, over the reference's, LiteRT float32; one thread each, in turn."""
    from models.litert import to_litert
    from models.runtimes import open_model
    from models.students import build_student

    size = block.pairs.size
    ours, weights = int8_file(name, block, work)
    say("converting the reference UNet")
    reference = work / "reference.fp32.tflite"
    reference.write_bytes(to_litert(build_student(REFERENCE, size).eval(), size))
    models = [open_model(path, "litert", 1) for path in (ours, reference)]
    times = interleaved(models, warmup=params.benchmark.warmup, runs=params.benchmark.runs)
    ours_ms, reference_ms = (median(row) for row in times.tolist())
    macs = [mega_macs(one, size) for one in (block.architecture.model_dump(), REFERENCE)]
    note = (
        f"{ours_ms:.2f} ms ({macs[0]:.0f} MMAC, {weights}) over {reference_ms:.2f} ms ({macs[1]:.0f} MMAC), "
        f"p50 of {times.shape[1]}"
    )
    return [at_most(LATENCY, ours_ms / reference_ms, note)]


def files(params: Params, name: str) -> list[Line]:
    """int8 against fp32, two threads against one, and the ONNX file that the bundle says to take, all in turn."""
    from models.runtimes import open_model

    folder = STUDENTS / name / "bundle"
    shipped = read_json(folder / "manifest.json")["files"]
    for one in shipped:
        check_sha256(folder / one["file"], one["sha256"], one["file"])
    keys = [
        ("litert", "fp32", 1),
        ("litert", "int8", 1),
        ("litert", "int8", 2),
        ("onnx", "fp32", 1),
        ("onnx", "int8", 1),
    ]
    paths = {(one["runtime"], one["precision"]): folder / one["file"] for one in shipped}
    models = [open_model(paths[runtime, precision], runtime, threads) for runtime, precision, threads in keys]
    times = interleaved(models, warmup=params.benchmark.warmup, runs=params.benchmark.runs)
    fp32, int8, two, *onnx = (median(row) for row in times.tolist())
    found = {precision: ms for (_, precision, _), ms in zip(keys[3:], onnx, strict=True)}
    taken = [one["precision"] for one in shipped if one["runtime"] == "onnx" and one["fastest"]]
    if not taken:
        raise UserError("the bundle does not say which ONNX file is the fastest: make run")
    other = min(ms for precision, ms in found.items() if precision != taken[0])
    return [
        at_least(FILES[0], fp32 / int8, f"{fp32:.2f} over {int8:.2f} ms"),
        at_least(FILES[1], int8 / two, f"{int8:.2f} over {two:.2f} ms"),
        at_most(FILES[2], found[taken[0]] / other, f"{taken[0]} {found[taken[0]]:.2f} over {other:.2f} ms"),
    ]


def fidelity(name: str) -> list[Line]:
    """How near LiteRT's int8 file comes to the float file, as evaluate found."""
    found = read_json(STUDENTS / name / "report" / "quality.json")["files"]["student.int8.tflite"]
    keys = ("psnr_to_float_db", "worst_psnr_to_float_db")
    return [at_least(goal, found[key], "evaluate's report") for goal, key in zip(FIDELITY, keys, strict=True)]


def frames(name: str) -> list[Line]:
    """The whole way of a video frame on this machine, with the number of threads that does best."""
    found = read_json(STUDENTS / name / "benchmark" / "benchmark.json")["frames"]
    here = [one for one in found if one["target"] == LOCAL]
    if not here:
        raise UserError("benchmark measured no frames on this machine: set benchmark.frames, make run")
    best = min(here, key=lambda one: float(one["total"]["p90_ms"]))
    steps = ", ".join(f"{one['step']} {one['p50_ms']:.1f}" for one in best["steps"])
    threads = f"{best['threads']} thread{'s' * (best['threads'] > 1)}"
    return [at_most(FRAME, best["total"]["p90_ms"], f"{best['file']}, {threads}; p50: {steps} ms")]


def quality(name: str) -> list[Line]:
    """The default student's figures over the reference's, both after the same samples, int8 over float32."""
    path = COMPARED / name / "architectures.json"
    if not path.exists():
        raise UserError(f"no {path}: python -m tasks.architectures --student {name} --only reference default")
    told = read_json(path)
    rows = {(row["student"], row["precision"]): row for row in told["rows"]}
    try:
        ours, theirs = rows["default", "int8"], rows["reference", "fp32"]
    except KeyError:
        raise UserError(f"{path} does not compare default and reference") from None
    keys = ("explained_effect", "ms_ssim", "sharpness_ratio")
    about = f"after {told['steps']} steps, {len(told['seeds'])} seeds"
    return [
        at_least(goal, ours[key] / theirs[key], f"{ours[key]:.3f} over {theirs[key]:.3f} {about}")
        for goal, key in zip(QUALITY, keys, strict=True)
    ]
