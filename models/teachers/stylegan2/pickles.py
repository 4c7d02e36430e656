"""NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch, stylegan3 in its stylegan2 configuration) to safetensors.

Such a pickle carries the source of its networks and runs it when it is loaded. Here nothing of it runs: only the few
names that tensors and plain containers need are known, networks become inert records of their tensors, and a pickle
that names anything else is refused. The tensors are then loaded into this project's own generator.
"""

import collections
import io
import pickle  # noqa: TID251 - to take it apart without running it
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.errors import UserError
from models.teachers.stylegan2.network import Generator
from models.teachers.stylegan2.operations import TAPS

FILTER = "resample_filter"  # a constant here


class Record(dict[str, Any]):
    """What a network was, by attribute; nothing of its class is kept."""


def _network(description: Any) -> Record:
    """In the place of the code that would build a network from its own source."""
    state = description.get("state") if isinstance(description, dict) else None
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("a network without a state")
    return Record(state)


def _storage(data: bytes) -> Any:
    """In the place of a plain torch.load of bytes inside the pickle, which are a pickle again."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    return data


# All that such a pickle may name, and what it gets; none of these runs code of the pickle's.
KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _network,
    ("dnnlib.util", "EasyDict"): Record,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no StyleGAN2 generator needs")
        return KNOWN[module, name]


def read_pickle(path: Path) -> Generator:
    """The averaged generator (G_ema) in one of NVIDIA's pickles; a UserError for what is none, or names more."""
    try:
        with path.open("rb") as file:
            found = _Reader(file).load()
        network = found["G_ema"]
        tensors = dict(_tensors(network))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - broken or hostile bytes may raise anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is no pickle of a StyleGAN2 generator that can be converted: {why}") from None
    return _generator(path, network, tensors)


def _tensors(network: Any, prefix: str = "") -> "list[tuple[str, torch.Tensor]]":
    """Every parameter and buffer by its dotted name."""
    own = {**network["_parameters"], **network["_buffers"]}
    found = [(prefix + name, value) for name, value in own.items() if isinstance(value, torch.Tensor)]
    for name, inner in network["_modules"].items():
        found += _tensors(inner, f"{prefix}{name}.")
    return found


def _generator(path: Path, network: Any, tensors: dict[str, torch.Tensor]) -> Generator:
    """This project's generator with these tensors, whose shapes say how it is built."""
    if any(name.startswith("mapping.embed") for name in tensors):
        raise UserError(f"{path} is conditioned on classes, which this generator is not: take an unconditional one")
    taps = torch.tensor(TAPS)
    expected = torch.outer(taps, taps) / taps.sum() ** 2
    filters = [tensors.pop(name) for name in list(tensors) if name.endswith(FILTER)]
    if not all(each.shape == expected.shape and torch.allclose(each, expected) for each in filters):
        raise UserError(f"{path} changes resolution with another filter than StyleGAN2's, as StyleGAN3 does")
    try:
        sizes = sorted(int(name.split(".")[1][1:]) for name in tensors if name.endswith(".torgb.weight"))
        layers = [name for name in tensors if name.startswith("mapping.fc") and name.endswith(".weight")]
        generator = Generator(
            z_dim=tensors["mapping.fc0.weight"].shape[1],
            w_dim=tensors["mapping.w_avg"].shape[0],
            mapping_layers=len(layers),
            channels=[tensors[f"synthesis.b{size}.torgb.weight"].shape[1] for size in sizes],
            conv_clamp=_clamp(network),
        )
        generator.load_state_dict(tensors)
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not built as StyleGAN2 with skip connections is: {why}") from None
    return generator.eval().requires_grad_(False)


def _clamp(network: Any) -> float | None:
    """The clamp of the last block's layer; all layers share it."""
    blocks = [module for name, module in network["_modules"]["synthesis"]["_modules"].items() if name.startswith("b")]
    clamp = blocks[-1]["_modules"]["conv1"].get("conv_clamp")
    return None if clamp is None else float(clamp)
