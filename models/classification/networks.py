"""A classifier from its architecture, as params.yaml or a student.json says it, and its weights from a file.

Pictures: `resnet-cifar`, `wrn-cifar`, `vgg-cifar`, `mobilenetv2-cifar` and, by name, whatever timm has. Texts:
`transformer`, `transformer-layers` and `transformer-config` (models/classification/transformer.py).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.classification.classifier import PictureClassifier
from models.classification.convolutional import CifarMobileNetV2, CifarVgg
from models.classification.residual import CifarResNet, WideResNet
from models.classification.timm_network import TimmClassifier
from models.classification.transformer import TextClassifier, fresh, from_config, from_layers
from models.compression import factorise, fit, is_matrix, prune
from models.errors import UserError

PICTURE_KINDS: dict[str, Callable[..., PictureClassifier]] = {
    "resnet-cifar": CifarResNet,
    "wrn-cifar": WideResNet,
    "vgg-cifar": CifarVgg,
    "mobilenetv2-cifar": CifarMobileNetV2,
    "timm": TimmClassifier,
}
TEXT_KINDS: dict[str, Callable[..., TextClassifier]] = {
    "transformer": fresh,
    "transformer-layers": from_layers,
    "transformer-config": from_config,
}
COUNTED = "num_batches_tracked"  # what BatchNorm counts and nothing here uses; older files lack it


def build(architecture: Mapping[str, Any], classes: int, **tokens: int) -> nn.Module:
    """An untrained classifier, its weights drawn by torch's global generator; UserError where nothing fits together.

    `architecture` is a section of tasks/classification/network_params.py as a mapping. `tokens` are, for a fresh
    transformer, `vocabulary` (how many tokens there are) and `pad` (the one that fills). One of the teacher's layers
    has the teacher's weights, but for a last layer of other classes.
    """
    kind = architecture["kind"]
    own = {key: value for key, value in architecture.items() if key not in ("kind", "tokens")}
    if kind in TEXT_KINDS:
        return TEXT_KINDS[kind](classes=classes, **own, **(tokens if kind == "transformer" else {}))
    if kind not in PICTURE_KINDS:
        raise UserError(f"architecture.kind {kind!r}: there are {', '.join((*PICTURE_KINDS, *TEXT_KINDS))}")
    return PICTURE_KINDS[kind](classes=classes, **{key: value for key, value in own.items() if value is not None})


def described(network: nn.Module, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture from which `build` makes this network with nothing else at hand: what student.json holds."""
    if isinstance(network, TextClassifier):
        return {"kind": "transformer-config", "config": network.config()}
    return dict(architecture)


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; one line as `what` where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{what}: no file at {path}") from None
    except SafetensorError as error:
        raise UserError(f"{what}: {path} is no safetensors file ({error}): save its state dict as one") from None


def load_weights(network: nn.Module, values: Mapping[str, Tensor], what: str) -> None:
    """Put saved weights into a network; one line as `what` where they are another network's.

    timm's own files name their weights without the `network.` that ours have.
    """
    inner = network
    if isinstance(network, TimmClassifier) and not any(name.startswith("network.") for name in values):
        inner = network.network
    either = set(inner.state_dict()) ^ set(values)
    missing = sorted(name for name in either if not name.endswith(COUNTED))
    if missing:
        raise UserError(
            f"{what}: its weights are not those of the architecture, {len(missing)} names are in one of them only "
            f"(such as {missing[0]}): name the architecture it was saved from"
        )
    try:
        inner.load_state_dict(dict(values), strict=False)
    except RuntimeError as error:
        told = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{what}: {told:.200}: name the architecture it was saved from") from None


def classes_of(architecture: Mapping[str, Any], values: Mapping[str, Tensor], what: str) -> int:
    """How many classes saved weights are for, told by the last layer's."""
    names = ["linear.weight"]
    if architecture["kind"] == "timm":
        import timm

        about = timm.get_pretrained_cfg(architecture["name"])
        told = about.classifier if about else "fc"
        last = told if isinstance(told, str) else told[0]  # of several heads, each has all classes
        names = [f"network.{last}.weight", f"{last}.weight"]
    for name in names:
        if name in values:
            return int(values[name].shape[0])
    raise UserError(f"{what}: its weights have no {names[-1]}: name the architecture it was saved from")


def load_network(folder: Path) -> nn.Module:
    """The trained classifier of a student folder (student.json, weights.safetensors), in eval mode.

    UserError where the weights' sha256 is not the one that student.json says.
    """
    record = json.loads((folder / "student.json").read_text())
    file = folder / "weights.safetensors"
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["weights_sha256"]:
        raise UserError(f"{file} has another sha256 than {folder}/student.json says: train again")
    from safetensors.torch import load

    values = load(data)
    network = build(record["architecture"], len(record["classes"]))
    fit(network, values, record.get("ranks", {}))
    load_weights(network, values, f"student {folder}")
    return network.eval()


def cut(network: nn.Module, size: int, pruned: float, energy: float) -> dict[str, int]:
    """Make a trained classifier smaller in place; it has to be trained again after.

    `pruned` (0..1) is the share of channels that go, `energy` (0..1] what factors keep of the squared weights of
    convolutions and linear layers, 1 being no factors; `size` is that of pictures. Returns the ranks, which with the
    weights are all that `models.compression.fit` needs. UserError where channels of a transformer are to go.
    """
    if pruned and not isinstance(network, PictureClassifier):
        raise UserError("cut.prune: transformers have no channels to prune here: take fewer layers, or low_rank")
    if pruned:
        assert isinstance(network, PictureClassifier)
        prune(network, size, pruned, kept=network.uncut())
    return factorise(network, energy, is_matrix) if energy < 1 else {}


def check_classes(told: Sequence[str], count: int, classes: Sequence[str], what: str) -> None:
    """Refuse a network whose `count` classes, `told` by name where it knows names, are not the dataset's."""
    if count != len(classes):
        raise UserError(
            f"{what} knows {count} classes, and the dataset has {len(classes)} ({', '.join(classes)}): take one of "
            "these classes, or name the dataset's `classes`"
        )
    ours, theirs = [one.casefold() for one in classes], [one.casefold() for one in told]
    if theirs and theirs != ours and sorted(theirs) == sorted(ours):
        raise UserError(
            f"{what} has its classes in another order than the dataset: set the dataset's `classes` to "
            f"[{', '.join(told)}]"
        )
