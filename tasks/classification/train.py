"""train, of classifiers: a student learns from labels and from the teacher's answers, which were asked for once.

Reads data/datasets/NAME and pairs/ of one student; writes data/students/NAME/student: weights.safetensors,
student.json, curve.jsonl and, of texts, tokenizer.json. Where a loss wants what the teacher holds inside, the teacher
runs in every step. Before the first step every part of the loss is tried: one that teaches nothing is refused
(models/term_check.py). Resume checkpoints lie under data/.work/NAME, named by a digest of everything that decides the
result.

The command is that of tasks/train.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import UserError
from tasks.classification.params import TEACHER, Classifier
from tasks.classification.taken import Taken, Texts
from tasks.classification.taught import LabelPairs, build, find_taken, first, make_batches, open_pairs
from tasks.files import read_json, sha256_bytes
from tasks.label_losses_params import peers
from tasks.label_terms import make_label_terms
from tasks.learning import digests, publish, run_through
from tasks.params import Params
from tasks.records import SplitName
from tasks.stage import STUDENTS, work_folder
from tasks.train import own_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from models.classification.batches import LabelBatches
    from models.classification.teachers import LabelTeacher
    from models.classification.validation import Given
    from models.terms import Term
    from models.training import Line, Recipe
    from models.validation import Check

# Of models/, what decides the result; as in dvc.yaml.
CODE = (
    "batches.py",
    "checkpoints.py",
    "classification/batches.py",
    "classification/classifier.py",
    "classification/convolutional.py",
    "classification/networks.py",
    "classification/residual.py",
    "classification/timm_network.py",
    "classification/tokens.py",
    "classification/transformer.py",
    "classification/views.py",
    "compression.py",
    "contrastive.py",
    "feature_distillation.py",
    "features.py",
    "label_losses.py",
    "mutual.py",
    "processes.py",
    "terms.py",
    "training.py",
)


def train(params: Params, name: str, block: Classifier) -> None:
    """Train one classifier, going on from a checkpoint of the same work if there is one."""
    from models.classification.teachers import load_teacher

    pairs = open_pairs(STUDENTS / name, block.dataset)
    teacher = cache(lambda: load_teacher(block.teacher.model_dump()))  # for its tokeniser, or what it holds inside
    taken = find_taken(block, pairs, teacher)
    checkpoint = own_checkpoint(work_folder(name), "train", work_of(params, block, pairs, taken))
    taught = teach(params, block, pairs, taken, teacher, checkpoint, check_on(pairs, "val", taken))
    publish_classifier(STUDENTS / name / "student", taught, block, pairs, taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A classifier that has been trained."""

    student: "nn.Module"
    curve: "list[Line]"
    ranks: dict[str, int]  # of those layers that are two


def publish_classifier(folder: Path, taught: Taught, block: Classifier, pairs: LabelPairs, taken: Taken) -> None:
    """Write the student folder, whole or not at all."""
    from models.classification.networks import described

    record = {
        "architecture": described(taught.student, block.architecture.model_dump()),
        "classes": pairs.examples.classes,
        "size": pairs.examples.size,
        "parameters": sum(parameter.numel() for parameter in taught.student.parameters()),
        "pairs": pairs.record["digest"],
        "teacher": pairs.record["teacher"],
        "init": start_digest(block),
        "cut": block.cut.model_dump(),
        "ranks": taught.ranks,
        "train": block.train.model_dump(),
        "final": taught.curve[-2]["losses"],
        "val": {key: value for key, value in taught.curve[-1].items() if key != "step"},
    }
    tokenizer = b""
    if isinstance(taken, Texts):
        tokenizer = taken.tokens.data
        record["tokens"] = taken.record() | {"sha256": sha256_bytes(tokenizer)}
    publish(folder, taught.student, record, taught.curve, tokenizer=tokenizer)


def start_digest(block: Classifier) -> str:
    """The sha256 of the weights a student starts from, or "scratch" or "teacher"."""
    if not block.init:
        return "scratch"
    if block.init == TEACHER:
        return TEACHER
    return str(read_json(Path(block.init) / "student.json")["weights_sha256"])


def teach(
    params: Params,
    block: Classifier,
    pairs: LabelPairs,
    taken: Taken,
    teacher: "Callable[[], LabelTeacher]",
    checkpoint: Path,
    check: "Check",
    examples: int | None = None,
) -> Taught:
    """Run the training loop, on at most so many of the training examples."""
    from accelerate.utils import set_seed

    from models.term_check import check_terms
    from models.torch_setup import prepare_torch
    from models.training import begin

    prepare_torch(params.train.threads)
    set_seed(block.train.seed)
    student, ranks = first(block, pairs, taken, teacher)
    batches = make_batches(pairs, block, taken, examples)
    recipe = make_recipe(params, block)
    terms = make_terms(block, pairs, student, taken, batches, recipe, teacher)
    if not checkpoint.exists():
        check_terms(student, terms, batches.parts(batches.batch(0)))
    training = begin(student, recipe, terms)
    average = run_through("train", training, batches, check, recipe, checkpoint)
    return Taught(student=average, curve=training.curve, ranks=ranks)


def check_on(pairs: LabelPairs, split: SplitName, taken: Taken) -> "Check":
    """How a student in training does on the kept examples of a held-out split, as lines of the curve."""
    from models.classification.validation import on_labels

    rows = pairs.rows(split)
    answers = np.asarray(pairs.logits(split)[rows, 0], np.float32)
    return on_labels(given_of(pairs, split, taken), pairs.split(split).labels[rows], answers)


def work_of(params: Params, block: Classifier, pairs: LabelPairs, taken: Taken) -> dict[str, Any]:
    """Everything that decides the result."""
    return {
        "pairs": pairs.record["digest"],
        "architecture": block.architecture.model_dump(),
        "teacher": pairs.record["teacher"],
        "tokens": taken.record() if isinstance(taken, Texts) else None,
        "init": start_digest(block),
        "cut": block.cut.model_dump(),
        "train": block.train.model_dump(),
        "shared": params.train.model_dump(exclude={"processes", "threads"}),
        "code": digests(CODE),
    }


def make_recipe(params: Params, block: Classifier) -> "Recipe":
    """The student's and the shared settings as the training loop takes them."""
    from models.training import Recipe

    settings = block.train.model_dump(exclude={"batch_size", "losses", "seed", "milestones"})
    shared = params.train.model_dump(include={"checkpoint_every", "validate_every", "precision", "compile"})
    return Recipe(**settings, **shared, milestones=tuple(block.train.milestones))


def make_terms(
    block: Classifier,
    pairs: LabelPairs,
    student: "nn.Module",
    taken: Taken,
    batches: "LabelBatches",
    recipe: "Recipe",
    teacher: "Callable[[], LabelTeacher]",
) -> "list[Term]":
    """What the block says a student is taught by; the teacher is loaded only where it is seen in every step."""
    import torch

    from models.features import module_features
    from models.training import make_optimizer

    def inside(paths: Any) -> Any:
        network = teacher().network
        if network is None:
            raise UserError(f"train.losses: {paths[0]!r} is wanted of the teacher, which shows none of its inside")
        return module_features(network, paths)

    return make_label_terms(
        block.train.losses,
        student,
        example=batches.parts(batches.batch(0)),
        labels=torch.from_numpy(pairs.split("train").labels),
        taught=torch.from_numpy(batches.taught),
        seed=block.train.seed,
        teacher=inside if block.asks_teacher else None,
        peer=build(block, pairs, taken) if peers(list(block.train.losses)) else None,
        optimizer=lambda weights: make_optimizer(weights, recipe),
    )


def given_of(pairs: LabelPairs, split: SplitName, taken: Taken) -> "Given":
    """What a model is given of the kept rows of a held-out split."""
    rows, inputs = pairs.rows(split), pairs.split(split).inputs
    return lambda some: taken.batch([inputs[row] for row in rows[some]])
