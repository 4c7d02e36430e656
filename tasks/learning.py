"""One training of a student from a block, as the stage and the comparisons of students have it done.

Everything here reads `data/students/NAME/pairs` and the block alone; which phases there are and where the results go is
up to the callers (tasks/train.py, recipes.py, architectures.py, variants.py, search_trial.py).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
from models.errors import UserError
from tasks.files import (
    read_json,
    replacing_folder,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_jsonl,
)
from tasks.params import Params
from tasks.progress import progress
from tasks.stage import STUDENTS
from tasks.starts import find_weights
from tasks.student_params import Student
from tasks.taught import batching, often, replays

if TYPE_CHECKING:
    from torch import nn

    from models.batches import Source
    from models.terms import Term
    from models.training import Line, Recipe, Training
    from models.validation import Check

# Of models/, what decides the result; as in dvc.yaml.
CODE = (
    "adversarial.py",
    "batches.py",
    "camera.py",
    "checkpoints.py",
    "compression.py",
    "consistency.py",
    "controls.py",
    "embedding.py",
    "encoders.py",
    "feature_distillation.py",
    "features.py",
    "light.py",
    "losses.py",
    "perceptual.py",
    "processes.py",
    "students.py",
    "terms.py",
    "training.py",
    "validation.py",
)
ROUNDING_CODE = ("quantise_aware.py",)  # besides, where it is asked for


def digests(files: Sequence[str]) -> dict[str, str]:
    """The sha256 of each of these files of models/."""
    return {name: sha256_file(Path(models.__path__[0]) / name) for name in files}


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


def make_terms(block: Student, student: "nn.Module") -> "list[Term]":
    """What the block says a student is taught by."""
    import torch

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
        example = torch.rand(2, 3, settings.crop, settings.crop, generator=torch.Generator().manual_seed(0))
        terms.append(FeatureDistillation(links, teacher, student, example))
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
    share: float = 1.0,
) -> "tuple[nn.Module, list[Line]]":
    """Run the training loop with a progress bar; returns the averaged student and its curve.

    `terms` are those of the block unless told otherwise. `watch` is called after each step, when its checkpoint is
    kept; what it raises ends the training. `share` is how much of the training pairs it sees, the first ones.
    """
    from models.batches import Batches, Graded, open_pairs
    from models.controls import Controlled
    from models.training import begin
    from models.validation import on_pairs

    training = begin(student, recipe, make_terms(block, student) if terms is None else terms)
    folder = STUDENTS / name / "pairs"
    graded = Graded if isinstance(student, Controlled) else Batches
    seen = [array[: round(share * len(array))] for array in open_pairs(folder, "train")]
    evened = often(folder, block)
    batches = graded(*seen, **batching(block), often=None if evened is None else evened[: len(seen[0])])
    older = replays(block)
    check = on_pairs(open_pairs(folder, "val"), open_pairs(older, "val") if older else None)
    return run_through("train", training, batches, check, recipe, checkpoint, watch), training.curve


def run_through(
    what: str,
    training: "Training",
    batches: "Source",
    check: "Check",
    recipe: "Recipe",
    checkpoint: Path,
    watch: "Callable[[Training, Line], None] | None" = None,
) -> "nn.Module":
    """Bring a training that was just begun to its end, from its checkpoint if there is one, with a bar named `what`.

    Returns the averaged network, on the CPU.
    """
    import torch
    from accelerate import Accelerator

    from models.training import resume, run

    if resume(training, checkpoint):
        print(f"{what}: going on from step {training.step}")
    with progress(what, (recipe.steps - training.step) * batches.batch_size, "samples") as advance:

        def show(training: "Training", line: "Line") -> None:
            advance(batches.batch_size, f"loss {line['loss']:.4f}")
            if watch:
                watch(training, line)

        average = run(training, batches, check, recipe, Accelerator(mixed_precision=recipe.precision), checkpoint, show)
    # Back from where it was trained: what comes after reads pictures on the CPU.
    found: nn.Module = average.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return found


def going_on(curve: "list[Line]", more: "list[Line]") -> "list[Line]":
    """A curve with that of the training after it, whose steps are counted on."""
    if not curve:  # a helper process keeps none
        return more
    return curve + [line | {"step": curve[-1]["step"] + line["step"]} for line in more]


def publish(
    folder: Path,
    student: "nn.Module",
    record: dict[str, Any],
    curve: "list[Line]",
    errors: dict[str, Any] | None = None,
    tokenizer: bytes = b"",
) -> None:
    """Write the student folder, whole or not at all; `errors` are those of tasks/pair_errors.py."""
    from safetensors.torch import save

    weights = save({name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()})
    with replacing_folder(folder) as new:
        write_bytes(new / "weights.safetensors", weights)
        write_json(new / "student.json", {**record, "weights_sha256": sha256_bytes(weights)})
        write_jsonl(new / "curve.jsonl", curve)
        if errors:
            write_json(new / "errors.json", errors)
        if tokenizer:
            write_bytes(new / "tokenizer.json", tokenizer)
