"""Seconds of generate on this machine's processes and on a Ray cluster of two nodes, in turn; what a kill costs there.

Command: python tests/cluster_figures.py [ROUNDS]

The teacher is the painter's oil at 256x256, 96 pairs in 12 shards, two workers in both cases. Starting Ray's nodes is
not counted; starting the stage, joining the cluster and the actors' start are.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml
from processes import gone, wait_until
from ray_toy import Toy, cluster, make_toy

CROPS = {"size": 256, "train_crops": 32, "held_out_crops": 32, "min_scale": 0.5}
PAIRS = CROPS | {"recolour": 0.5, "occlude": 0.0, "expose": 0.0, "seed": 0}


def prepare(toy: Toy, address: str) -> None:
    """params.yaml for one run, and nothing left of the one before."""
    toy.set_params(cluster=address, workers=2, shard_size=8, batch_size=4)
    raw = yaml.safe_load((toy.folder / "params.yaml").read_text())
    block = raw["students"]["tiny"]
    block["teacher"] = {"kind": "painter", "name": "oil", "version": 1, "style": "oil"}
    block["pairs"] = PAIRS
    (toy.folder / "params.yaml").write_text(yaml.safe_dump(raw))
    shutil.rmtree(toy.folder / "data/students", ignore_errors=True)
    shutil.rmtree(toy.folder / "data/.work", ignore_errors=True)
    toy.forget()


def timed(toy: Toy) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    code, said = toy.run()
    assert code == 0, said
    return time.perf_counter() - started


def killed(toy: Toy) -> tuple[float, int, int]:
    """Seconds of a run that is killed half-way and goes on, the shards kept, and the pairs asked for twice."""
    started = time.perf_counter()
    process = toy.start()
    wait_until(lambda: len(toy.finished()) >= 6, timeout_s=300)
    process.kill()
    process.communicate()
    wait_until(lambda: all(gone(int(note[1])) for note in toy.noted("loaded")))
    kept = len(toy.finished())
    assert toy.run()[0] == 0
    seeds = [note[2] for note in toy.noted("begun")]
    return time.perf_counter() - started, kept, len(seeds) - len(set(seeds))


def main() -> None:
    """Print a line for every run."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with cluster() as nodes, tempfile.TemporaryDirectory() as folder:
        nodes.add()
        toy = make_toy(Path(folder) / "toy")
        made = []
        for _ in range(rounds):
            for what, address in (("here", ""), ("cluster", nodes.address)):
                prepare(toy, address)
                print(f"{what}: {timed(toy):.1f} s", flush=True)
                made.append(toy.made())
        prepare(toy, nodes.address)
        seconds, kept, twice = killed(toy)
        print(f"cluster, killed with {kept} of 12 shards made: {seconds:.1f} s in all, {twice} pairs asked for twice")
        assert all(one == made[0] for one in [*made, toy.made()])


if __name__ == "__main__":
    main()
