"""Training in several processes, and stopping one that is asked to.

What each process finds on its part of the batch is averaged in one message; a student has so few weights that hiding
that message behind the backward pass, as DistributedDataParallel does, gains nothing, and a plain average also serves
terms that ask the student twice. All processes hold the same weights after every step.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def average_gradients(weights: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Make the gradients on `weights` the mean over all processes."""
    if accelerator.num_processes > 1:
        for weight in weights:  # the same message from all, also where one has nothing to say
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        _average([weight.grad for weight in weights if weight.grad is not None], accelerator)


def average_buffers(network: nn.Module, accelerator: Accelerator) -> None:
    """Make the running statistics of a network the mean over all processes."""
    if accelerator.num_processes > 1:
        _average([one for one in network.buffers() if one.is_floating_point()], accelerator)


def _average(tensors: Sequence[Tensor], accelerator: Accelerator) -> None:
    flat = accelerator.reduce(torch.cat([one.reshape(-1) for one in tensors]), reduction="mean")
    start = 0
    for one in tensors:
        one.copy_(flat[start : start + one.numel()].view(one.shape))
        start += one.numel()


def agree(said: bool, accelerator: Accelerator) -> bool:
    """Whether any process said so: the same answer in all."""
    if accelerator.num_processes == 1:
        return said
    flag = torch.tensor(float(said), device=accelerator.device)
    return bool(accelerator.reduce(flag, reduction="sum") > 0)


@contextmanager
def stop_when_asked() -> Iterator[list[int]]:
    """While open, Ctrl-C and SIGTERM are noted in the list that is yielded; a second one ends as it always does.

    Only the main thread can listen; elsewhere the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()
