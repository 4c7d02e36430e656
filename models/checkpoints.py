"""A training that may be killed: networks, optimisers and the number of steps in one file; and the running average."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from models.files import replacing


def save_state(
    path: Path,
    step: int,
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, Optimizer],
    **about: str,
) -> None:
    """Write everything, whole or not at all; `about` comes back from `restore_about`."""
    from safetensors.torch import save_file

    tensors = {f"{key}/{name}": value for key, part in networks.items() for name, value in part.state_dict().items()}
    for key, optimiser in optimisers.items():
        for number, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"{key}/{number}/{name}": value for name, value in moments.items()}
    with replacing(path) as temporary:
        # A copy each: safetensors refuses tensors that share memory.
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(whole, temporary, metadata={"step": str(step), **about})


def restore_state(path: Path, networks: Mapping[str, nn.Module], optimisers: Mapping[str, Optimizer]) -> int:
    """Load what was saved, if anything was; the number of steps taken."""
    from safetensors import safe_open

    if not path.exists():
        return 0
    parts: dict[str, dict[str, Any]] = {key: {} for key in (*networks, *optimisers)}
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        for name in file.keys():  # noqa: SIM118 - no mapping
            key, _, rest = name.partition("/")
            parts[key][rest] = file.get_tensor(name)
    for key, network in networks.items():
        network.load_state_dict(parts[key])
    for key, optimiser in optimisers.items():
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for name, value in parts[key].items():
            number, _, what = name.partition("/")
            # A fused optimiser walks weight and moments in memory order: give them the same strides.
            same = torch.empty_like(weights[int(number)]).copy_(value) if value.ndim else value
            moments.setdefault(int(number), {})[what] = same
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return step


def restore_about(path: Path) -> dict[str, str]:
    """What `save_state` was told besides."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def follow(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Move the average's weights towards the network's; `kept` of them stays."""
    with torch.no_grad():
        moving = dict(network.state_dict())
        for name, value in average.state_dict().items():
            value.lerp_(moving[name], 1 - kept) if value.is_floating_point() else value.copy_(moving[name])
