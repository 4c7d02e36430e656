"""generate on a Ray cluster of two real nodes: the local engine's bytes whatever dies, and one line where it fails."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import gone, wait_until
from ray_toy import PAIRS, SHARD, Nodes, Toy, cluster, make_toy

from models.errors import UserError
from models.teachers.folders import folder_sha256
from tasks import cluster as engine
from tasks.cluster_driver import AHEAD, copy_code
from tasks.params import load_params

pytestmark = pytest.mark.server
SHARDS = PAIRS // SHARD


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster() as started:
        yield started


@pytest.fixture
def second(nodes: Nodes) -> Iterator[Any]:
    """A second node beside the head, for this test alone, which may kill it."""
    node = nodes.add()
    yield node
    nodes.remove(node)


@pytest.fixture
def toy(tmp_path: Path, nodes: Nodes) -> Toy:
    made = make_toy(tmp_path)
    made.set_params(cluster=nodes.address)
    return made


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local engine makes."""
    toy = make_toy(tmp_path_factory.mktemp("local"))
    toy.set_params(workers=1)
    assert toy.run()[0] == 0
    return toy.made()


def pids(toy: Toy) -> set[int]:
    return {int(note[1]) for note in toy.noted("loaded")}


def asked(toy: Toy) -> Counter[str]:
    """How often the teachers on the cluster were asked for each pair, by its seed."""
    return Counter(note[2] for note in toy.noted("begun"))


def lives(group: int) -> bool:
    """Whether anything is left of a process group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_same_bytes_as_here_and_one_teacher_an_actor(toy: Toy, second: Any, local: dict[str, str]) -> None:
    toy.set_mode("together")
    code, said = toy.run()
    assert code == 0, said
    assert toy.made() == local
    loaded = toy.noted("loaded")
    assert len(loaded) == 2 and len({note[0] for note in loaded}) == 2  # one actor on each node
    assert asked(toy) == dict.fromkeys(asked(toy), 1) and len(asked(toy)) == PAIRS
    assert {note[0] for note in toy.noted("begun")} == {note[0] for note in loaded}
    for path in toy.notes.glob("loaded@*-ray"):  # they ran the code that was sent to them, in its own folder
        assert str(toy.folder) not in path.read_text()
    assert {note[2] for note in loaded} == {""}  # no actor sees a GPU
    wait_until(lambda: all(gone(pid) for pid in pids(toy)))
    assert not list(toy.folder.glob("data/.work/tiny/generate-*"))
    assert all(line.startswith("generate tiny: ") for line in said) and "Ray" not in "".join(said), said


def test_a_node_killed_half_way_loses_and_doubles_nothing(
    toy: Toy, nodes: Nodes, second: Any, local: dict[str, str]
) -> None:
    toy.set_mode("together")
    (toy.notes / f"hold-{second.node_id}").touch()
    process = toy.start()
    wait_until(lambda: any(note[0] == second.node_id for note in toy.noted("begun")) and len(toy.finished()) >= 2)
    nodes.kill(second)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert toy.made() == local
    twice = {seed for seed, times in asked(toy).items() if times > 1}
    held = {note[2] for note in toy.noted("begun") if note[0] == second.node_id}
    assert len(asked(toy)) == PAIRS and twice == held and len(held) == SHARD
    assert "generate: a process on the cluster was lost; " in said


def test_a_driver_killed_and_run_again_goes_on(toy: Toy, second: Any, local: dict[str, str]) -> None:
    toy.set_mode("together")
    (toy.notes / f"hold-{second.node_id}").touch()
    process = toy.start()
    wait_until(lambda: any(note[0] == second.node_id for note in toy.noted("begun")) and len(toy.finished()) >= 3)
    (toy.notes / "hold").touch()
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: all(gone(pid) for pid in pids(toy)))
    kept, before = toy.finished(), asked(toy)
    toy.forget()
    code, said = toy.run()
    assert code == 0, said
    assert f"generate tiny: going on; {len(kept)} of {SHARDS} shards are there" in said
    assert toy.made() == local
    assert len(asked(toy)) == PAIRS - SHARD * len(kept)  # what was finished is not asked for again
    again = set(asked(toy)) & set(before)
    assert SHARD <= len(again) <= 2 * AHEAD * SHARD  # of each actor the shard in work, and one on its way to the disk


def test_ctrl_c_is_one_line_and_leaves_no_process(toy: Toy, second: Any) -> None:
    (toy.notes / "hold").touch()
    process = toy.start()
    wait_until(lambda: len({note[0] for note in toy.noted("begun")}) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[1:] == ["generate: stopped; run again to go on from here"]
    wait_until(lambda: all(gone(pid) for pid in pids(toy)))
    wait_until(lambda: not lives(process.pid))


def test_what_a_teacher_says_arrives_as_one_line_and_is_not_tried_again(toy: Toy) -> None:
    toy.set_mode("broken")
    code, said = toy.run()
    assert code == 1
    assert "teacher tiny v1 fails on input" in said[-1] and "ValueError: no paint left" in said[-1]
    assert len(said) == 2 and len(pids(toy)) == 1
    assert max(asked(toy).values()) == 2  # with its batch, and then alone to find which input it is


def test_a_shard_that_ends_every_process_is_named(toy: Toy) -> None:
    toy.set_mode("die")
    code, said = toy.run()
    assert code == 1
    assert "3 processes on the cluster were lost over shard-0000" in said[-1] and "batch_size" in said[-1]
    assert len(pids(toy)) == 3


def test_the_code_that_is_sent_is_ours_alone(tmp_path: Path) -> None:
    copy_code(tmp_path)
    assert (tmp_path / "tasks" / "generate.py").exists() and (tmp_path / "models" / "teachers" / "painter.py").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "tasks"]
    assert not list(tmp_path.rglob("node_modules"))  # 150 MB, where `make browser` was run
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 30e6


def test_gpus_where_there_are_none(toy: Toy, nodes: Nodes) -> None:
    toy.shorten("cluster_driver.py", "HOPELESS_S", 1.0)
    toy.set_params(cluster=nodes.address, gpus_per_actor=0.5)
    code, said = toy.run()
    assert code == 1 and len(said) == 2
    assert "no node of the cluster is big enough for an actor of 1 CPU and 0.5 GPU" in said[-1]


def test_two_actors_share_a_gpu(toy: Toy, nodes: Nodes, local: dict[str, str]) -> None:
    node = nodes.add(num_cpus=2, num_gpus=1)
    try:
        toy.set_params(cluster=nodes.address, gpus_per_actor=0.5)
        toy.set_mode("together")
        assert toy.run()[0] == 0
        assert [[note[0], note[2]] for note in toy.noted("loaded")] == [[node.node_id, "0"]] * 2
        assert toy.made() == local
    finally:
        nodes.remove(node)


def test_an_address_that_nobody_answers(toy: Toy, free_port: int) -> None:
    toy.shorten("cluster.py", "CONNECT_S", 8.0)
    toy.set_params(cluster=f"127.0.0.9:{free_port}")
    code, said = toy.run()
    assert code == 1
    assert f"no Ray cluster answers at 127.0.0.9:{free_port} within" in said[-1] and "ray start --address" in said[-1]
    assert len(said) == 2


@pytest.mark.slow  # Ray's core takes a minute to give up a cluster
def test_the_whole_cluster_lost_is_one_line(tmp_path: Path, local: dict[str, str]) -> None:
    toy = make_toy(tmp_path)
    with cluster() as own:
        second = own.add()
        toy.set_params(cluster=own.address)
        toy.set_mode("together")
        (toy.notes / f"hold-{second.node_id}").touch()
        process = toy.start()
        wait_until(lambda: any(note[0] == second.node_id for note in toy.noted("begun")) and len(toy.finished()) >= 2)
        own.lose()
        _, said = process.communicate(timeout=280)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("generate: ") and "finished shards are kept" in said.splitlines()[-1]
    toy.set_params(workers=1)
    code, lines = toy.run()
    assert code == 0 and any("going on; " in line for line in lines)
    assert toy.made() == local


@pytest.mark.slow  # every process that loads a pipeline of diffusers takes 10 s to import it
def test_a_folder_of_files_reaches_the_nodes(toy: Toy, nodes: Nodes) -> None:
    from tiny_diffusers import save

    folder = save(toy.folder / "painted", "img2img")
    pin = {"kind": "diffusers", "name": "painted", "version": 1, "model": "painted", "sha256": folder_sha256(folder)}
    pin |= {"size": 0, "call": {"prompt": "a", "strength": 0.5, "num_inference_steps": 2}}
    toy.set_params(pin, workers=1)
    code, said = toy.run()
    assert code == 0, said
    local = toy.made()
    toy.set_params(pin, workers=1, cluster=nodes.address)
    code, said = toy.run()
    assert code == 0, said
    assert toy.made() == local and len(toy.noted("loaded")) == 1


def test_without_ray(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    settings = load_params(repository / "params.yaml").generate
    job: Any = object()
    with pytest.raises(UserError, match=r"Ray is not installed: pip install -c constraints\.txt '\.\[ray\]'"):
        next(engine.on_cluster([job], settings, tmp_path / "log"))
