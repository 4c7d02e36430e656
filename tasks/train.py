"""Stage train: a student learns to imitate its teacher on the curated pairs.

Reads data/students/NAME/pairs and the start weights in `init` (tasks/starts.py); writes data/students/NAME/student:
weights.safetensors, student.json, curve.jsonl, and errors.json (tasks/pair_errors.py). Where the block's `compress`
says so, the trained student is then cut (models/compression.py) and trained again; where `quantise_aware` does, it is
trained on with int8's rounding in it (models/quantise_aware.py). The curve goes on. Where `train.replay` names older
pairs, a share of every batch is theirs, and what is forgotten of them is measured (tasks/taught.py). Resume checkpoints
lie under data/.work/NAME, named by a digest of everything that decides the result, so none is taken for another run's.

    python -m tasks.train --student oil
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.files import sha256_json
from tasks.helpers import beside
from tasks.learning import CODE, ROUNDING_CODE, digests, first, going_on, learn, make_recipe, publish, start_record
from tasks.pair_errors import training_errors
from tasks.params import Params
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.student_params import Student
from tasks.taught import batching, check_pairs, check_replay, forgetting, left_of_replay, replays, slice_labels

if TYPE_CHECKING:
    from torch import nn

    from models.training import Line, Recipe

SEEN = 32  # whole pictures, on which a student that learns to be rounded has its ranges and statistics measured


def train(params: Params, name: str, block: Student) -> None:
    """Train one student from its pairs, going on from a checkpoint of the same work if there is one."""
    from models.batches import open_pairs

    log = work_folder(name) / "train.helpers.log"
    threads = max(1, params.train.threads // params.train.processes)
    start_record(Path(block.init), block)  # weights that have to be fetched are there before the helpers ask
    with beside(params.train.processes, "tasks.train_helper", ["--student", name], log, threads=threads):
        taught = teach(params, name, block, threads)
    curve = [{"step": 0, **taught.before}, *taught.curve] if taught.before else taught.curve
    record = {
        "architecture": block.architecture.model_dump(),
        "size": block.pairs.size,
        **controlled(block),
        "parameters": sum(parameter.numel() for parameter in taught.student.parameters()),
        "pairs": taught.pairs["digest"],
        "teacher": taught.pairs["teacher"],
        "init": taught.start,
        "train": block.train.model_dump(exclude={"replay"}),  # which pairs these are is told by their digest
        "compress": block.compress.model_dump(),
        "quantise_aware": block.quantise_aware.model_dump(),
        "ranks": taught.ranks,
        "replay": forgetting(curve, taught.replay, block) if taught.replay else {},
        "final": curve[-2]["losses"],
        "val": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    errors = training_errors(taught.student, *open_pairs(STUDENTS / name / "pairs", "train"))
    publish(STUDENTS / name / "student", taught.student, record, curve, errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A student that has been through all phases of its training, and what it came from."""

    student: "nn.Module"
    curve: "list[Line]"  # empty in a helper process
    ranks: dict[str, int]
    pairs: dict[str, Any]  # pairs.json
    start: str
    replay: dict[str, Any] | None  # pairs.json of those that are replayed
    before: dict[str, float]  # what it explained of them before; nothing where there are none


def teach(params: Params, name: str, block: Student, threads: int) -> Taught:
    """All phases: training, the recovery after a cut, and training to be rounded; the same in each process."""
    from models.losses import check_losses
    from models.torch_setup import prepare_torch

    check_losses(block.train.losses)
    prepare_torch(threads)
    pairs = check_pairs(STUDENTS / name / "pairs", block)
    older = replays(block)
    replay = check_pairs(older, block) if older else None
    if older and block.train.replay.share:
        check_replay(older, STUDENTS / name / "pairs")
    start = start_record(Path(block.init), block)
    settings = block.train.model_dump(exclude={"replay"})  # which pairs these are is told by their digest
    work = {
        "pairs": pairs["digest"],
        "replay": [replay["digest"], block.train.replay.share] if replay else [],
        "architecture": block.architecture.model_dump(),
        "init": start,
        "train": settings,
        # Of any number of processes and threads: each goes on from what another has begun.
        "shared": params.train.model_dump(exclude={"processes", "threads"}),
        **controlled(block),
        **balanced(STUDENTS / name / "pairs", pairs["digest"], block),
        # Without the code, a changed loss would be handed the old one's finished checkpoint.
        "code": digests(CODE),
    }
    recipe = make_recipe(params, block)
    begun, ranks = first(block)
    before = left_of_replay(begun, older) if older else {}
    student, curve = learn(name, block, begun, recipe, own_checkpoint(work_folder(name), "train", work))
    if block.compress.cuts:
        cut = work | {"compress": block.compress.model_dump()}
        ranks = compress(student, block)
        checkpoint = own_checkpoint(work_folder(name), "recover", cut)
        student, recovery = learn(name, block, student, recovery_recipe(recipe, block), checkpoint)
        curve = going_on(curve, recovery)
    if block.quantise_aware.steps:
        more = {"compress": block.compress.model_dump(), "quantise_aware": block.quantise_aware.model_dump()}
        checkpoint = own_checkpoint(work_folder(name), "round", work | more | {"rounding": digests(ROUNDING_CODE)})
        curve = going_on(curve, learn_rounded(name, block, student, recipe, checkpoint))
    return Taught(student=student, curve=curve, ranks=ranks, pairs=pairs, start=start, replay=replay, before=before)


def controlled(block: Student) -> dict[str, str]:
    """The student's control, if it has one."""
    return {} if block.control.by == "none" else {"control": block.control.by}


def balanced(folder: Path, digest: str, block: Student) -> dict[str, str]:
    """Which slices the batches are balanced by, if they are: what finds them is no part of models/."""
    by = block.train.balance.by
    return {} if by == "none" else {"slices": sha256_json(slice_labels(folder, digest, by).tolist())}


def own_checkpoint(folder: Path, phase: str, work: Mapping[str, Any]) -> Path:
    """Where this very work keeps the state of a phase; what other work left behind is removed."""
    mine = folder / f"{phase}-{sha256_json(work)[:16]}.safetensors"
    for stale in folder.glob(f"{phase}-*.safetensors"):
        if stale != mine:
            stale.unlink(missing_ok=True)  # a helper process does the same
    return mine


def compress(student: "nn.Module", block: Student) -> dict[str, int]:
    """Cut from a trained student in place what its block says; returns the ranks of the factors."""
    from models.compression import factorise, prune

    before = sum(parameter.numel() for parameter in student.parameters())
    if block.compress.prune:
        prune(student, block.pairs.size, block.compress.prune)
    ranks = factorise(student, block.compress.low_rank) if block.compress.low_rank < 1 else {}
    after = sum(parameter.numel() for parameter in student.parameters())
    print(f"train: cut from {before:,} to {after:,} parameters, {len(ranks)} convolutions in two; training goes on")
    return ranks


def recovery_recipe(recipe: "Recipe", block: Student) -> "Recipe":
    """The training's recipe for the steps after the cut."""
    rate = recipe.learning_rate * block.compress.recovery_rate
    return replace(recipe, steps=block.compress.recovery_steps, learning_rate=rate)


def learn_rounded(name: str, block: Student, student: "nn.Module", recipe: "Recipe", checkpoint: Path) -> "list[Line]":
    """Train a student on in place, rounded as in int8; returns the curve."""
    from models.batches import Batches, open_pairs
    from models.quantise_aware import Rounding, rounded, settle
    from models.terms import Pictures

    whole = batching(block) | {"batch_size": SEEN, "crop": block.pairs.size, "camera": None}
    seen, _ = Batches(*open_pairs(STUDENTS / name / "pairs", "train"), **whole).batch(0)
    settings = block.quantise_aware
    tuned = replace(recipe, steps=settings.steps, learning_rate=recipe.learning_rate * settings.rate)
    # Its traced copy has no modules by the student's names, and an adversary would begin anew.
    terms = [Pictures(block.train.losses), Rounding(settings.weight)]
    trained, curve = learn(name, block, rounded(student, seen), tuned, checkpoint, terms)
    settle(student, trained, (seen[start : start + 8] for start in range(0, SEEN, 8)))
    return curve


if __name__ == "__main__":
    student_main("train", train)
