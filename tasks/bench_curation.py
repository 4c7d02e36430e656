"""How long the stage curate takes, and how much memory, on many made-up pairs.

Writes COUNT pairs to a temporary folder as the stage generate would (photographs that scikit-image carries, cut, turned
and lit at random; a plain colour effect as the teacher), runs `python -m tasks.curate` there with this repository's
params.yaml, and prints the minutes and the highest memory of the stage and its processes together. Needs about twice
COUNT * SIZE * SIZE * 6 bytes on the disk of the temporary folder: 20 GB for 100,000 pairs of 128 pixels.

Command: python -m tasks.bench_curation [--count 100000] [--size 128] [--folder FOLDER]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from scipy import ndimage

from models.errors import UserError
from tasks.decisions import DECISIONS
from tasks.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json, write_jsonl, write_text
from tasks.ingest import INPUTS
from tasks.panel_inputs import PANEL
from tasks.pictures import Pixels
from tasks.planted_faults import FAULTS
from tasks.progress import progress
from tasks.records import Pair, SplitName, write_records
from tasks.stage import STUDENTS, guarded

NAME, TEACHER = "bench", "b" * 64
FAULTY = 0.01  # share of the pairs that get a fault
EVERY_S = 0.2
GIB = 2**30


def photographs() -> list[Pixels]:
    """The colour photographs that scikit-image carries."""
    from skimage import data

    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina")
    return [np.asarray(getattr(data, name)()) for name in names]


def make_pair(photos: list[Pixels], size: int, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """An input and its target, (size,size,3) both; no two inputs are near each other but by chance."""
    photo = photos[int(random.integers(len(photos)))]
    side = int(random.integers(size // 2, min(photo.shape[:2])))
    top, left = (int(random.integers(length - side + 1)) for length in photo.shape[:2])
    at = np.linspace(0, side - 1, size).astype(np.intp)
    cut = np.rot90(photo[top : top + side, left : left + side][at][:, at], int(random.integers(4)))
    light = ndimage.zoom(random.uniform(0.3, 1.6, (4, 4, 3)), (size / 4, size / 4, 1), order=1)
    given = np.clip(cut[..., random.permutation(3)] * light, 0, 255).astype(np.uint8)
    toned = ndimage.uniform_filter(given.astype(np.float32), (3, 3, 1)) @ EFFECT
    return np.ascontiguousarray(given), np.clip(toned + 20, 0, 255).astype(np.uint8)


EFFECT = np.array([[0.7, 0.1, 0.1], [0.3, 0.8, 0.2], [0.0, 0.1, 0.5]], np.float32)


def write_raw(raw: Path, count: int, size: int, shard_size: int) -> None:
    """raw/ with so many pairs; one in a hundred training pairs has a fault."""
    from safetensors.numpy import save

    photos, random = photographs(), np.random.default_rng(0)
    faults, lines = list(FAULTS.values()), []
    other = make_pair(photos, size, random)[1]
    with progress("bench-curation", count, "pairs made") as advance:
        for number, start in enumerate(range(0, count, shard_size)):
            pairs, sides = [], []
            for row in range(start, min(start + shard_size, count)):
                given, target = make_pair(photos, size, random)
                if random.random() < FAULTY:
                    spoilt = faults[int(random.integers(len(faults)))](given, target, other, random)
                    target = target if spoilt is None else spoilt
                pairs.append(make_record(row, size))
                sides.append((given, target))
                other = target
            lines.append(write_shard(raw, f"shard-{number:05d}", pairs, sides, save))
            advance(len(pairs))
    write_jsonl(raw / "manifest.jsonl", lines)
    write_json(raw / "teacher.json", {"kind": "painter", "name": NAME, "version": 1, "digest": TEACHER})


def make_record(row: int, size: int) -> Pair:
    """Nine of ten train; of a teacher that draws its inputs, as there are no photographs to be checked."""
    split: SplitName = "train" if row % 10 else ("val" if row % 20 else "test")
    name = sha256_bytes(str(row).encode())
    return Pair(
        id=name,
        teacher=TEACHER,
        input="",
        crop=(0, 0, size),
        hue=0,
        seed=row,
        split=split,
        group=name,
        finite=True,
        clipped=0.0,
    )


def write_shard(raw: Path, name: str, pairs: list[Pair], sides: list[tuple[Pixels, Pixels]], save: Any) -> Any:
    """A shard's two files; its line of the manifest."""
    inputs, targets = (np.ascontiguousarray(np.stack(side)) for side in zip(*sides, strict=True))
    data = save({"inputs": inputs, "targets": targets})
    write_bytes(raw / f"{name}.safetensors", data)
    write_records(raw / f"{name}.jsonl", pairs)
    records = sha256_file(raw / f"{name}.jsonl")
    return {"shard": name, "sha256": sha256_bytes(data), "records_sha256": records, "pairs": len(pairs)}


def write_params(folder: Path, size: int) -> int:
    """params.yaml with the one student; the size of a shard."""
    raw = yaml.safe_load(Path("params.yaml").read_text())
    block = next(iter(raw["students"].values()))
    block["pairs"]["size"] = size
    block["train"]["crop"] = min(block["train"]["crop"], size)
    raw["students"] = {NAME: block}
    write_text(folder / "params.yaml", yaml.safe_dump(raw))
    return int(raw["generate"]["shard_size"])


class Memory(threading.Thread):
    """The highest memory of a process and those below it together; what they share is counted in each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._done, self.peak = psutil.Process(pid), threading.Event(), 0

    def run(self) -> None:
        """Look every EVERY_S until told to stop."""
        while not self._done.wait(EVERY_S):
            try:
                every = [self._process, *self._process.children(recursive=True)]
                self.peak = max(self.peak, sum(one.memory_info().rss for one in every))
            except psutil.Error:
                continue

    def stop(self) -> int:
        """End; bytes."""
        self._done.set()
        self.join()
        return self.peak


def bench(count: int, size: int, folder: Path) -> list[str]:
    """Make the pairs, curate them, and say what it took."""
    shard_size = write_params(folder, size)
    (folder / DECISIONS).mkdir(parents=True)
    write_jsonl(folder / INPUTS / "inputs.jsonl", [])
    shutil.copy(PANEL, folder / PANEL)
    write_raw(folder / STUDENTS / NAME / "raw", count, size, shard_size)
    command = [sys.executable, "-m", "tasks.curate", "--student", NAME]
    started = time.perf_counter()
    running = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    memory = Memory(running.pid)
    memory.start()
    if running.wait():
        raise UserError("the stage failed: its own line is above")
    minutes, peak = (time.perf_counter() - started) / 60, memory.stop()
    told = read_json(folder / STUDENTS / NAME / "pairs" / "curation.json")
    return [
        f"{count} pairs of {size} pixels: {minutes:.1f} minutes, {minutes * 60_000 / count:.1f} ms a pair,",
        f"at most {peak / GIB:.2f} GiB in all processes together; {told['rejected']} dropped; {os.cpu_count()} cores,",
        f"load {os.getloadavg()[0]:.1f} at the end",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.bench_curation")
    parser.add_argument("--count", type=int, default=100_000, help="pairs")
    parser.add_argument("--size", type=int, default=128, help="pixels of their sides")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; default: the system's")
    asked = parser.parse_args()

    def _work() -> None:
        with tempfile.TemporaryDirectory(prefix="understudy-curation-", dir=asked.folder) as folder:
            print("\n".join(bench(asked.count, asked.size, Path(folder))))

    guarded("bench-curation", _work)
