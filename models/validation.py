"""How near a student in training comes to pictures that it is not taught: the lines of the curve that say so."""

from collections.abc import Callable

import torch
from torch import nn

from models.batches import Array, to_tensor

REPLAYED = "replay.val_explained_effect"  # of the older pairs, while new ones are learnt
Check = Callable[[nn.Module, torch.device], dict[str, float]]  # a student in eval mode and where it is -> figures


@torch.no_grad()
def validate(model: nn.Module, inputs: Array, targets: Array, device: torch.device) -> dict[str, float]:
    """Mean absolute and squared error over whole pairs, and the explained effect (models/metrics.py)."""
    model.eval()
    absolute = squared = effect = 0.0
    for start in range(0, len(inputs), 4):
        x, y = to_tensor(inputs[start : start + 4]).to(device), to_tensor(targets[start : start + 4]).to(device)
        error = model(x) - y
        absolute += error.abs().sum().item()
        squared += error.square().sum().item()
        effect += (x - y).square().sum().item()
    return {
        "val_l1": absolute / inputs.size,
        "val_mse": squared / inputs.size,
        "val_explained_effect": 1 - squared / effect if effect else 0.0,
    }


def on_pairs(pairs: tuple[Array, Array], replayed: tuple[Array, Array] | None = None) -> Check:
    """The check on validation pairs (N,S,S,3) uint8, and on older ones where there are any."""

    def check(model: nn.Module, device: torch.device) -> dict[str, float]:
        found = validate(model, *pairs, device)
        if replayed:
            found[REPLAYED] = validate(model, *replayed, device)["val_explained_effect"]
        return found

    return check
