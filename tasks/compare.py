"""Evidence of a candidate and of the champion, both measured against the same teacher in one place.

Runs in a checkout where the candidate has been bundled: reads data/students/NAME and the champion's bundle, and runs
the champion's int8 LiteRT file on the candidate's test pairs. The champion was taught by the teacher of its day, so
only this makes the two comparable. Both files are timed in turn in one run. Writes FILE:
{"candidate": Evidence, "champion": Evidence or null, "undisturbed": SHARE}, for tasks.gate.decide; of the time it took
to time them, the processor spent SHARE on it and the rest on others.

Command: python -m tasks.compare --student NAME [--champion FOLDER] --out FILE
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from tasks.bundle import INPUTS
from tasks.evaluate import read_work
from tasks.evidence import Evidence
from tasks.file_evidence import AnyEvidence
from tasks.files import read_json, sha256_file, write_json
from tasks.manifest import Manifest, verify_bundle
from tasks.params import load_params
from tasks.phone import MIB, on_target, picture_evidence
from tasks.quality import Floats, Model, Pictures, Work, measure_all, scale
from tasks.stage import STUDENTS, guarded
from tasks.student_params import Student
from tasks.target import LOCAL
from tasks.timing import interleaved

if TYPE_CHECKING:
    from models.runtimes import Gives

THREADS = 1


def compare(
    folder: Path, champion: Path | None, *, warmup: int, runs: int, inputs: Path = INPUTS, target: str = LOCAL
) -> dict[str, Any]:
    """Evidence of the student in `folder` and of the bundle at `champion`, as JSON.

    Raises a UserError where a bundle is not whole, the candidate's evidence is of other pairs, or the champion cannot
    run.
    """
    mine = verify_bundle(folder / "bundle")
    candidate = candidate_evidence(folder, mine, target)
    own = folder / "bundle" / mine.phone.file
    if champion is None:
        return alone(own, candidate, warmup=warmup, runs=runs)
    work = read_work(folder, inputs)

    def measure(file: Path) -> Evidence:
        # The pairs explain that much, whichever student is asked.
        return replace(champion_evidence(file, work), colour_affine_explained=candidate.colour_affine_explained)

    return in_turn(own, champion, candidate, measure, warmup=warmup, runs=runs)


def alone(own: Path, candidate: AnyEvidence, *, warmup: int, runs: int, gives: "Gives" = "picture") -> dict[str, Any]:
    """The evidence of a candidate that has no champion, with the time of its file `own`."""
    (p90_ms,), share = timed_in_turn([own], warmup=warmup, runs=runs, gives=gives)
    return {"candidate": with_time(candidate, p90_ms).to_json(), "champion": None, "undisturbed": share}


def in_turn(
    own: Path,
    champion: Path,
    candidate: AnyEvidence,
    measure: Callable[[Path], AnyEvidence],
    *,
    warmup: int,
    runs: int,
    gives: "Gives" = "picture",
) -> dict[str, Any]:
    """The candidate's file `own` and the champion's timed in turn, and the evidence of both.

    `candidate` is the candidate's but for the time; `measure` is asked for that of the champion's file.
    """
    manifest = verify_bundle(champion)
    other = champion / manifest.phone.file
    try:
        times, share = timed_in_turn([own, other], warmup=warmup, runs=runs, gives=gives)
        evidence = measure(other)
    except (UserError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot compare with the champion at {champion}: {reason}") from None
    evidence = replace(of_bundle(evidence, manifest), p90_ms=times[1], timed_with=candidate.measured_sha256)
    candidate = replace(with_time(candidate, times[0]), timed_with=evidence.measured_sha256)
    return {"candidate": candidate.to_json(), "champion": evidence.to_json(), "undisturbed": share}


def with_time(evidence: AnyEvidence, p90_ms: float) -> AnyEvidence:
    """The same with the p90 that was taken here; a target elsewhere keeps its own."""
    if evidence.target == LOCAL:
        return replace(evidence, p90_ms=p90_ms, target_note="")
    return replace(evidence, p90_in_turn_ms=p90_ms)


def candidate_evidence(folder: Path, manifest: Manifest, target: str) -> Evidence:
    """What evaluate found, with what the bundle beside it ships; a UserError where they are not about one student."""
    found = Evidence.from_json(read_json(folder / "report" / "quality.json").get("evidence") or {})
    return beside_bundle(found, folder, manifest, target)


def beside_bundle(found: AnyEvidence, folder: Path, manifest: Manifest, target: str) -> AnyEvidence:
    """The evidence with what the bundle beside it ships, timed on the gate's target."""
    pairs = read_json(folder / "pairs" / "pairs.json")
    for digest in (found.pairs, manifest.digests.pairs):
        if digest != pairs["digest"]:
            raise UserError(f"{folder}: pairs, report and bundle are not of one run: run dvc repro")
    if target != LOCAL:
        files = read_json(folder / "exported" / "exported.json")["files"]
        found = on_target(found, read_json(folder / "benchmark" / "benchmark.json"), files, target)
    return of_bundle(found, manifest)


def of_bundle(evidence: AnyEvidence, manifest: Manifest) -> AnyEvidence:
    """The same with what a bundle says that it ships."""
    return replace(
        evidence,
        shipped_sha256=manifest.phone.sha256,
        file_bytes=manifest.phone.bytes,
        bundle_mib=sum(entry.bytes for entry in manifest.loaded) / MIB,
    )


def timed_in_turn(
    files: list[Path], *, warmup: int, runs: int, gives: "Gives" = "picture"
) -> tuple[list[float], float]:
    """The p90 of one picture in ms of each LiteRT file, one run of each after the other, on one thread.

    Beside them the share of that time that the processor gave to us: 1 on a quiet machine.
    """
    from models.runtimes import open_model

    models = [open_model(file, "litert", THREADS, gives) for file in files]
    spent, started = time.process_time(), time.perf_counter()
    times = interleaved(models, warmup=warmup, runs=runs)
    share = min(1.0, (time.process_time() - spent) / (time.perf_counter() - started))
    return [round(float(value), 3) for value in np.percentile(times, 90, axis=1)], round(share, 3)


def champion_evidence(file: Path, work: Work) -> Evidence:
    """The champion's pictures of the candidate's test inputs against the candidate's teacher."""
    import torch

    from models.torch_setup import prepare_torch

    prepare_torch(torch.get_num_threads())
    digest = sha256_file(file)
    with torch.inference_mode():
        model = open_at_size(file, work.inputs.shape[1])
        columns = measure_all({file.name: model}, work.inputs, work.targets, {})[file.name]
        return replace(picture_evidence(file.name, model, columns, work), measured_sha256=digest)


def open_at_size(file: Path, size: int) -> Model:
    """A LiteRT file as a function over pictures of `size`; one that takes another size has them resized, and back."""
    from torch.nn import functional

    from models.metrics import to_tensor
    from models.runtimes import open_model

    runtime = open_model(file, "litert", THREADS)
    if runtime.size != size:
        print(f"compare: the champion takes {runtime.size} pixels: pictures are resized from {size} and back")

    def resized(picture: Floats, side: int) -> Floats:
        tensor = functional.interpolate(to_tensor(picture), size=(side, side), mode="bilinear", antialias=True)
        back: Floats = tensor.clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()
        return back

    def run(picture: Floats) -> Floats:
        if runtime.size == size:
            return runtime(picture)
        return resized(runtime(resized(picture, runtime.size)), size)

    def over_batch(pictures: Pictures) -> Floats:
        return np.concatenate([run(scale(pictures[i : i + 1])) for i in range(len(pictures))])

    return over_batch


def write_comparison(student: str, champion: Path | None, out: Path) -> None:
    """Compare a student of params.yaml with the champion's bundle and write `out`, whole or not at all."""
    params = load_params()
    block = params.block(student)
    folder, target = STUDENTS / student, block.gate.target
    warmup, runs = params.benchmark.warmup, params.benchmark.runs
    if isinstance(block, Student):
        found = compare(folder, champion, warmup=warmup, runs=runs, target=target)
    else:
        from tasks.classification.compare import compare as compare_labels

        found = compare_labels(folder, champion, block.dataset, warmup=warmup, runs=runs, target=target)
    write_json(out, found)
    print(f"compare: {out}", file=sys.stderr)


def main() -> None:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tasks.compare")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml")
    parser.add_argument("--champion", type=Path, help="the folder of the champion's bundle; none if there is none")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    asked = parser.parse_args()
    guarded("compare", lambda: write_comparison(asked.student, asked.champion, asked.out), asked.student)


if __name__ == "__main__":
    main()
