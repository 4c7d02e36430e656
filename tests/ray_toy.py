"""A Ray cluster of real nodes on loopback, and a copy of the code whose teachers note where they work and what.

A note is a file in notes/: loaded@NODE@PID@GPUS for a teacher that was loaded (it holds where its code lies),
begun@NODE@PID@SEED@N for an answer that was asked for; NODE is "here" outside the cluster. A file hold-NODE there makes
the teacher wait on that node; `mode` says what else it does.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_onnx import affine_bytes, pinned

from tasks.files import sha256_file, write_jsonl
from tasks.pictures import pixel_digest, write_input
from tasks.records import Input

REPOSITORY = Path(__file__).parent.parent
SIZE, TRAIN_CROPS, HELD_OUT_CROPS, SHARD = 64, 8, 4, 2  # 16 pairs in 8 shards
PAIRS = TRAIN_CROPS + 2 * HELD_OUT_CROPS
NOTING = """

_load, _NOTES = load_teacher, Path("FOLDER")


def _node() -> str:
    import sys

    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else "here"


class _Noting:
    def __init__(self, real):
        self.real, self.digest, self.node, self.count = real, real.digest, _node(), 0

    def __call__(self, inputs, seeds):
        import signal
        import time

        mode = (_NOTES / "mode").read_text() if self.node != "here" else ""
        for seed in seeds if self.node != "here" else ():
            self.count += 1
            (_NOTES / f"begun@{self.node}@{os.getpid()}@{seed}@{self.count}").touch()
        while mode == "together" and len({path.name.split("@")[2] for path in _NOTES.glob("begun@*")}) < 2:
            time.sleep(0.02)
        while (_NOTES / f"hold-{self.node}").exists() or (self.node != "here" and (_NOTES / "hold").exists()):
            time.sleep(0.02)
        if mode == "broken":
            raise ValueError("no\\npaint left")
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.real(inputs, seeds)


def load_teacher(settings):
    real = _load(settings)
    where = "here" if _node() == "here" else "ray"
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    (_NOTES / f"loaded@{_node()}@{os.getpid()}@{gpus}@-{where}").write_text(__file__)
    return _Noting(real)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """A checkout with one student, `tiny`, in which only `generate` is run."""

    folder: Path

    @property
    def notes(self) -> Path:
        """Where its teachers leave their notes."""
        return self.folder / "notes"

    def noted(self, what: str) -> list[list[str]]:
        """The notes of a kind from the cluster, split at their @."""
        found = [path.name.split("@")[1:] for path in sorted(self.notes.glob(f"{what}@*"))]
        return [note for note in found if note[0] != "here"]

    def forget(self) -> None:
        """Remove all notes."""
        for path in self.notes.iterdir():
            path.unlink()
        self.set_mode("")

    def set_mode(self, mode: str) -> None:
        """What the teachers on the cluster do besides answering."""
        (self.notes / "mode").write_text(mode)

    def shorten(self, module: str, name: str, seconds: float) -> None:
        """Let a module wait less for what will not come."""
        path = self.folder / "tasks" / module
        text, found = re.subn(rf"^{name} = [0-9.]+", f"{name} = {seconds}", path.read_text(), flags=re.MULTILINE)
        assert found == 1
        path.write_text(text)

    def set_params(self, teacher: dict[str, Any] | None = None, **shared: Any) -> None:
        """Write params.yaml with this section `generate`; the teacher halves the contrast unless one is given."""
        raw = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
        if teacher is None:
            teacher = pinned(self.folder / "teacher.onnx", affine_bytes(0.5, 0.25)) | {"path": "teacher.onnx"}
        block = raw["students"]["oil"] | {"teacher": teacher, "distil_anyway": True}
        pairs = {"size": SIZE, "train_crops": TRAIN_CROPS, "held_out_crops": HELD_OUT_CROPS, "min_scale": 0.5}
        changed = {"recolour": 0.5, "occlude": 0.5, "expose": 0.5, "seed": 0}
        block |= {"pairs": pairs | changed, "train": block["train"] | {"crop": SIZE}}
        raw["students"] = {"tiny": block}
        raw["generate"] |= {"shard_size": SHARD, "batch_size": 2, "workers": 2} | shared
        (self.folder / "params.yaml").write_text(yaml.safe_dump(raw))

    def start(self) -> "subprocess.Popen[str]":
        """`python -m tasks.generate` in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.generate", "--student", "tiny"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> tuple[int, list[str]]:
        """The stage's exit code, and the lines it says."""
        process = self.start()
        out, said = process.communicate(timeout=100)
        assert out == ""
        return process.returncode, said.splitlines()

    def made(self) -> dict[str, str]:
        """The sha256 of each file in raw/."""
        return {path.name: sha256_file(path) for path in sorted((self.folder / "data/students/tiny/raw").iterdir())}

    def finished(self) -> list[str]:
        """The shards that are whole in the unfinished folder."""
        return sorted(path.stem for path in self.folder.glob("data/.work/tiny/generate-*/done/shard-*.json"))


def make_toy(folder: Path) -> Toy:
    """The code with noting teachers, and three photographs."""
    for part in ("tasks", "models"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    toy = Toy(folder=folder)
    toy.notes.mkdir()
    toy.forget()
    with (folder / "models/teachers/__init__.py").open("a") as file:
        file.write(NOTING.replace("FOLDER", str(toy.notes)))
    images = folder / "data/inputs/images"
    images.mkdir(parents=True)
    inputs = []
    for number, split in enumerate(("train", "val", "test")):
        pixels = np.random.default_rng(number).integers(256, size=(80, 96, 3), dtype=np.uint8)
        digest = pixel_digest(pixels)
        write_input(images, digest, pixels)
        about: dict[str, Any] = {"digest": digest, "origin": f"folder:{number}.png", "licence": "none", "clip": ""}
        inputs.append(Input(**about, width=96, height=80, group=digest, split=split))  # type: ignore[arg-type]
    write_jsonl(folder / "data/inputs/inputs.jsonl", [item.to_json() for item in inputs])
    return toy


class Nodes:
    """A cluster's head on 127.0.0.2 with room for one actor, and other nodes, each with a loopback address of its own.

    127.0.0.1 will not do: Ray takes it for a name of this machine's outer address.
    """

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.2"}
        memory = {"object_store_memory": 80 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args={**head, **memory, "temp_dir": folder})
        self.added = 2

    def add(self, **resources: float) -> Any:
        """One more node; its `node_id` is what teachers note."""
        self.added += 1
        about = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        return self.cluster.add_node(**{**about, **resources}, node_ip_address=f"127.0.0.{self.added}")

    def kill(self, node: Any) -> None:
        """End a node's processes with SIGKILL."""
        self.cluster.remove_node(node, allow_graceful=False)

    def remove(self, node: Any) -> None:
        """End a node, unless it was killed, and wait until the head knows: before, it still places actors on it."""
        if node in self.cluster.worker_nodes:
            self.cluster.remove_node(node, allow_graceful=True)
        self.cluster.wait_for_nodes(timeout=60)

    def lose(self) -> None:
        """End everything there is of it."""
        for node in self.cluster.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    @property
    def address(self) -> str:
        """What generate.cluster is to name."""
        return str(self.cluster.address)


@contextmanager
def cluster() -> Iterator[Nodes]:
    """A head; in a folder with a short name, as its sockets have paths of at most 107 characters.

    RAY_TMPDIR keeps the note of the newest cluster there too: in /tmp/ray, which a new machine lacks, it would hide the
    cluster of whoever runs the tests.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    Path(folder, "ray").mkdir()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", folder)
        nodes = Nodes(folder)
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
