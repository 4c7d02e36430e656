"""Train a transformer on the training texts of a dataset, from nothing, to have a teacher where there is no better one.

Reads data/datasets/NAME; writes FOLDER as save_pretrained does (config.json, model.safetensors) with a tokenizer.json
that was learnt from the same texts, and tells what to write under `teacher:` in params.yaml. No stage, no network; one
core, the same bytes again on the same machine. A model that was trained on more text is the better teacher: put its
folder there instead.

    python -m tasks.classification.train_text_teacher --dataset sst2 --out teachers/sst2 [--layers 4] [--epochs 6]
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.silence import silence
from tasks.classification.examples import ExampleSet
from tasks.classification.first_teacher import accuracies, open_labelled
from tasks.classification.taken import Texts
from tasks.files import replacing_folder
from tasks.progress import progress
from tasks.stage import guarded

if TYPE_CHECKING:
    from models.classification.tokens import Tokens
    from models.classification.transformer import TextClassifier

BATCH = 32
WEIGHT_DECAY = 0.01
WARM = 0.1  # share of the steps over which the rate rises; after, it falls to 0 on a line
DROPOUT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the teacher is, and how it is trained."""

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    vocabulary: int = 8000
    max_tokens: int = 64
    epochs: int = 6
    learning_rate: float = 5e-4
    seed: int = 0


def make_teacher(dataset: str, folder: Path, recipe: Recipe) -> dict[str, float]:
    """Write the folder, whole or not at all; returns the accuracy on each split."""
    from models.classification.tokens import train_tokens
    from models.torch_setup import prepare_torch

    examples = open_labelled(dataset, "texts")
    prepare_torch(1)
    tokens = train_tokens(
        examples.splits["train"].inputs,
        by="wordpiece",
        vocabulary=recipe.vocabulary,
        lowercase=True,
        max_tokens=recipe.max_tokens,
        truncate=True,
    )
    network = train(examples, tokens, recipe)
    figures = accuracies(network, Texts(tokens), examples)
    with replacing_folder(folder) as made, silence():
        network.model.save_pretrained(made)  # type: ignore[operator]
        tokens.save(made)
    return figures


def train(examples: ExampleSet, tokens: "Tokens", recipe: Recipe) -> "TextClassifier":
    """A trained classifier, in eval mode: AdamW, cross-entropy with the labels, unlabelled texts left out."""
    import torch
    from torch.nn import functional

    from models.classification.transformer import fresh

    torch.manual_seed(recipe.seed)
    shape = {"layers": recipe.layers, "hidden": recipe.hidden, "heads": recipe.heads, "max_tokens": recipe.max_tokens}
    network = fresh(
        classes=len(examples.classes),
        feed_forward=4 * recipe.hidden,
        dropout=DROPOUT,
        vocabulary=tokens.vocabulary,
        pad=tokens.pad,
        **shape,
    ).train()
    config = network.model.config
    config.id2label = dict(enumerate(examples.classes))  # type: ignore[union-attr]
    config.label2id = {name: number for number, name in enumerate(examples.classes)}  # type: ignore[union-attr]
    taught, taken = examples.splits["train"], Texts(tokens)
    rows = np.flatnonzero(taught.labels >= 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
    batches = -(-len(rows) // BATCH)
    steps = recipe.epochs * batches
    random = np.random.default_rng(recipe.seed)
    with progress("teacher", steps, "steps") as advance:
        for step in range(steps):
            if step % batches == 0:
                order = random.permutation(rows)
            chosen = order[step % batches * BATCH :][:BATCH]
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min((step + 1) / (WARM * steps), (steps - step) / steps)
            logits = network(*taken.batch([taught.inputs[row] for row in chosen]))
            loss = functional.cross_entropy(logits, torch.from_numpy(taught.labels[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            advance(1, f"loss {loss.item():.3f}")
    return network.eval()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.classification.train_text_teacher")
    parser.add_argument("--dataset", required=True, help="a name under `datasets:` in params.yaml")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    for name, value in {name: getattr(Recipe(), name) for name in Recipe.__slots__}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    asked = vars(parser.parse_args())
    dataset, out = asked.pop("dataset"), asked.pop("out")

    def work() -> None:
        from models.teachers.folders import folder_sha256

        began = time.monotonic()
        recipe = Recipe(**asked)
        figures = make_teacher(dataset, out, recipe)
        print(
            f"teacher of {dataset}: accuracy {figures}, {time.monotonic() - began:.0f} s; under teacher: in params.yaml"
        )
        print(
            f"{{kind: transformers, name: {out.name}, version: 1, path: {out}, sha256: {folder_sha256(out)}, "
            f"max_tokens: {recipe.max_tokens}, truncate: true}}"
        )

    guarded("train_text_teacher", work)


if __name__ == "__main__":
    main()
