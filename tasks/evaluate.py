"""Stage evaluate: every model file, the torch student and two trivial baselines against the teacher.

Reads data/inputs/inputs.jsonl, data/panel.json and, of one student, exportability/, raw/, pairs/, student/, exported/,
detector/, benchmark/, variants/ and video/; pixels, weights and model files are checked against their recorded sha256.
Writes report/quality.json and the report (tasks/report.py). Pictures are streamed a few at a time over memory-mapped
arrays, so memory does not grow with the set.

Command: python -m tasks.evaluate --student NAME
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.control_quality import control_quality, open_slider, slider_strip
from tasks.failures import Judged, find_failures
from tasks.files import check_sha256, read_json, read_jsonl, replacing_folder, write_json
from tasks.input_slices import cluster_strips, input_slices
from tasks.intervals import figure_intervals
from tasks.likeness import likeness
from tasks.panel_inputs import read_panel
from tasks.panel_quality import panel_quality
from tasks.params import Params
from tasks.phone import student_evidence, with_detector, with_failures, with_video, with_yield
from tasks.quality import (
    COLOUR_AFFINE,
    IDENTITY,
    TORCH,
    Columns,
    Model,
    Work,
    float_twins,
    measure_student,
    panels,
    read_pairs,
    shown_file,
    smoothness,
    summarise,
)
from tasks.records import Input, Verdict, made_files, read_detector, read_made, read_records, rows_of
from tasks.report import Evidence, write_report
from tasks.shortfall import asked_again, shortfall
from tasks.stage import STUDENTS, student_main
from tasks.student_params import Student
from tasks.target import judged_file, without_addresses

INPUTS = Path("data/inputs/inputs.jsonl")


def evaluate(params: Params, name: str, student: Student) -> None:
    """Write data/students/NAME/report; raises UserError where what it reads does not belong together."""
    folder = STUDENTS / name
    work = read_work(folder, INPUTS)
    columns, models = measure_student(folder, work)
    smooth = smoothness(models, work.inputs, float_twins(work.exported["files"]))
    video = read_json(folder / "video" / "video.json")
    detector = read_detector(folder / "detector")
    gate = with_video(student_evidence(work, models, columns, smooth), video)
    gate = with_detector(gate, detector, work.student["weights_sha256"])
    yields = read_json(folder / "pairs" / "yield.json")
    judged = judged_failures(folder, work, models)
    gate = with_failures(with_yield(gate, yields), judged)
    quality = summarise(columns, work, gate, smooth)
    quality["panel"] = panel_quality(read_panel(), work, columns, judged_file(work.exported["files"])["file"])
    slider = open_slider(folder, work)
    control = control_quality(folder, work, *slider) if slider else None
    if control:
        quality["control"] = control
    quality["failures"] = judged.to_json()
    add_findings(quality, folder, work, models, columns)
    evidence = Evidence(
        name=name,
        quality=quality,
        benchmark=without_addresses(work.benchmark),
        exported=work.exported,
        student=work.student,
        pairs=work.pairs,
        yields=yields,
        curation=read_json(folder / "pairs" / "curation.json"),
        curve=read_jsonl(folder / "student" / "curve.jsonl"),
        exportability=read_json(folder / "exportability" / "exportability.json"),
        variants=read_json(folder / "variants" / "variants.json"),
        video=video,
        detector=detector,
        clip={path.name: path.read_bytes() for path in sorted((folder / "video").glob("clip.*"))},
        clusters=cluster_strips(work.inputs, work.slices),
        slider=slider_strip(slider[1], work.inputs) if slider else b"",
        failures=judged.pictures,
        inputs=used_inputs(folder / "pairs" / "kept.jsonl", INPUTS),
    )
    rows = pick(quality["per_sample"], params.evaluate.grid)
    with replacing_folder(folder / "report") as report:
        write_json(report / "quality.json", quality)
        write_report(report, evidence, rows, lambda row: panels(work, models, row))
    told = quality["student"]
    affine = quality["baselines"][COLOUR_AFFINE]["explained_effect"]
    print(
        f"{name}: explained effect {told['explained_effect']:.3f} (colour map alone {affine:.3f}), "
        f"PSNR {told['psnr_db']:.2f} dB on {quality['test_samples']} test pictures; {folder}/report/index.html"
    )
    if control:
        effects = ", ".join(f"{effect:.3f} at {strength}" for strength, effect in control["explained_effect"].items())
        print(
            f"{name}: slider: explained effect {effects}; {control['identity_levels']:.2f} levels from the input at 0; "
            f"rises all the way on {control['monotone']:.0%} of the pictures"
        )


def add_findings(
    quality: dict[str, Any], folder: Path, work: Work, models: Mapping[str, Model], columns: Mapping[str, Columns]
) -> None:
    """Put into quality.json what says why: intervals, likeness, and what limits the student."""
    files = work.exported["files"]
    phone, float_file = judged_file(files)["file"], shown_file(files)
    quality["intervals"] = {
        name: interval.to_json() for name, interval in figure_intervals(columns[phone], work.photos).items()
    }
    for name, figures in likeness(models, [TORCH, phone, IDENTITY, COLOUR_AFFINE], work.inputs, work.targets).items():
        ({TORCH: quality["student"]} | quality["files"] | quality["baselines"])[name].update(figures)
    explained = {
        key: quality["files"][file]["explained_effect"] for key, file in (("phone", phone), ("float", float_file))
    }
    errors = read_json(folder / "student" / "errors.json")
    taught = read_pairs(folder / "pairs", "train")
    again = asked_again(folder / "pairs" / "kept.jsonl", len(taught[0]))
    quality["shortfall"] = shortfall(explained, errors, *taught, again)


def judged_failures(folder: Path, work: Work, models: Mapping[str, Model]) -> Judged:
    """Where teacher, student or both fail on the test pictures."""
    files = work.exported["files"]
    shown = {"student": shown_file(files), "int8": judged_file(files)["file"]}
    return find_failures(folder, models, shown, work.verdicts)


def read_work(folder: Path, inputs: Path) -> Work:
    """Read pairs/, student/, exported/ and benchmark/, and check right bytes, and that one was made from another."""
    pairs, student, exported = read_made(folder)
    for file, sha256 in pairs["files"].items():
        if not file.startswith("val."):  # not read here
            check_sha256(folder / "pairs" / file, sha256, "pairs")
    for record in made_files(exported):
        check_sha256(folder / "exported" / record["file"], record["sha256"], "exported model")
    test_inputs, test_targets = read_pairs(folder / "pairs", "test")
    kept = folder / "pairs" / "kept.jsonl"
    verdicts = rows_of(read_records(kept, Verdict), "test", len(test_inputs), kept)
    groups = {one.digest: one.group for one in read_records(inputs, Input)}
    return Work(
        pairs=pairs,
        student=student,
        exported=exported,
        benchmark=read_json(folder / "benchmark" / "benchmark.json"),
        inputs=test_inputs,
        targets=test_targets,
        verdicts=verdicts,
        photos=[groups.get(verdict.input, verdict.input) for verdict in verdicts],
        slices=input_slices(test_inputs, verdicts, read_panel(), read_pairs(folder / "pairs", "train")[0]),
    )


def used_inputs(kept: Path, inputs: Path) -> list[Input]:
    """The inputs that at least one kept pair was cut from."""
    used = {verdict.input for verdict in read_records(kept, Verdict)}
    return [one for one in read_records(inputs, Input) if one.digest in used]


def pick(samples: Sequence[Mapping[str, Any]], count: int) -> dict[str, list[int]]:
    """Rows of the best, the middle and the worst pictures by explained effect, at most `count` each, none twice."""
    ranked = [sample["row"] for sample in sorted(samples, key=lambda one: (-one["explained_effect"], one["row"]))]
    each = max(1, min(count, len(ranked) // 3))
    middle = (len(ranked) - each) // 2
    bands = {
        "best": ranked[:each],
        "median": ranked[middle : middle + each],
        "worst": ranked[len(ranked) - each :][::-1],
    }
    seen: set[int] = set()
    for name, rows in bands.items():
        bands[name] = [row for row in rows if row not in seen]
        seen.update(rows)
    return bands


if __name__ == "__main__":
    student_main("evaluate", evaluate)
