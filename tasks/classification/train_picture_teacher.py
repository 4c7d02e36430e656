"""Train a picture classifier on the labels of a dataset, to have a teacher where there is no better one.

From nothing, or from weights that lie here (--weights, such as timm's own), whose last layer is left out where its
classes are others. Reads data/datasets/NAME; writes FOLDER: weights.safetensors, teacher.json (what it is, how often it
is right), curve.jsonl; and tells what to write under `teacher:` in params.yaml. Pictures are moved and mirrored as
`pairs` of a student does it. No stage; it may be killed and run again, and goes on from its checkpoint.

    python -m tasks.classification.train_picture_teacher --dataset pets --out teachers/pets
        --architecture '{kind: timm, name: resnet50, size: 64}' [--weights resnet50.safetensors] [--epochs 30]
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from models.errors import UserError
from tasks.classification.examples import ExampleSet
from tasks.classification.first_teacher import accuracies, open_labelled
from tasks.classification.network_params import ImageArchitecture
from tasks.classification.taken import Pictures
from tasks.classification.train import CODE
from tasks.files import replacing_folder, sha256_file, sha256_json, write_bytes, write_json, write_jsonl
from tasks.learning import digests, run_through
from tasks.params import load_params, parse_yaml
from tasks.schema import Count, Fraction, Positive, PositiveFloat, Section, Weight
from tasks.stage import WORK, guarded

if TYPE_CHECKING:
    from torch import nn

    from models.training import Line

VIEWS = 64  # of each picture: as good as a new one in every epoch
WARM = 0.02  # share of the steps over which the rate rises
OF_A_TEACHER = ("val_agreement", "val_divergence")  # figures of the curve that there are none of yet


class Recipe(Section):
    """What the teacher is, and how it is trained."""

    architecture: ImageArchitecture
    weights: str = ""  # a safetensors file to begin with
    epochs: PositiveFloat = 30.0
    batch_size: Positive = 64
    learning_rate: PositiveFloat = 0.05
    momentum: Fraction = 0.9
    weight_decay: Weight = 5e-4
    milestones: list[float] = Field(default_factory=list)  # shares of the steps; none: a cosine
    pad: Count = 4
    flip: bool = True
    seed: Count = 0


def make_teacher(dataset: str, folder: Path, recipe: Recipe) -> dict[str, float]:
    """Write the folder, whole or not at all; returns the accuracy on each split."""
    from safetensors.torch import save

    examples = open_labelled(dataset, "images")
    network, curve = train(examples, recipe)
    figures = accuracies(network, Pictures(), examples)
    values = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replacing_folder(folder) as made:
        write_bytes(made / "weights.safetensors", save(values))
        write_jsonl(made / "curve.jsonl", curve)
        record = recipe.model_dump() | {"classes": examples.classes, "size": examples.size, "dataset": examples.digest}
        record |= {"accuracy": figures, "sha256": sha256_file(made / "weights.safetensors")}
        write_json(made / "teacher.json", record)
    return figures


def train(examples: ExampleSet, recipe: Recipe) -> "tuple[nn.Module, list[Line]]":
    """A trained network in eval mode, and its curve; unlabelled pictures are left out."""
    import torch

    from models.classification.batches import PictureBatches
    from models.classification.validation import on_labels
    from models.classification.views import Viewer, Views
    from models.label_losses import Labels
    from models.torch_setup import prepare_torch
    from models.training import Recipe as Loop
    from models.training import begin

    shared = load_params().train
    prepare_torch(shared.threads)
    torch.manual_seed(recipe.seed)
    network = started(examples, recipe)
    taught, classes = examples.splits["train"], len(examples.classes)
    rows = np.flatnonzero(taught.labels >= 0)
    views = Views(count=len(taught), views=VIEWS, pad=recipe.pad, flip=recipe.flip, seed=recipe.seed)
    batches = PictureBatches(
        Viewer(taught.inputs, views),
        rows=rows,
        labels=taught.labels,
        logits=np.broadcast_to(np.zeros(classes, np.float32), (len(taught), VIEWS, classes)),  # nobody is asked
        pooled=None,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
    )
    steps = max(1, round(recipe.epochs * len(rows) / recipe.batch_size))
    loop = Loop(
        steps=steps,
        optimizer="sgd",
        **recipe.model_dump(include={"learning_rate", "momentum", "weight_decay"}),
        milestones=tuple(recipe.milestones),
        warmup_steps=round(WARM * steps),
        ema_decay=0.0,
        **shared.model_dump(include={"checkpoint_every", "validate_every", "precision", "compile"}),
    )
    held, takes = examples.splits["val"], Pictures()
    known = np.flatnonzero(held.labels >= 0)
    check = on_labels(
        lambda some: takes.batch([held.inputs[row] for row in known[some]]),
        held.labels[known],
        np.zeros((len(known), classes), np.float32),
    )
    training = begin(network, loop, [Labels(1.0)])
    work = recipe.model_dump() | {"dataset": examples.digest, "code": digests(CODE)}
    checkpoint = WORK / f"picture-teacher-{sha256_json(work)[:16]}.safetensors"
    trained = run_through("teacher", training, batches, check, loop, checkpoint)
    checkpoint.unlink()
    kept = [{key: value for key, value in line.items() if key not in OF_A_TEACHER} for line in training.curve]
    return trained, kept


def started(examples: ExampleSet, recipe: Recipe) -> "nn.Module":
    """The network as training begins: untrained, or with given weights but for a last layer of other classes."""
    from models.classification.networks import build, load_weights, read_weights

    network = build(recipe.architecture.model_dump(), len(examples.classes))
    if recipe.weights:
        values = read_weights(Path(recipe.weights), "--weights")
        load_weights(network, values | new_heads(network, len(examples.classes), values), f"--weights {recipe.weights}")
    return network


def new_heads(network: "nn.Module", classes: int, values: dict[str, Any]) -> dict[str, Any]:
    """The network's own, untrained, of those weights that are one a class and of other classes in `values`."""
    own = network.state_dict()
    prefix = "" if any(name.startswith("network.") for name in values) else "network."  # of timm's own files
    found = {name: own.get(name, own.get(prefix + name)) for name in values}
    return {
        name: ours
        for name, ours in found.items()
        if ours is not None and ours.shape[:1] == (classes,) != values[name].shape[:1]
    }


def read_recipe(asked: dict[str, Any]) -> Recipe:
    """The recipe of the command line's values; UserError in one line where it does not fit."""
    try:
        architecture = TypeAdapter(ImageArchitecture).validate_python(
            parse_yaml(asked.pop("architecture"), "--architecture")
        )
        return Recipe(architecture=architecture, **{key: value for key, value in asked.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where or '--architecture'}: {first['msg']} (docs/classifier-networks.md)") from None


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.classification.train_picture_teacher")
    parser.add_argument("--dataset", required=True, help="a name under `datasets:` in params.yaml, of pictures")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--architecture", required=True, help="as of a student in params.yaml: '{kind: ...}'")
    parser.add_argument("--weights", default="", help="a safetensors file to begin with; default: from nothing")
    for name in ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "pad", "seed"):
        default = Recipe.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--milestones", type=float, nargs="+", help="shares of the steps; default: a cosine")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="never mirror pictures")
    asked = vars(parser.parse_args())
    dataset, out = asked.pop("dataset"), asked.pop("out")

    def work() -> None:
        began = time.monotonic()
        recipe = read_recipe(asked)
        figures = make_teacher(dataset, out, recipe)
        block = {"kind": "network", "name": out.name, "version": 1, "path": str(out / "weights.safetensors")}
        block |= {"sha256": sha256_file(out / "weights.safetensors"), "architecture": recipe.architecture.model_dump()}
        print(f"teacher of {dataset}: accuracy {figures}, {time.monotonic() - began:.0f} s; in params.yaml:")
        print(f"teacher: {json.dumps(block)}")  # JSON is YAML

    guarded("train_picture_teacher", work)


if __name__ == "__main__":
    main()
