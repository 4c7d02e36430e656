"""Train the teacher of the digits that ships: a small ResNet on the training side of scikit-learn's handwritten digits.

Writes models/classification/weights/digits: weights.safetensors and teacher.json (architecture, the digest of the
dataset, accuracies, the sha256 of the weights). No stage: `understudy run` takes the weights as they are. One core, the
same bytes again on the same machine.

    python -m tasks.classification.train_digits_teacher
"""

import argparse
import math
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.dataset import DATASETS, dataset
from tasks.dataset_params import DigitsDataset, Shares
from tasks.files import read_json, replacing_folder, sha256_file, write_json
from tasks.stage import guarded

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = Path("models/classification/weights/digits")
SIZE = 16  # pixels; the digits have 8, and twice that is enough for three stages
ARCHITECTURE: dict[str, Any] = {
    "kind": "resnet-cifar",
    "depth": 14,
    "widths": [16, 32, 64],
    "stem": 0,
    "shortcut": "A",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
RECIPE: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 32,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "turn": 12.0,  # degrees, the most
    "scale": 0.12,  # share, the most
    "move": 0.12,  # share of half of the side, the most
    "seed": 0,
}
Arrays = dict[str, npt.NDArray[Any]]


def digits() -> tuple[Arrays, dict[str, Any]]:
    """The dataset's arrays by file name, and its dataset.json; made beside and left nowhere."""
    settings = DigitsDataset(kind="digits", size=SIZE, split=Shares(val=0.15, test=0.2), seed=0)
    with TemporaryDirectory() as folder, chdir(folder):
        dataset("digits", settings)
        files = (DATASETS / "digits").glob("*.npy")
        arrays = {path.name: np.load(path, allow_pickle=False) for path in files}
        return arrays, read_json(DATASETS / "digits" / "dataset.json")


def train(arrays: Arrays, recipe: dict[str, Any]) -> "nn.Module":
    """A trained network, in eval mode: SGD, a cosine, pictures turned, scaled and moved a little."""
    import torch
    from torch.nn import functional

    from models.classification.networks import build
    from models.torch_setup import prepare_torch

    prepare_torch(1)
    torch.manual_seed(recipe["seed"])
    pictures, labels = tensors(arrays, "train")
    network: nn.Module = build(ARCHITECTURE, 10).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe["learning_rate"],
        momentum=recipe["momentum"],
        weight_decay=recipe["weight_decay"],
        nesterov=True,
    )
    random = torch.Generator().manual_seed(recipe["seed"])
    batches = len(labels) // recipe["batch_size"]
    for step in range(recipe["epochs"] * batches):
        if step % batches == 0:
            order = torch.randperm(len(labels), generator=random)
        chosen = order[step % batches :: batches][: recipe["batch_size"]]
        for group in optimizer.param_groups:
            group["lr"] = recipe["learning_rate"] * 0.5 * (1 + math.cos(math.pi * step / recipe["epochs"] / batches))
        loss = functional.cross_entropy(network(moved(pictures[chosen], recipe, random)), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def tensors(arrays: Arrays, split: str) -> "tuple[Tensor, Tensor]":
    """Pictures (N,3,S,S) in [0,1] and labels (N,) of a split."""
    import torch

    from models.batches import to_tensor

    return to_tensor(arrays[f"{split}.inputs.npy"]), torch.from_numpy(arrays[f"{split}.labels.npy"])


def moved(pictures: "Tensor", recipe: dict[str, Any], random: Any) -> "Tensor":
    """(B,3,S,S), each turned, scaled and moved by as much as is drawn; what comes in at the border is black."""
    import torch
    from torch.nn import functional

    drawn = torch.rand(4, len(pictures), generator=random) * 2 - 1
    angle, scale = drawn[0] * math.radians(recipe["turn"]), 1 + drawn[1] * recipe["scale"]
    across, down = drawn[2:] * recipe["move"]
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine, -sine, across], dim=1), torch.stack([sine, cosine, down], dim=1)]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def accuracy(network: "nn.Module", arrays: Arrays, split: str) -> float:
    """The share of a split that it names rightly."""
    import torch

    pictures, labels = tensors(arrays, split)
    with torch.inference_mode():
        return float((network(pictures).argmax(dim=1) == labels).double().mean())


def main() -> None:
    """Entry point."""
    argparse.ArgumentParser(prog="python -m tasks.classification.train_digits_teacher").parse_args()

    def work() -> None:
        from safetensors.torch import save_file

        began = time.monotonic()
        arrays, about = digits()
        network = train(arrays, RECIPE)
        with replacing_folder(WEIGHTS) as folder:
            values = {name: value.contiguous() for name, value in network.state_dict().items()}
            save_file(values, folder / "weights.safetensors")
            figures = {split: round(accuracy(network, arrays, split), 4) for split in ("train", "val", "test")}
            record = {
                "architecture": ARCHITECTURE,
                "classes": about["classes"],
                "size": SIZE,
                "dataset": about["digest"],
                "counts": about["counts"],
                "accuracy": figures,
                "recipe": RECIPE,
                "sha256": sha256_file(folder / "weights.safetensors"),
            }
            write_json(folder / "teacher.json", record)
            (folder / "SOURCE.md").write_text(SOURCE)
        print(f"digits teacher: accuracy {figures}, {time.monotonic() - began:.0f} s, sha256 {record['sha256']}")

    guarded("train_digits_teacher", work)


SOURCE = """# The digits' teacher

Made here, by `python -m tasks.classification.train_digits_teacher`: a ResNet that names handwritten digits. It learnt
from the training side of the digits that scikit-learn carries (`sklearn.datasets.load_digits`), the test set of

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, under CC BY 4.0.

Changed for training: enlarged, turned, scaled and moved. `teacher.json` says how, and how often it is right.
"""


if __name__ == "__main__":
    main()
