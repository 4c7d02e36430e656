"""generate: run the teacher over crops of the inputs, in shards that survive a kill.

Reads data/inputs/ (inputs.jsonl, images/). Writes data/students/NAME/raw/: the shards (tasks/shards.py),
manifest.jsonl (a line per shard) and teacher.json. Until it is whole it grows in
data/.work/NAME/generate-KEY/, from where a later run goes on; what it cost is in
data/.work/NAME/generate.cost.json.
Command: python -m tasks.generate --student NAME

Every pair is a function of the teacher's digest, the input's digest, the crop and the seed, so the bytes of
raw/ do not depend on the number of workers, the batch size, on kills or on where the work is done: here, or on a Ray
cluster (tasks/cluster.py), from which only this machine's process writes.
"""

import json
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.files import TEMPORARY, sync_folder
from models.teachers import REMOTE, Teacher, load_teacher
from models.teachers.digests import teacher_digest
from models.teachers.pinned import without_places
from tasks.cluster import on_cluster
from tasks.files import read_json, sha256_json, write_json, write_jsonl
from tasks.need import check_need
from tasks.occluders import KINDS
from tasks.params import Params
from tasks.progress import progress
from tasks.records import Input, Pair, read_records
from tasks.shards import Job, is_whole, make_shard
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.student_params import Pairs, Student
from tasks.workers import spread_out

INPUTS = Path("data/inputs")
# Of exposure, in stops: darker and brighter than the input by so much.
DARKER, BRIGHTER = (-3.0, -0.5), (0.5, 2.5)
GAMMA = (0.75, 1.35)
FORMAT = 2  # raise it when crops are cut or stored in another way: shards begun before are then not used


def generate(params: Params, name: str, student: Student) -> None:
    """Make data/students/NAME/raw, going on from what an earlier run left."""
    settings = student.teacher.model_dump()
    shared = params.generate
    away = shared.cluster != "" and settings["kind"] not in REMOTE
    load = cache(partial(load_teacher, settings))
    if not away:  # where others do the work, it would take this machine's memory for nothing
        load()
    digest = teacher_digest(settings)
    inputs = read_records(INPUTS / "inputs.jsonl", Input)
    pairs = plan(inputs, student.pairs, digest)
    if not pairs:
        raise UserError("data/inputs holds no inputs: add photos to the folder that ingest.folder names")
    drawn = plan_samples(student.pairs, digest)
    planned = [pair.to_json() for pair in pairs + drawn]
    key = sha256_json([FORMAT, digest, student.pairs.size, shared.shard_size, planned])
    folder = work_folder(name) / f"generate-{key[:16]}"
    origins = {item.digest: item.origin for item in inputs}
    jobs = [
        Job(
            name=f"shard-{number:05d}",
            pairs=tuple(some),
            origins={pair.input: origins[pair.input] for pair in some if pair.input},
            folder=folder,
            images=INPUTS / "images",
            size=student.pairs.size,
            batch_size=shared.batch_size,
            teacher=settings,
        )
        for number, some in enumerate([*in_shards(pairs, shared.shard_size), *in_shards(drawn, shared.shard_size)])
    ]
    missing = [job for job in jobs if not is_whole(job)]
    if len(missing) == len(jobs):
        print(f"generate {name}: {check_need(name, student, load)}", file=sys.stderr)
    # A teacher behind an API is asked by this one process, whatever is set: one ledger, one rate, one cap.
    workers = 1 if settings["kind"] in REMOTE else min(shared.workers, len(missing))
    if away:
        work = on_cluster(missing, shared, work_folder(name) / "generate.ray.log")
    else:
        work = _in_turn(missing, load) if workers < 2 else in_processes(missing, workers)
    _make_missing(jobs, missing, folder, name, work)
    _finish(jobs, folder, STUDENTS / name / "raw", {**settings, "digest": digest})
    shutil.rmtree(folder)


def plan(inputs: Sequence[Input], pairs: Pairs, teacher: str) -> list[Pair]:
    """Every pair to make, by input digest and then crop; an input's pairs depend on no other input."""
    return [
        _pair(item, pairs, teacher, k)
        for item in sorted(inputs, key=lambda item: item.digest)
        for k in range(pairs.train_crops if item.split == "train" else pairs.held_out_crops)
    ]


def in_shards(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """The pairs, `size` at a time."""
    return (pairs[at : at + size] for at in range(0, len(pairs), size))


def plan_samples(pairs: Pairs, teacher: str) -> list[Pair]:
    """The pairs that the teacher draws from nothing; for training alone, as an app sees real pictures."""
    planned = []
    for k in range(pairs.samples):
        seed = int(np.random.default_rng(int(sha256_json([pairs.seed, "sample", k]), 16)).integers(2**31))
        found = sha256_json([teacher, "sample", pairs.size, seed])
        planned.append(
            Pair(
                id=found,
                teacher=teacher,
                input="",
                crop=(0, 0, pairs.size),
                hue=0,
                seed=seed,
                split="train",
                group=found,
                finite=True,
                clipped=0.0,
            )
        )
    return planned


def _pair(item: Input, pairs: Pairs, teacher: str, k: int) -> Pair:
    """Crop `k` of an input: a random square inside it, a share of those for training changed."""
    random = np.random.default_rng(int(sha256_json([pairs.seed, item.digest, k]), 16))
    short = min(item.width, item.height)
    side = max(1, min(short, round(short * random.uniform(pairs.min_scale, 1))))
    left = int(random.integers(item.width - side, endpoint=True))
    top = int(random.integers(item.height - side, endpoint=True))
    seed = int(random.integers(2**31))
    turned = item.split == "train" and random.random() < pairs.recolour
    hue = int(random.integers(30, 330, endpoint=True)) if turned else 0
    changes, again = _changes(item, pairs, k), _again(item, pairs, k)
    known = [teacher, item.digest, [left, top, side], hue, pairs.size, seed]
    return Pair(
        id=sha256_json([*known, changes] if changes else known),
        teacher=teacher,
        input=item.digest,
        crop=(left, top, side),
        hue=hue,
        seed=seed,
        split=item.split,
        group=item.group,
        finite=True,
        clipped=0.0,
        again=again,
        **changes,
    )


def _again(item: Input, pairs: Pairs, k: int) -> int | None:
    """The seed with which the teacher is asked for crop `k` once more, if it is; a pair's id does not depend on it."""
    random = np.random.default_rng(int(sha256_json([pairs.seed, item.digest, k, "again"]), 16))
    seed = int(random.integers(2**31))
    return seed if random.random() < pairs.again else None


def _changes(item: Input, pairs: Pairs, k: int) -> dict[str, Any]:
    """Fields of crop `k`'s Pair that say what is drawn into it and how it is exposed, where either is done.

    Whether a share is 0 or not, and what it is, changes nothing about the pairs it does not take.
    """
    if item.split != "train":
        return {}
    random = np.random.default_rng(int(sha256_json([pairs.seed, item.digest, k, "changes"]), 16))
    occluded, exposed, dark = random.random(3) < (pairs.occlude, pairs.expose, 0.5)
    occluder = str(random.choice(list(KINDS)))
    stops, gamma = random.uniform(*(DARKER if dark else BRIGHTER)), random.uniform(*GAMMA)
    changes: dict[str, Any] = {"occluder": occluder} if occluded else {}
    return changes | ({"stops": round(stops, 2), "gamma": round(gamma, 2)} if exposed else {})


def _make_missing(
    jobs: Sequence[Job], missing: Sequence[Job], folder: Path, name: str, work: Generator[Job, None, None]
) -> None:
    """Let `work` make the shards that are not whole."""
    for other in folder.parent.glob("generate-*"):
        if other != folder:
            shutil.rmtree(other)
    whole = {path for job in jobs if job not in missing for path in (job.tensors, job.records, job.done)}
    for stray in folder.glob("*/*"):
        if stray not in whole:
            stray.unlink()
    if len(missing) < len(jobs):
        print(f"generate {name}: going on; {len(jobs) - len(missing)} of {len(jobs)} shards are there", file=sys.stderr)
    count = sum(len(job.pairs) for job in missing)
    with closing(work) as made, progress(f"generate {name}", count, "pairs") as advance:
        for job in made:
            advance(len(job.pairs))


def _in_turn(jobs: Sequence[Job], load: Callable[[], Teacher]) -> Generator[Job, None, None]:
    for job in jobs:
        make_shard(job, load())
        yield job


def in_processes(jobs: Sequence[Job], workers: int) -> Generator[Job, None, None]:
    """Make the shards in `workers` processes; yields each job as it is done."""
    with closing(spread_out(_work, jobs, workers, "generate.workers")) as done:
        for job, _ in done:
            yield job


def _work(job: Job) -> None:
    make_shard(job, _teacher_of_this_process(json.dumps(dict(job.teacher), sort_keys=True)))


@lru_cache(maxsize=1)
def _teacher_of_this_process(settings: str) -> Teacher:
    """A worker's teacher, loaded with its first shard, so that an error is reported like any other."""
    return load_teacher(json.loads(settings))


def _finish(jobs: Sequence[Job], folder: Path, raw: Path, teacher: dict[str, Any]) -> None:
    """Add what describes the whole, then move it to `raw` in one rename."""
    done = [read_json(job.done) for job in jobs]
    write_jsonl(folder / "raw" / "manifest.jsonl", [record["line"] for record in done])
    write_json(folder / "raw" / "teacher.json", without_places(teacher))
    seconds, count = sum(record["teacher_seconds"] for record in done), sum(len(job.pairs) for job in jobs)
    cost = {"pairs": count, "teacher_seconds": round(seconds, 2), "seconds_per_pair": round(seconds / count, 4)}
    write_json(folder.parent / "generate.cost.json", cost)
    for stray in (folder / "raw").glob(f"{TEMPORARY}*"):
        stray.unlink()
    raw.parent.mkdir(parents=True, exist_ok=True)
    if raw.exists():
        shutil.rmtree(raw)
    (folder / "raw").rename(raw)
    sync_folder(raw.parent)


if __name__ == "__main__":
    student_main("generate", generate)
