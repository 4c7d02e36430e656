"""The training loop: AdamW or SGD, warm-up then cosine or steps, an average of the weights, checkpoints without pickle.

Step t depends on the state after step t-1 and on t alone, so a run that was killed and resumed ends with
the same bits as one that was not (on CPU with a fixed number of threads). Asked to stop by Ctrl-C or SIGTERM, it ends
the step it is at, keeps its state and stops. What is learnt from is terms (models/terms.py) on batches that say what
the student is given (models/batches.py); the loop knows neither pictures nor classes.

Several processes, started by accelerate's or torch's launcher, share each batch; what they find is averaged
(models/processes.py), so a checkpoint of any number of them is gone on from by any other.
"""

import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.batches import Batch, Source
from models.checkpoints import restore_about, restore_state, save_state
from models.errors import UserError
from models.processes import agree, average_buffers, average_gradients, stop_when_asked
from models.terms import Look, Part, Term, inner_outputs, share_of_gradient, total
from models.validation import Check

Line = dict[str, Any]
GPU_MAKERS = 4  # threads that make batches for a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast to learn."""

    steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    ema_decay: float
    checkpoint_every: int
    validate_every: int
    precision: str = "no"  # accelerate's mixed_precision
    compile: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9  # of SGD
    milestones: tuple[float, ...] = ()  # shares of the steps at which the rate falls to a tenth; none: it is a cosine


@dataclass(slots=True)
class Training:
    """Everything that changes from step to step."""

    student: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    terms: nn.ModuleList
    step: int = 0
    curve: list[Line] = field(default_factory=list)


def begin(student: nn.Module, recipe: Recipe, terms: Sequence[Term]) -> Training:
    """A training at step 0, in channels_last memory order (1.6 to 2.2 times faster on CPU)."""
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(student, multi_avg_fn=moving_average(recipe.ema_decay), use_buffers=True)
    learning = [*student.parameters(), *(weight for term in terms for weight in term.beside())]
    optimizer = make_optimizer(learning, recipe)
    return Training(student, average, optimizer, nn.ModuleList(terms))


def make_optimizer(weights: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """What the weights learn by."""
    rates = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(weights, momentum=recipe.momentum, **rates)
    return torch.optim.AdamW(weights, fused=True, **rates)


def moving_average(decay: float) -> Callable[..., None]:
    """An exponential moving average whose decay rises to `decay`: after n steps it is at most (1 + n) / (10 + n).

    With a fixed one of 0.99 a fifth of what 150 steps leave were the weights before them: little of a long training,
    much of a short one after a cut.
    """

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        done = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averages, values, count)

    return update


def rate(step: int, recipe: Recipe) -> float:
    """The share of the learning rate at a step: linear warm-up, then a cosine to 0 (Loshchilov & Hutter 2017).

    Or a tenth of it from each milestone on (He et al. 2016).
    """
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.milestones:
        return 0.1 ** sum(step >= milestone * recipe.steps for milestone in recipe.milestones)
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * share))


def train_step(training: Training, batch: Batch, recipe: Recipe, accelerator: Accelerator) -> Line:
    """One update; returns the step's losses as floats. Raises UserError when the loss is not finite."""
    share = rate(training.step, recipe)
    for group in training.optimizer.param_groups:
        group["lr"] = recipe.learning_rate * share
    look, loss = _judge(training, batch, recipe, accelerator)
    line = _told(training.step + 1, loss, look.parts)
    weights = [weight for group in training.optimizer.param_groups for weight in group["params"]]
    if (training.step + 1) % recipe.validate_every == 0 and accelerator.is_main_process:
        line["shares"] = share_of_gradient(look.parts, weights)
    accelerator.backward(loss)
    average_gradients(weights, accelerator)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    average_buffers(training.student, accelerator)
    for term in training.terms:
        for own in term.learn(look, share):  # type: ignore[operator]
            average_gradients(own, accelerator)
    training.average.update_parameters(training.student)
    training.step += 1
    return line


def _judge(training: Training, batch: Batch, recipe: Recipe, accelerator: Accelerator) -> tuple[Look, Tensor]:
    """What the student makes of a batch, and the loss by all terms."""
    paths = [path for term in training.terms for path in term.paths]  # type: ignore[union-attr]
    with inner_outputs(training.student, paths) as inner:
        with accelerator.autocast():
            output = training.student(batch.inputs, *batch.controls)
        look = Look(
            student=training.student,
            inputs=batch.inputs,
            controls=batch.controls,
            targets=batch.targets,
            about=batch.about,
            output=output.float(),
            step=training.step,
            share=training.step / recipe.steps,
            inner=dict(inner),
        )
    for term in training.terms:
        look.parts = {**look.parts, **term(look)}
    return look, total(look.parts)


def _told(step: int, loss: Tensor, parts: dict[str, Part]) -> Line:
    """A line of the curve; UserError where the loss is no number."""
    # One wait for a GPU instead of one a part.
    value, *values = torch.stack([loss.detach(), *(part.value.detach() for part in parts.values())]).tolist()
    line = {"step": step, "loss": value, "losses": dict(zip(parts, values, strict=True))}
    if not math.isfinite(value):
        found = ", ".join(f"{name} {part:.3g}" for name, part in line["losses"].items())
        raise UserError(
            f"the loss is {value} at step {step - 1} ({found}): lower train.learning_rate (after it, "
            "compress.recovery_rate or quantise_aware.rate), or look for broken pairs (dvc repro curate)"
        )
    return line


def run(
    training: Training,
    batches: Source,
    check: Check,
    recipe: Recipe,
    accelerator: Accelerator,
    checkpoint: Path,
    show: Callable[[Training, Line], None],
) -> nn.Module:
    """Train to the last step, saving `checkpoint` on the way; returns the averaged student in eval mode.

    What `check` finds of the average is told in the curve. KeyboardInterrupt, with everything saved, where the process
    was asked to stop.
    """
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    to_device(training, accelerator.device)
    if recipe.compile:
        training.student.compile()
        for term in training.terms:
            if term.compiles:
                term.compile()
    seed = torch.initial_seed()
    with (
        stop_when_asked() as asked,
        ahead(batches, training.step, mine, accelerator.device) as following,
        torch.random.fork_rng(devices=[]),
    ):
        while training.step < recipe.steps:
            torch.manual_seed(seed + training.step)  # what dropout draws hangs on the step, not on where it began
            training.student.train()
            line = train_step(training, next(following), recipe, accelerator)
            last = training.step == recipe.steps
            if accelerator.is_main_process:
                note(training, line, check, recipe, accelerator.device)
            stops = agree(bool(asked), accelerator)
            if accelerator.is_main_process and (last or stops or training.step % recipe.checkpoint_every == 0):
                save_checkpoint(training, checkpoint)
            if stops and not last:
                raise KeyboardInterrupt
            show(training, line)
    return training.average.module.eval()


@contextmanager
def ahead(batches: Source, step: int, mine: slice, device: torch.device) -> Iterator[Iterator[Batch]]:
    """Batches from a step on, on the device, without end, each made in a thread while one before is learnt from.

    A GPU learns from a batch sooner than one thread has made the next, and takes the bytes itself apart.
    """
    on_cpu = device.type == "cpu"

    def make(step: int) -> tuple[Tensor, ...]:
        if on_cpu:
            return batches.batch(step, mine)
        return tuple(part.pin_memory() for part in batches.raw(step, mine))  # copied while the GPU works

    def following() -> Iterator[Batch]:
        waiting = deque(pool.submit(make, later) for later in range(step, step + makers))
        for later in itertools.count(step + makers):
            ready = waiting.popleft().result()
            waiting.append(pool.submit(make, later))
            if not on_cpu:
                ready = batches.made_of(tuple(part.to(device, non_blocking=True) for part in ready))
            yield batches.parts(ready)

    makers = 1 if on_cpu else GPU_MAKERS
    with ThreadPoolExecutor(makers, thread_name_prefix="batches") as pool:
        yield following()


def to_device(training: Training, device: torch.device) -> None:
    """Move everything that learns; an optimiser's state follows its weights."""
    training.student.to(device)
    training.average.to(device)
    training.terms.to(device)
    for state in training.optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                state[name] = value.to(device)


def note(
    training: Training,
    line: Line,
    check: Check,
    recipe: Recipe,
    device: torch.device,
) -> None:
    """Add to the curve what belongs there: every tenth step, and a validation where it is due."""
    last = training.step == recipe.steps
    if training.step % 10 == 0 or "shares" in line or last:
        training.curve.append(line)
    if training.step % recipe.validate_every == 0 or last:
        training.average.eval()
        training.curve.append({"step": training.step, **check(training.average, device)})


def _parts(training: Training) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    networks: dict[str, nn.Module] = {"student": training.student, "average": training.average}
    optimisers = {"optimizer": training.optimizer}
    for number, term in enumerate(training.terms):
        networks[f"term{number}"] = term
        optimisers |= {f"term{number}.{name}": one for name, one in term.optimisers().items()}  # type: ignore[operator]
    return networks, optimisers


def save_checkpoint(training: Training, path: Path) -> None:
    """Write the whole state to one safetensors file: temporary, fsync, rename."""
    save_state(path, training.step, *_parts(training), curve=json.dumps(training.curve))


def resume(training: Training, path: Path) -> bool:
    """Load `path` into a training just begun; False when there is no checkpoint."""
    if not path.exists():
        return False
    training.step = restore_state(path, *_parts(training))
    training.curve = json.loads(restore_about(path)["curve"])
    return True
