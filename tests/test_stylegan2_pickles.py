"""NVIDIA's pickles taken apart: pickles of their form, made here, honest ones and hostile ones."""

import io
import os
import pickle  # noqa: TID251 - to write what must not be loaded
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_stylegan2
import torch
from torch import nn
from typer.testing import CliRunner

from flows.cli import app
from models.errors import UserError
from models.teachers.stylegan2.network import Generator, load
from models.teachers.stylegan2.operations import TAPS
from models.teachers.stylegan2.pickles import read_pickle

SOURCE = "import pathlib; pathlib.Path('source-ran').touch()"


def _reconstruct_persistent_obj(meta: Any) -> Any:
    """By its name alone: the real one would run SOURCE."""
    raise AssertionError("the pickle's code ran")


class EasyDict(dict[str, Any]):
    pass


class Persistent:
    """Pickles as a network of NVIDIA's does: its source, and its state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Any", "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


@pytest.fixture(autouse=True)
def their_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Where their code would lie, so that pickle can write its names; nowhere to be found afterwards."""
    monkeypatch.chdir(tmp_path)
    for name, what in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(what, "__module__", name)
        setattr(module, what.__name__, what)
    yield
    assert not Path("source-ran").exists() and not Path("command-ran").exists()


def persistent(module: nn.Module, filters: bool = True, **more: Any) -> Persistent:
    """A module of ours with the attributes theirs have."""
    buffers = dict(module._buffers)
    if filters:
        taps = torch.tensor(TAPS)
        buffers["resample_filter"] = torch.outer(taps, taps) / taps.sum() ** 2
    inner = {name: persistent(each, "b" in name or "conv" in name) for name, each in module.named_children()}
    more["conv_clamp"] = 256
    state = {"_parameters": dict(module._parameters), "_buffers": buffers, "_modules": inner, "training": False, **more}
    return Persistent(state)


def write(path: Path, generator: Any, **more: Any) -> Path:
    whole = {"G": None, "D": None, "G_ema": generator, "training_set_kwargs": EasyDict(path="x"), **more}
    path.write_bytes(pickle.dumps(whole))
    return path


def network(channels: list[int] | None = None) -> Generator:
    made = tiny_stylegan2.generator(channels=channels)
    return made.requires_grad_(True)  # theirs are parameters


def test_the_same_pictures(tmp_path: Path) -> None:
    ours = network()
    path = write(tmp_path / "n.pkl", persistent(ours, filters=False, _init_kwargs=EasyDict(z_dim=8)))
    done = CliRunner().invoke(app, ["teacher", "convert", str(path), "converted"])
    assert done.exit_code == 0 and "32x32 pixels, sha256 " in done.stdout
    found = load(Path("converted"))
    assert found.config == {**ours.config, "conv_clamp": 256.0}
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(found.truncated(z, 0.7)), ours(ours.truncated(z, 0.7)))
    again = CliRunner().invoke(app, ["teacher", "convert", str(path), "converted"])
    assert again.exit_code != 0


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def inside(evil: Any) -> bytes:
    """A tensor's bytes, as torch.save writes them within a pickle, that are none."""
    data = io.BytesIO()
    torch.save({"a": evil}, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


@pytest.mark.parametrize("place", ["beside", "in the network", "in a tensor", "builtin"])
def test_hostile_ones(tmp_path: Path, place: str) -> None:
    honest = persistent(network(), filters=False)
    evil = Call(os.system, "touch command-ran")
    if place == "beside":
        path = write(tmp_path / "n.pkl", honest, augment_pipe=evil)
    elif place == "in the network":
        honest.state["_init_kwargs"] = {"a": evil}
        path = write(tmp_path / "n.pkl", honest)
    elif place == "builtin":
        path = write(tmp_path / "n.pkl", honest, augment_pipe=Call(eval, "open('command-ran', 'w')"))
    else:
        honest.state["_buffers"]["more"] = Call(torch.storage._load_from_bytes, inside(evil))
        path = write(tmp_path / "n.pkl", honest)
    with pytest.raises(UserError, match="no pickle of a StyleGAN2 generator") as refused:
        read_pickle(path)
    assert "\n" not in str(refused.value)


def test_what_is_no_generator(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_pickle(tmp_path / "none.pkl")
    (tmp_path / "no.pkl").write_bytes(b"no pickle")
    with pytest.raises(UserError, match="no pickle of a StyleGAN2"):
        read_pickle(tmp_path / "no.pkl")
    with pytest.raises(UserError, match="no pickle of a StyleGAN2"):
        read_pickle(write(tmp_path / "none.pkl", None))
    wide = persistent(network(), filters=False)
    wide.state["_modules"]["synthesis"].state["_modules"]["b4"].state["_buffers"]["resample_filter"] = torch.ones(12)
    with pytest.raises(UserError, match="another filter"):
        read_pickle(write(tmp_path / "n.pkl", wide))
    classes = persistent(network(), filters=False)
    classes.state["_modules"]["mapping"].state["_modules"]["embed"] = persistent(nn.Linear(2, 2), filters=False)
    with pytest.raises(UserError, match="conditioned on classes"):
        read_pickle(write(tmp_path / "n.pkl", classes))
    headless = persistent(network(), filters=False)
    del headless.state["_modules"]["synthesis"].state["_modules"]["b16"]
    with pytest.raises(UserError, match="not built as StyleGAN2"):
        read_pickle(write(tmp_path / "n.pkl", headless))
