"""The driver of a Ray cluster, in a process of its own (started by tasks/cluster.py): hands out shards, writes them.

Cuts the crops of each shard, sends them to an actor (tasks/cluster_actor.py) and writes the answers here, so that
nothing but this process touches the disk. A shard lies with one actor at a time; if that is lost, the shard goes to
another. It speaks to the stage in JSON messages: connected, alive, made NAME, note TEXT, failed TEXT, done.
"""

import json
import os
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import models
import tasks
from models.errors import TryAgain, UserError
from models.teachers.pinned import places
from tasks.cluster_actor import ShardMaker, installed, pack_job
from tasks.pictures import Pixels
from tasks.shards import Answers, Job, cut, write_shard
from tasks.stage import die_with_parent, one_line

AHEAD = 2  # shards that an actor holds: one in work and one waiting, so that it never idles and memory stays bounded
LOSSES = 3  # actors that one shard may cost, or each actor's start, before it is taken for the cause
PLACE_S = 120.0  # for a first actor to find a free place
HOPELESS_S = 10.0  # the same where no node is big enough, even an idle one
PIECE = 1 << 26  # bytes of a teacher's file in one object of the store


@dataclass(slots=True, kw_only=True, eq=False)
class Actor:
    """One process on the cluster, and the shards it holds, oldest first."""

    handle: Any
    stage: str  # hello: without a place yet; load; make
    call: Any = None  # the answer that `hello` and `load` will give
    held: dict[Any, tuple[Job, Pixels | None]] = field(default_factory=dict)  # by the answer that will come


def drive(
    pipe: Connection, jobs: Sequence[Job], address: str, gpus: float, workers: int, log: Path, stage: int
) -> None:
    """The process: join the cluster, make the jobs, say how it went. Ray's own words go to `log`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage answers Ctrl-C and ends this process
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    die_with_parent(stage, signal.SIGKILL)  # SIGTERM is Ray's; the cluster ends the actors of a driver that is gone

    def tell(what: str, text: str = "", again: bool = False) -> None:
        pipe.send_bytes(json.dumps({"what": what, "text": text, "again": again}).encode())

    try:
        _join(address, gpus, log.with_suffix(".code"))
        tell("connected")
        for what, text in Crew(jobs, gpus, workers).work():
            tell(what, text)
        tell("done")
    except (UserError, OSError) as error:
        tell("failed", one_line(error), isinstance(error, TryAgain))


def _join(address: str, gpus: float, code: Path) -> None:
    """Become a driver of the cluster; the code travels with us, so that nodes run what we run."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    # Without a share of a GPU an actor must not see any: it would take memory that others count on.
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    shutil.rmtree(code, ignore_errors=True)
    copy_code(code)
    # As Ray's working_dir the code comes before what a node may hold itself.
    environment = {"working_dir": str(code), "env_vars": {"OMP_NUM_THREADS": "1", **hidden}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        raise UserError(f"the Ray cluster at {address} cannot be joined: {told}") from None
    shutil.rmtree(code)


def copy_code(folder: Path) -> None:
    """Put into a folder what nodes need of us: no data, no environment, and no libraries of the browser's."""
    for package in (tasks, models):
        target = folder / package.__name__
        shutil.copytree(package.__path__[0], target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))


class Crew:
    """The actors and what is still to be made."""

    def __init__(self, jobs: Sequence[Job], gpus: float, workers: int) -> None:
        self.waiting = deque(jobs)
        self.gpus, self.workers = gpus, workers
        self.settings = dict(jobs[0].teacher)
        self.files: Mapping[str, Any] = {}
        self.actors: list[Actor] = []
        self.losses: Counter[str] = Counter()  # by shard; "" is an actor's start
        self.heard = time.monotonic()

    def work(self) -> Iterator[tuple[str, str]]:
        """Make every shard; yields what there is to tell the stage, at least every second."""
        import ray

        yield from self._store_files()
        self.heard = time.monotonic()
        while self.waiting or any(actor.held for actor in self.actors):
            self._hire()
            self._hand_out()
            calls = {call: actor for actor in self.actors for call in [actor.call, *actor.held] if call is not None}
            ready, _ = ray.wait(list(calls), timeout=1.0)
            for call in ready:
                yield from self._hear(calls[call], call)
            self._check_patience()
            yield "alive", ""

    def _store_files(self) -> Iterator[tuple[str, str]]:
        """Put the teacher's files that lie here into the object store, whence each node fetches them once."""
        import ray

        files: dict[str, list[tuple[str, list[Any]]]] = {}
        for place in places(self.settings):
            if not place.is_here and place.revision:
                continue  # a node fetches it from the hub
            where = place.check(f"{self.settings['name']} v{self.settings['version']}")
            yield "alive", ""
            parts = files[place.key] = []
            for path in place.files():
                pieces: list[Any] = []
                parts.append(("" if where.is_file() else path.relative_to(where).as_posix(), pieces))
                with path.open("rb") as file:
                    while piece := file.read(PIECE):
                        pieces.append(ray.put(piece))
                        yield "alive", ""
        self.files = files

    def _hire(self) -> None:
        """Ask for actors, up to `workers` and no more than there are shards; Ray starts them where there is room."""
        import ray

        open_jobs = len(self.waiting) + sum(len(actor.held) for actor in self.actors)
        kind: Any = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(ShardMaker)
        while len(self.actors) < min(self.workers, open_jobs):
            handle = kind.remote()
            self.actors.append(Actor(handle=handle, stage="hello", call=handle.hello.remote()))

    def _hand_out(self) -> None:
        """Every actor's first shard before any actor's second."""
        for depth in range(AHEAD):
            for actor in self.actors:
                if self.waiting and actor.stage == "make" and len(actor.held) == depth:
                    job = self.waiting.popleft()
                    inputs = cut(job)
                    actor.held[actor.handle.make.remote(pack_job(job), inputs)] = job, inputs

    def _hear(self, actor: Actor, call: Any) -> Iterator[tuple[str, str]]:
        """Take an answer of an actor, or its loss."""
        import ray

        if actor not in self.actors:
            return  # lost a moment ago
        self.heard = time.monotonic()
        try:
            answer = ray.get(call)
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours
        except ray.exceptions.RayError as error:
            yield "note", self._lose(actor, error)
            return
        if "refused" in answer:
            raise (TryAgain if answer["again"] else UserError)(answer["refused"])
        if actor.stage == "make":
            job, inputs = actor.held.pop(call)
            write_shard(job, inputs, Answers(**answer))
            yield "made", job.name
        elif actor.stage == "hello":
            _check_versions(answer)
            actor.stage = "load"
            actor.call = actor.handle.load.remote(json.dumps(self.settings), self.files)
        else:
            actor.stage, actor.call = "make", None

    def _lose(self, actor: Actor, error: Exception) -> str:
        """Take back what a lost actor held; a UserError where one shard, or every start, has cost too many."""
        import ray

        with suppress(ray.exceptions.RayError):
            ray.kill(actor.handle)
        self.actors.remove(actor)
        held = [job for job, _ in actor.held.values()]
        self.waiting.extendleft(reversed(held))
        cause = held[0].name if held else ""
        self.losses[cause] += 1
        told = " ".join(str(error).split())[:200]
        if self.losses[cause] >= LOSSES * (1 if cause else self.workers):
            raise UserError(
                f"{self.losses[cause]} processes on the cluster were lost over {cause or 'their start'}, perhaps for "
                f"want of memory ({told}): lower generate.batch_size or raise generate.gpus_per_actor; finished shards "
                "are kept"
            )
        return f"a process on the cluster was lost; {len(held)} shards go to others"

    def _check_patience(self) -> None:
        """A UserError where no actor finds a place."""
        if any(actor.stage != "hello" for actor in self.actors):
            return
        waited = time.monotonic() - self.heard
        if waited < HOPELESS_S:
            return
        nodes = [node["Resources"] for node in _alive_nodes()]
        fits = any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= self.gpus for node in nodes)
        if waited < PLACE_S and fits:
            return
        has = " and ".join(f"{sum(node.get(kind, 0) for node in nodes):g} {kind}" for kind in ("CPU", "GPU"))
        raise UserError(
            f"no node of the cluster {'is free' if fits else 'is big enough'} for an actor of 1 CPU and {self.gpus:g} "
            f"GPU ({len(nodes)} nodes with {has}): add a node, lower generate.gpus_per_actor, or set generate.cluster "
            'to "" to go on on this machine; finished shards are kept'
        )


def _alive_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _check_versions(theirs: Mapping[str, str]) -> None:
    """Refuse a node whose libraries are not ours: its pairs would differ in their last bits."""
    ours = installed()
    for package in sorted(ours.keys() & theirs.keys()):
        if ours[package] != theirs[package]:
            raise UserError(
                f"a node of the cluster has {package} {theirs[package]}, this machine {ours[package]}: give both the "
                "versions of constraints.txt"
            )
