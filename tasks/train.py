"""Stage train: a student learns to imitate its teacher on the curated pairs.

Reads data/students/NAME/pairs and the start weights in `init`; writes data/students/NAME/student
(weights.safetensors, student.json, curve.jsonl). Resume checkpoints lie under data/.work/NAME, named by a
digest of everything that decides the result, so a checkpoint is never taken for another run's.

    python -m tasks.train --student oil
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
from models.errors import UserError
from tasks.files import (
    check_sha256,
    read_json,
    replacing_folder,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_jsonl,
)
from tasks.params import Params, Student
from tasks.progress import progress
from tasks.stage import STUDENTS, student_main, work_folder

if TYPE_CHECKING:
    from torch import nn

    from models.training import Line, Recipe, Training

CODE = ("batches.py", "losses.py", "students.py", "training.py")  # of models/, as in dvc.yaml


def train(params: Params, name: str, block: Student) -> None:
    """Train one student from its pairs, going on from a checkpoint of the same work if there is one."""
    from models.losses import check_losses
    from models.torch_setup import prepare_torch

    check_losses(block.train.losses)
    prepare_torch(params.train.threads)
    pairs = check_pairs(STUDENTS / name / "pairs", block)
    start = start_record(Path(block.init), block)
    key = sha256_json(
        {
            "pairs": pairs["digest"],
            "architecture": block.architecture.model_dump(),
            "init": start,
            "train": block.train.model_dump(),
            "shared": params.train.model_dump(),
            # Without the code, a changed loss would be handed the old one's finished checkpoint.
            "code": {name: sha256_file(Path(models.__path__[0]) / name) for name in CODE},
        }
    )
    checkpoint = own_checkpoint(work_folder(name), key)
    student, curve = learn(params, name, block, checkpoint)
    record = {
        "architecture": block.architecture.model_dump(),
        "size": block.pairs.size,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "pairs": pairs["digest"],
        "teacher": pairs["teacher"],
        "init": start,
        "train": block.train.model_dump(),
        "final": curve[-2]["losses"],
        "val": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    publish(STUDENTS / name / "student", student, record, curve)


def check_pairs(folder: Path, block: Student) -> dict[str, Any]:
    """pairs.json, after every array it lists was found to have the sha256 it says."""
    pairs: dict[str, Any] = read_json(folder / "pairs.json")
    for file, digest in pairs["files"].items():
        check_sha256(folder / file, digest, "pairs (run dvc repro curate)")
    if pairs["size"] != block.pairs.size:
        raise UserError(f"the pairs are {pairs['size']} pixels wide, pairs.size says {block.pairs.size}: run dvc repro")
    return pairs


def start_record(folder: Path, block: Student) -> str:
    """The sha256 of the weights a student starts from, or "scratch"; checked against the folder's record."""
    record = read_json(folder / "student.json")
    if record.get("scratch"):
        return "scratch"
    if record["architecture"] != block.architecture.model_dump():
        raise UserError(
            f"init: {folder} has another architecture than this student; use models/start/scratch or match it"
        )
    check_sha256(folder / "weights.safetensors", record["weights_sha256"], "init")
    return str(record["weights_sha256"])


def own_checkpoint(folder: Path, key: str) -> Path:
    """Where this very work keeps its state; what other work left behind is removed."""
    mine = folder / f"train-{key[:16]}.safetensors"
    for stale in folder.glob("train-*.safetensors"):
        if stale != mine:
            stale.unlink()
    return mine


def learn(params: Params, name: str, block: Student, checkpoint: Path) -> "tuple[nn.Module, list[Line]]":
    """Run the training loop with a progress bar; returns the averaged student and its curve."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from models.batches import Batches, open_pairs
    from models.students import build_student, load_student
    from models.training import begin, resume, run

    accelerator = Accelerator()
    set_seed(block.train.seed)
    if read_json(Path(block.init) / "student.json").get("scratch"):
        student = build_student(block.architecture.model_dump(), block.pairs.size)
    else:
        student = load_student(Path(block.init))
    recipe = make_recipe(params, block)
    training = begin(student, recipe)
    if resume(training, checkpoint):
        print(f"train: going on from step {training.step}")
    folder = STUDENTS / name / "pairs"
    batches = Batches(
        *open_pairs(folder, "train"), batch_size=block.train.batch_size, crop=block.train.crop, seed=block.train.seed
    )
    with progress("train", (recipe.steps - training.step) * batches.batch_size, "samples") as advance:

        def show(training: "Training", line: "Line") -> None:
            advance(batches.batch_size, f"loss {line['loss']:.4f}")

        average = run(training, batches, open_pairs(folder, "val"), recipe, accelerator, checkpoint, show)
    return average.to(memory_format=torch.contiguous_format), training.curve  # type: ignore[call-overload]


def make_recipe(params: Params, block: Student) -> "Recipe":
    """The student's and the shared settings as the training loop takes them."""
    from models.training import Recipe

    return Recipe(
        **block.train.model_dump(
            include={"steps", "learning_rate", "weight_decay", "warmup_steps", "ema_decay", "losses"}
        ),
        checkpoint_every=params.train.checkpoint_every,
        validate_every=params.train.validate_every,
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
