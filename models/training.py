"""The training loop: AdamW, warm-up then cosine, an average of the weights, checkpoints without pickle.

Step t depends on the state after step t-1 and on t alone, so a run that was killed and resumed ends with
the same bits as one that was not (on CPU with a fixed number of threads).
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.batches import Array, Batches, to_tensor
from models.errors import UserError
from models.losses import total

Line = dict[str, Any]
# (student, inputs, targets, weights of the losses) -> the loss and its unweighted parts by name
Objective = Callable[[nn.Module, Tensor, Tensor, Mapping[str, float]], tuple[Tensor, dict[str, Tensor]]]


def imitate(
    student: nn.Module, inputs: Tensor, targets: Tensor, weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses between what the student makes of the inputs and the teacher's pictures."""
    return total(student(inputs), targets, weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast to learn, and what counts."""

    steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    ema_decay: float
    losses: Mapping[str, float]
    checkpoint_every: int
    validate_every: int
    objective: Objective = imitate


@dataclass(slots=True)
class Progress:
    """What a caller may show while training goes on."""

    step: int
    loss: float
    samples_per_second: float


@dataclass(slots=True)
class Training:
    """Everything that changes from step to step."""

    student: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    curve: list[Line] = field(default_factory=list)


def begin(student: nn.Module, recipe: Recipe) -> Training:
    """A training at step 0, in channels_last memory order (1.6 to 2.2 times faster on CPU)."""
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(student, multi_avg_fn=moving_average(recipe.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    return Training(student, average, optimizer)


def moving_average(decay: float) -> Callable[..., None]:
    """An exponential moving average whose decay rises to `decay`: after n steps it is at most (1 + n) / (10 + n).

    With a fixed one of 0.99 a fifth of what 150 steps leave were the weights before them: little of a long training,
    much of a short one after a cut.
    """

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        done = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averages, values, count)

    return update


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017)."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def train_step(training: Training, batch: tuple[Tensor, Tensor], recipe: Recipe, accelerator: Accelerator) -> Line:
    """One update; returns the step's losses as floats. Raises UserError when the loss is not finite."""
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(training.step, recipe)
    inputs, targets = (part.to(accelerator.device, non_blocking=True) for part in batch)
    with accelerator.autocast():
        loss, parts = recipe.objective(training.student, inputs, targets, recipe.losses)
    value = loss.item()
    if not math.isfinite(value):
        found = ", ".join(f"{name} {part.item():.3g}" for name, part in parts.items())
        raise UserError(
            f"the loss is {value} at step {training.step} ({found}): lower train.learning_rate (after it, "
            "compress.recovery_rate or quantise_aware.rate), or look for broken pairs (dvc repro curate)"
        )
    accelerator.backward(loss)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.average.update_parameters(accelerator.unwrap_model(training.student))
    training.step += 1
    return {"step": training.step, "loss": value, "losses": {name: part.item() for name, part in parts.items()}}


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


def run(
    training: Training,
    batches: Batches,
    validation: tuple[Array, Array],
    recipe: Recipe,
    accelerator: Accelerator,
    checkpoint: Path,
    show: Callable[[Training, Line], None],
) -> nn.Module:
    """Train to the last step, saving `checkpoint` on the way; returns the averaged student in eval mode."""
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    training.student, training.optimizer = accelerator.prepare(training.student, training.optimizer)
    training.average.to(accelerator.device)
    while training.step < recipe.steps:
        training.student.train()
        line = train_step(training, batches.batch(training.step, share), recipe, accelerator)
        last = training.step == recipe.steps
        if training.step % 10 == 0 or last:
            training.curve.append(line)
        if training.step % recipe.validate_every == 0 or last:
            training.curve.append(
                {"step": training.step, **validate(training.average, *validation, accelerator.device)}
            )
        if accelerator.is_main_process and (training.step % recipe.checkpoint_every == 0 or last):
            save_checkpoint(training, accelerator, checkpoint)
        show(training, line)
    return training.average.module.eval()


def _tensors(training: Training, student: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, state in (("student", student.state_dict()), ("average", training.average.state_dict())):
        for name, value in state.items():
            yield f"{prefix}.{name}", value
    for index, slots in training.optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            yield f"optimizer.{index}.{name}", value


def save_checkpoint(training: Training, accelerator: Accelerator, path: Path) -> None:
    """Write the whole state to one safetensors file: temporary, fsync, rename."""
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in _tensors(training, accelerator.unwrap_model(training.student))
    }
    data = save(tensors, metadata={"step": str(training.step), "curve": json.dumps(training.curve)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def resume(training: Training, path: Path) -> bool:
    """Load `path` into a training just begun; False when there is no checkpoint."""
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable
    for prefix, module in (("student.", training.student), ("average.", training.average)):
        module.load_state_dict(
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        )
    weights = list(training.student.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            # The fused optimiser walks weight and moments in memory order: give them the same strides.
            same = torch.empty_like(weights[int(index)]).copy_(value) if value.ndim else value
            state.setdefault(int(index), {})[slot] = same
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.step, training.curve = int(metadata["step"]), json.loads(metadata["curve"])
    return True
