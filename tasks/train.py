"""Stage train: a student learns to imitate its teacher on the curated pairs.

Reads data/students/NAME/pairs and the start weights in `init` (tasks/starts.py); writes data/students/NAME/student
(weights.safetensors, student.json, curve.jsonl). Where the block's `compress` says so, the trained student is then cut
(models/compression.py) and trained again; where `quantise_aware` does, it is trained on with int8's rounding in it
(models/quantise_aware.py). The curve goes on. Where `train.replay` names older pairs, a share of every batch is theirs,
and what is forgotten of them is measured (tasks/taught.py). Resume checkpoints lie under data/.work/NAME, named by a
digest of everything that decides the result, so a checkpoint is never taken for another run's.

    python -m tasks.train --student oil
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
from models.errors import UserError
from tasks.files import (
    read_json,
    replacing_folder,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_jsonl,
)
from tasks.helpers import beside
from tasks.params import Params, Student
from tasks.progress import progress
from tasks.stage import STUDENTS, student_main, work_folder
from tasks.starts import find_weights
from tasks.taught import batching, check_pairs, forgetting, left_of_replay, replays

if TYPE_CHECKING:
    from torch import nn

    from models.terms import Term
    from models.training import Line, Recipe, Training

# As in dvc.yaml.
CODE = (
    "adversarial.py",
    "batches.py",
    "camera.py",
    "checkpoints.py",
    "compression.py",
    "consistency.py",
    "controls.py",
    "encoders.py",
    "feature_distillation.py",
    "light.py",
    "losses.py",
    "perceptual.py",
    "processes.py",
    "students.py",
    "terms.py",
    "training.py",
)
ROUNDING_CODE = ("quantise_aware.py",)  # besides, where it is asked for
SEEN = 32  # whole pictures, on which a student that learns to be rounded has its ranges and statistics measured


def train(params: Params, name: str, block: Student) -> None:
    """Train one student from its pairs, going on from a checkpoint of the same work if there is one."""
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
    publish(STUDENTS / name / "student", taught.student, record, curve)


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


def digests(files: Sequence[str]) -> dict[str, str]:
    """The sha256 of each of these files of models/."""
    return {name: sha256_file(Path(models.__path__[0]) / name) for name in files}


def going_on(curve: "list[Line]", more: "list[Line]") -> "list[Line]":
    """A curve with that of the training after it, whose steps are counted on."""
    if not curve:  # a helper process keeps none
        return more
    return curve + [line | {"step": curve[-1]["step"] + line["step"]} for line in more]


def start_record(folder: Path, block: Student) -> str:
    """The sha256 of the weights a student starts from, or "scratch"; they are here and checked against their record."""
    record = read_json(folder / "student.json")
    if record.get("scratch"):
        return "scratch"
    if block.compress.cuts and (record.get("ranks") or record.get("compress", {}).get("prune")):
        raise UserError(
            f"init: {folder} is compressed already, and compress would cut it again; set compress.prune to 0 and "
            "compress.low_rank to 1 to train it as it is, or start from a whole student"
        )
    if (record["architecture"], record.get("control", "none")) != (block.architecture.model_dump(), block.control.by):
        raise UserError(
            f"init: {folder} has another architecture or control than this student; use models/start/scratch or match "
            "it"
        )
    find_weights(folder, record["weights_sha256"])
    return str(record["weights_sha256"])


def own_checkpoint(folder: Path, phase: str, work: Mapping[str, Any]) -> Path:
    """Where this very work keeps the state of a phase; what other work left behind is removed."""
    mine = folder / f"{phase}-{sha256_json(work)[:16]}.safetensors"
    for stale in folder.glob(f"{phase}-*.safetensors"):
        if stale != mine:
            stale.unlink(missing_ok=True)  # a helper process does the same
    return mine


def first(block: Student) -> tuple["nn.Module", dict[str, int]]:
    """The student as training begins, with the ranks of those convolutions that its start weights have as two."""
    from accelerate.utils import set_seed

    from models.students import build_student, load_student

    set_seed(block.train.seed)
    folder = Path(block.init)
    record = read_json(folder / "student.json")
    if record.get("scratch"):
        return build_student(block.architecture.model_dump(), block.pairs.size, block.control.by), {}
    return load_student(folder, find_weights(folder, record["weights_sha256"])), record.get("ranks", {})


def make_terms(block: Student, student: "nn.Module") -> "list[Term]":
    """What the block says a student is taught by."""
    from models.adversarial import Adversarial
    from models.consistency import Consistency
    from models.feature_distillation import FeatureDistillation, Link
    from models.teachers.inner import inner_features
    from models.terms import Pictures

    settings = block.train
    terms: list[Term] = [Pictures(settings.losses)]
    if settings.features:
        links = [Link(**link.model_dump()) for link in settings.features]
        teacher = inner_features(block.teacher.model_dump(), [link.teacher for link in links])
        terms.append(FeatureDistillation(links, teacher, student, settings.crop))
    if settings.consistency.weight:
        terms.append(Consistency(**settings.consistency.model_dump(), seed=settings.seed))
    if settings.adversarial.weight:  # the last, as it is weighed against all others
        rate = settings.adversarial.rate * settings.learning_rate
        terms.append(Adversarial(**settings.adversarial.model_dump(exclude={"rate"}), learning_rate=rate))
    return terms


def learn(
    name: str,
    block: Student,
    student: "nn.Module",
    recipe: "Recipe",
    checkpoint: Path,
    terms: "list[Term] | None" = None,
    watch: "Callable[[Training, Line], None] | None" = None,
) -> "tuple[nn.Module, list[Line]]":
    """Run the training loop with a progress bar; returns the averaged student and its curve.

    `terms` are those of the block unless told otherwise. `watch` is called after each step, when its checkpoint is
    kept; what it raises ends the training.
    """
    import torch
    from accelerate import Accelerator

    from models.batches import Batches, Graded, open_pairs
    from models.controls import Controlled
    from models.training import begin, resume, run

    training = begin(student, recipe, make_terms(block, student) if terms is None else terms)
    if resume(training, checkpoint):
        print(f"train: going on from step {training.step}")
    folder = STUDENTS / name / "pairs"
    graded = Graded if isinstance(student, Controlled) else Batches
    batches = graded(*open_pairs(folder, "train"), **batching(block))
    older = replays(block)
    replayed = open_pairs(older, "val") if older else None
    with progress("train", (recipe.steps - training.step) * batches.batch_size, "samples") as advance:

        def show(training: "Training", line: "Line") -> None:
            advance(batches.batch_size, f"loss {line['loss']:.4f}")
            if watch:
                watch(training, line)

        accelerator = Accelerator(mixed_precision=recipe.precision)
        validation = open_pairs(folder, "val")
        average = run(training, batches, validation, recipe, accelerator, checkpoint, show, replayed)
    # Back from where it was trained: what comes after reads pictures on the CPU.
    return average.to("cpu", memory_format=torch.contiguous_format), training.curve  # type: ignore[call-overload]


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


def make_recipe(params: Params, block: Student) -> "Recipe":
    """The student's and the shared settings as the training loop takes them."""
    from models.training import Recipe

    return Recipe(
        **block.train.model_dump(include={"steps", "learning_rate", "weight_decay", "warmup_steps", "ema_decay"}),
        checkpoint_every=params.train.checkpoint_every,
        validate_every=params.train.validate_every,
        precision=params.train.precision,
        compile=params.train.compile,
    )


def publish(folder: Path, student: "nn.Module", record: dict[str, Any], curve: "list[Line]") -> None:
    """Write the student folder, whole or not at all."""
    from safetensors.torch import save

    weights = save({name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()})
    with replacing_folder(folder) as new:
        write_bytes(new / "weights.safetensors", weights)
        write_json(new / "student.json", {**record, "weights_sha256": sha256_bytes(weights)})
        write_jsonl(new / "curve.jsonl", curve)


if __name__ == "__main__":
    student_main("train", train)
