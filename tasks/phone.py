"""What the gate is told of the file a phone runs: its pictures of the test set, its latency, its size.

Called by tasks/evaluate.py for the candidate and by tasks/compare.py for the champion too, so that both are measured
by the same code; tasks/gate.py judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.errors import UserError
from tasks.curation_rules import BESIDE
from tasks.evidence import Evidence
from tasks.failures import Judged
from tasks.file_evidence import AnyEvidence
from tasks.intervals import LEAST_PHOTOS
from tasks.quality import BATCH, COLOUR_AFFINE, DIGITS, Columns, Floats, Model, Pictures, Work, checked, pooled, rounded
from tasks.slices import by_photo, halves, named
from tasks.target import LOCAL, judged_file, of_target, p90_on_target

MIB = 2**20
LEAST_PICTURES = 8  # of the test side: of fewer a share says nothing


def student_evidence(
    work: Work,
    models: Mapping[str, Model],
    columns: Mapping[str, Columns],
    smooth: Mapping[str, Mapping[str, float]],
) -> Evidence:
    """All that evaluate knows of the phone's file; what a bundle ships of it is added by tasks/bundle.py.

    `columns` are those of tasks.quality.measure_all, `smooth` those of tasks.quality.smoothness. The latency is that of
    one thread, if it was this file's.
    """
    files = work.exported["files"]
    phone = judged_file(files)
    evidence = picture_evidence(phone["file"], models[phone["file"]], columns[phone["file"]], work)
    timed = of_target(work.benchmark["files"], LOCAL)
    rows = [one for one in timed if one["sha256"] == phone["sha256"] and one["threads"] == 1]
    return replace(
        evidence,
        measured_sha256=phone["sha256"],
        colour_affine_explained=rounded(pooled(columns[COLOUR_AFFINE]))["explained_effect"],
        banding=rounded(smooth.get(phone["file"], {})).get("banding"),
        p90_ms=rows[0]["p90_ms"] if rows else None,
        file_bytes=phone["bytes"],
        bundle_mib=sum(record["bytes"] for record in files) / MIB,
    )


def with_video(evidence: Evidence, video: Mapping[str, Any]) -> Evidence:
    """The same with the flicker over the teacher's of the kind that is worst; stills alone, as not everyone has videos.

    Raises a UserError where video.json is not about these files.
    """
    if (video["pairs"], video["phone"]) != (evidence.pairs, evidence.measured_sha256):
        raise UserError("video/video.json was measured on other pairs or files: run dvc repro")
    ratios = [one["phone"] for kind, one in video["over_teacher"].items() if kind != "clips"]
    worst = max(ratios) if ratios and None not in ratios else None
    return replace(evidence, flicker_over_teacher=worst, without_teacher=video["without_teacher"])


def with_detector(evidence: Evidence, detector: Mapping[str, Any], weights: str) -> Evidence:
    """The same with the detector's false alarms on test inputs, or why they say nothing.

    Raises a UserError where detector.json is not about these pairs and weights.
    """
    if (detector["pairs"], detector["student"]) != (evidence.pairs, weights):
        raise UserError("detector/detector.json was made for other pairs or weights: run dvc repro")
    if detector["without"]:
        note = f"cannot be told, as there is none: {detector['without']}"
        return replace(evidence, detector_note=note, without_detector=detector["left_out"])
    alarm = detector["alarms"]["fades"]
    told = f"{alarm['samples']} pictures of {alarm['photos']} photo{'s' if alarm['photos'] != 1 else ''}"
    if alarm["photos"] < LEAST_PHOTOS or alarm["samples"] < LEAST_PICTURES:
        return replace(evidence, detector_note=f"cannot be told from {told}")
    return replace(evidence, detector_false_positives=alarm["found"], detector_note=f"on {told}")


def with_yield(evidence: Evidence, yields: Mapping[str, Mapping[str, int]]) -> Evidence:
    """The same with the share of the teacher's answers that curation dropped for what they show (yield.json)."""
    made = sum(counts["pairs"] for counts in yields.values())
    whole = sum(counts.get(rule, 0) for counts in yields.values() for rule in ("kept", *BESIDE))
    return replace(evidence, dropped=round(1 - whole / made, DIGITS) if made else None)


def with_failures(evidence: Evidence, judged: Judged) -> Evidence:
    """The same with the shares of the test pictures on which the student copies a failure, or invents one."""
    if judged.why_not:
        return replace(evidence, without_failures=judged.why_not)
    looked_at = judged.looked_at
    told = f"on {looked_at} picture{'s' if looked_at != 1 else ''}"
    if looked_at < LEAST_PICTURES:
        return replace(evidence, without_failures=f"there are failures to be told {told} only")
    copied, invented = (round(getattr(judged, key) / looked_at, DIGITS) for key in ("copied", "invented"))
    return replace(evidence, copied_failures=copied, invented_failures=invented, failures_note=told)


def on_target(
    evidence: AnyEvidence, benchmark: Mapping[str, Any], files: Sequence[Mapping[str, Any]], target: str
) -> AnyEvidence:
    """The same with the p90 of the target the gate asks for, or why there is none; evaluate's is this machine's."""
    p90_ms, note = p90_on_target(benchmark, files, target)
    if target == LOCAL:
        return evidence if evidence.p90_ms is not None or p90_ms is not None else replace(evidence, target_note=note)
    return replace(evidence, target=target, p90_ms=p90_ms, target_note=note)


def picture_evidence(name: str, model: Model, columns: Columns, work: Work) -> Evidence:
    """What a file's pictures of the test set tell, whichever file it is.

    Fidelity to the float file is None where `columns` do not have it.
    """
    from models import metrics, stability

    def steady(pictures: Pictures) -> Floats:
        return checked(name, model(pictures), pictures.shape)

    figures = rounded(pooled(columns))
    scenes = [metrics.scene(metrics.to_tensor(x)) for (x,) in metrics.batches([work.inputs], BATCH)]
    return Evidence(
        pairs=work.pairs["digest"],
        teacher=work.pairs["teacher"],
        explained_effect=figures["explained_effect"],
        sharpness_ratio=figures["sharpness_ratio"],
        chroma_ratio=figures["chroma_ratio"],
        int8_psnr_db=figures.get("psnr_to_float_db"),
        flicker=round(stability.flicker(steady, work.inputs), DIGITS),
        structure_kept=round(stability.structure_kept(steady, work.inputs), DIGITS),
        test_samples=len(work.inputs),
        photos=by_photo(columns, work.photos),
        slices=halves(columns, metrics.join(scenes)) + named(columns, work.slices.masks),
    )
