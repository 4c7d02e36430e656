"""Stage detector: a small model that tells an app how far a frame lies outside what the student was taught on.

Reads data/inputs/inputs.jsonl and, of one student, pairs/, student/ and exported/. Fits the detector on training
inputs, calibrates it on held-out ones (tasks/detector_fit.py) and measures on test inputs, as they are and as they are
not meant to be (tasks/shifted.py), how often it is wrong; beside it what plainer ways and the student's bottleneck
would tell. Writes detector/: the files an app runs, LiteRT and ONNX, each held against torch; detector.json; and
latency.json, the time one frame takes beside the student's. What an app does with it: docs/outside.md.

Command: python -m tasks.detector --student NAME
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.spread import spread
from tasks.calibration import auroc, auroc_interval, false_alarms, share_interval
from tasks.detector_fit import Fitted, Sample, Values, fit
from tasks.files import check_sha256, replacing_folder, sha256_bytes, write_bytes, write_json
from tasks.outside_baselines import BASELINES, baselines
from tasks.params import Params
from tasks.progress import progress
from tasks.quality import Pictures, read_pairs, scale
from tasks.quantise import LAYOUTS, SUFFIXES
from tasks.records import SPLITS, Input, Verdict, read_made, read_records, rows_of
from tasks.shifted import LINE_ART, SHIFTS, line_art, shifted
from tasks.stage import STUDENTS, student_main
from tasks.stage_params import Detector
from tasks.student_params import Student
from tasks.target import judged_file
from tasks.timing import interleaved

INPUTS = Path("data/inputs/inputs.jsonl")
LEAST_TAUGHT = 5  # photos among the training inputs: fewer do not say what is usual
SHIFTED = 96  # test inputs, at most, that shifted sets are made of
CHECKED = 8  # pictures on which a file is held against torch
MAX_DEPARTURE = 1e-3  # of a file's score from torch's, relative
DIGITS = 4  # of scores and figures: finer differences come from the machine


def detector(params: Params, name: str, block: Student) -> None:
    """Write data/students/NAME/detector; raises UserError where what it reads does not belong together."""
    folder, settings = STUDENTS / name, params.detector
    pairs, student, exported = read_made(folder)
    record: dict[str, Any] = {"pairs": pairs["digest"], "student": student["weights_sha256"], "size": pairs["size"]}
    train, val, test = read_inputs(folder, pairs, settings.fitted_on, INPUTS)
    without = why_none(settings, train, val)
    with replacing_folder(folder / "detector") as made:
        if without:
            record |= {"without": without, "left_out": not settings.fitted_on, "files": [], "sets": []}
            told = f"none: {without}"
        else:
            record |= {"without": "", "left_out": False, "looks_at": list(settings.looks_at)}
            record |= make(settings, folder, (train, val, test), made)
            latency = timed(made, record["files"][0], folder / "exported", exported["files"], settings.runs)
            write_json(made / "latency.json", latency)
            told = in_words(record, latency)
        write_json(made / "detector.json", record)
    print(f"{name}: detector: {told}; {folder}/detector/detector.json")


def read_inputs(folder: Path, pairs: Mapping[str, Any], most: int, inputs: Path) -> tuple[Sample, Sample, Sample]:
    """Training inputs, at most so many, and those for validation and test; a UserError if one photo is on two sides."""
    groups = {one.digest: one.group for one in read_records(inputs, Input)}
    kept = folder / "pairs" / "kept.jsonl"
    verdicts = read_records(kept, Verdict)
    samples = []
    for split in SPLITS:
        check_sha256(folder / "pairs" / f"{split}.inputs.npy", pairs["files"][f"{split}.inputs.npy"], "pairs")
        pictures, _ = read_pairs(folder / "pairs", split)
        mine = rows_of(verdicts, split, len(pictures), kept)
        # What a generative teacher drew itself was cut from nothing: each picture stands for itself.
        photos = [groups.get(one.input, one.input) or one.pair for one in mine]
        rows = spread(len(pictures), most if split == "train" else len(pictures))
        samples.append(Sample(pictures=pictures[rows], photos=[photos[row] for row in rows]))
    sides = [set(sample.photos) for sample in samples]
    if sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2]:
        raise UserError(f"{folder}/pairs has one photo in two splits: run the pipeline from ingest on (dvc repro)")
    return samples[0], samples[1], samples[2]


def why_none(settings: Detector, train: Sample, val: Sample) -> str:
    """Why there can be no detector, or ""."""
    if not settings.fitted_on:
        return "detector.fitted_on is 0"
    if train.count < LEAST_TAUGHT:
        return (
            f"the training inputs come from {train.count} photos, and fewer than {LEAST_TAUGHT} do not tell what is "
            "usual: add photos to the sources"
        )
    return ""


def make(settings: Detector, folder: Path, samples: tuple[Sample, Sample, Sample], made: Path) -> dict[str, Any]:
    """Fit, write the files into `made`, measure the one a phone runs; returns what detector.json says of it."""
    from models.outside import to_files
    from models.students import load_student
    from models.torch_setup import prepare_torch

    train, val, test = samples
    prepare_torch(1)
    student = load_student(folder / "student")
    say(f"fitting on {len(train.pictures)} inputs of {train.count} photos")
    fitted = fit(student, train, val, settings.looks_at, fades=settings.fades, passes=settings.passes)
    say("converting to LiteRT and ONNX (about a quarter of a minute)")
    size = train.pictures.shape[1]
    checks = test.pictures[spread(len(test.pictures), CHECKED)]
    checks = np.concatenate([checks, shifted("night", checks)])
    files = []
    for runtime, data in to_files(fitted.outside, size).items():
        path = made / f"detector.fp32.{SUFFIXES[runtime]}"
        write_bytes(path, data)
        files.append(described(path, runtime, data, fitted.outside, checks))
    score = scorer(made / files[0]["file"], files[0]["runtime"])
    return {
        "files": files,
        "passes_at": round(fitted.passes_at, DIGITS),
        "photos": {"train": train.count, "val": val.count, "test": test.count},
        "fitted_on": len(train.pictures),
        "calibrated_on": fitted.held_out,
    } | measured(settings, fitted, score, train, test, folder)


def described(path: Path, runtime: str, data: bytes, outside: Any, checks: Pictures) -> dict[str, Any]:
    """A file's line in detector.json; raises a UserError if its scores are not torch's."""
    from tasks.detector_fit import of_pictures

    expected, found = of_pictures(outside, checks), scorer(path, runtime)(checks)
    departure = float(np.max(np.abs(found - expected) / expected))
    if not departure <= MAX_DEPARTURE:
        raise UserError(
            f"{path.name} gives scores that differ from torch's by {departure:.2g} of their value, where "
            f"{MAX_DEPARTURE} is allowed: use another version of the converter"
        )
    return {
        "file": path.name,
        "runtime": runtime,
        "precision": "fp32",
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "layout": LAYOUTS[runtime],
        "departure": float(f"{departure:.1g}"),
    }


def scorer(path: Path, runtime: str) -> Any:
    """A detector's file as a function (N,S,S,3) uint8 -> (N,) scores."""
    from models.runtimes import open_model

    model = open_model(path, runtime, 1, "number")

    def score(pictures: Pictures) -> Values:
        return np.array([float(model(scale(picture[None]))[0]) for picture in pictures])

    return score


def measured(
    settings: Detector, fitted: Fitted, score: Any, train: Sample, test: Sample, folder: Path
) -> dict[str, Any]:
    """False alarms on test inputs, and how well shifted sets are told from them; by the file and by other ways."""
    rows = spread(len(test.pictures), SHIFTED)
    usual, photos = test.pictures[rows], [test.photos[row] for row in rows]
    art, drawings = line_art(test.pictures.shape[1])
    sets = {name: (shifted(name, usual), photos) for name in SHIFTS} | {LINE_ART: (art, drawings)}
    every = score(test.pictures)
    mine = every[rows]
    with progress("detector", len(sets) * (1 + len(BASELINES)), "sets") as advance:
        others = baselines(train, usual, {name: pictures for name, (pictures, _) in sets.items()}, folder, advance)
        lines, scores = [], {"test": rounded(mine)}
        for name, (pictures, come_from) in sets.items():
            found = score(pictures)
            advance(1)
            scores[name] = rounded(found)
            interval = auroc_interval(mine, found, photos, come_from)
            lines.append(
                {
                    "name": name,
                    "samples": len(found),
                    "auroc": round(auroc(mine, found), DIGITS),
                    "auroc_interval": [round(end, DIGITS) for end in interval] if interval else None,
                    "fpr_at_95": round(false_alarms(mine, found), DIGITS),
                    "fades": round(float((found > 1).mean()), DIGITS),
                    "passes": round(float((found > fitted.passes_at).mean()), DIGITS),
                    "baselines": {way: round(auroc(*by[name]), DIGITS) for way, by in others.items()},
                }
            )
    alarms = {
        "fades": alarm(settings.fades, fitted.fades.by, every > 1, test.photos),
        "passes": alarm(settings.passes, fitted.passes.by, every > fitted.passes_at, test.photos),
    }
    return {"alarms": alarms, "sets": lines, "scores": scores}


def alarm(rate: float, by: str, flagged: Any, photos: Sequence[str]) -> dict[str, Any]:
    """The rate of false alarms asked for, what vouches for it, and what was found on test inputs."""
    names = sorted(set(photos))
    own = [np.mean([hit for hit, photo in zip(flagged, photos, strict=True) if photo == name]) for name in names]
    return {
        "asked": rate,
        "by": by,
        "found": round(float(np.mean(flagged)), DIGITS),
        "interval": [round(end, DIGITS) for end in share_interval([float(share) for share in own])],
        "samples": len(photos),
        "photos": len(names),
    }


def rounded(scores: Values) -> list[float]:
    """Scores for a JSON file."""
    return [round(float(score), DIGITS) for score in scores]


def timed(
    made: Path, file: Mapping[str, Any], exported: Path, files: Sequence[Mapping[str, Any]], runs: int
) -> dict[str, Any]:
    """Milliseconds of the detector's file and of the student's that a phone runs, in turn on one thread."""
    from models.runtimes import open_model

    phone = judged_file(files)
    models = [
        open_model(made / file["file"], file["runtime"], 1, "number"),
        open_model(exported / phone["file"], phone["runtime"], 1),
    ]
    p50 = np.median(interleaved(models, warmup=3, runs=runs), axis=1)
    return {
        "file": file["file"],
        "p50_ms": round(float(p50[0]), 3),
        "student": phone["file"],
        "student_p50_ms": round(float(p50[1]), 3),
        "share": round(float(p50[0] / p50[1]), 3),
        "runs": runs,
    }


def in_words(record: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """The line for the terminal."""
    fades = record["alarms"]["fades"]
    aurocs = [one["auroc"] for one in record["sets"]]
    line = (
        f"AUROC {np.mean(aurocs):.3f} over {len(aurocs)} shifted sets; the effect fades on {fades['found']:.1%} of "
        f"{fades['samples']} test inputs of {fades['photos']} photos (asked: {fades['asked']:.1%}); "
        f"{latency['share']:.0%} of the student's time"
    )
    if fades["by"] == "extrapolation":
        photos = record["photos"]["train"] + record["photos"]["val"]
        line += f"; {photos} photos cannot vouch for a rate of {fades['asked']:g}, so the thresholds are extrapolated"
    return line


def say(line: str) -> None:
    """Show what is being done."""
    print(f"detector: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    student_main("detector", detector)
