"""The search: what it draws, that it finds, prunes, refuses and goes on; with costs and trainings that are formulas.

tests/test_search_killed.py has real ones.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from test_train import write_repository

from models.errors import TryAgain, UserError
from tasks import mlflow_client, search
from tasks.files import read_json
from tasks.params import load_params
from tasks.search import Asked
from tasks.search_result import best, best_by_latency
from tasks.search_space import SPACE, Space, architecture_of, encoder_of, geometric, losses_of, own_point, read_space
from tasks.search_trial import built
from tasks.student_params import Architecture
from tasks.train import train

OUT = Path("data/students/oil/search")
OWN = {"encoder": "patches4_8_16", "decoder_channels": [8], "skip": "add", "upsample": "bilinear"}
TINY: dict[str, Any] = {
    "encoders": ["patches4_8_16", "patches2_8_16", "patches8_8_16"],
    "width": {"low": 0.5, "high": 2.0, "step": 0.5},
    "levels": {"low": 2, "high": 3, "step": 1},
    "left_out": {"low": 0, "high": 1, "step": 1},
    "deepest": {"low": 8, "high": 32, "step": 8},
    "finest": {"low": 8, "high": 32, "step": 8},
    "losses": {"low": 0.5, "high": 2.0},
    "trials": 20,
    "steps": 27,
    "random_trials": 5,
    "halving": {"reduction": 3, "rungs": 3},
}
TOLD = search.told_in_mlflow
SAMPLES = np.zeros((1, 64, 64, 3), np.uint8)


def write_space(folder: Path, **changes: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return path


def effect(architecture: Mapping[str, Any]) -> float:
    """The planted optimum: patches of 2 and a decoder that ends in 24 channels."""
    away = abs(architecture["decoder_channels"][-1] - 24) / 8
    return 0.9 - 0.1 * away - 0.2 * (not architecture["encoder"].startswith("patches2"))


def cost(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds by the decoder's channels; patches of 8 cannot be exported."""
    if architecture["encoder"].startswith("patches8"):
        return {"refused": "stem (conv2d) is taken by no delegate"}
    figures = {"mega_macs": 1.0, "bytes": 1024, "parameters": 1000}
    mine = sum(architecture["decoder_channels"]) / 8
    return {"p50_ms": mine, "p90_ms": mine, "reference_p50_ms": 1.0, "reference_p90_ms": 1.0, **figures}


@pytest.fixture
def _quick_commits() -> Iterator[None]:
    """Nothing in a test outlives a power cut: a commit of SQLite need not wait for the disk."""
    from sqlalchemy import Engine, event

    def relax(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


@pytest.fixture
def planted(_quick_commits: None, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The current folder: pairs, params.yaml, a space, formulas for what takes long. The trainings that were begun."""
    write_repository(tmp_path, repository)
    raw = yaml.safe_load((tmp_path / "params.yaml").read_text())
    raw["students"]["oil"]["architecture"] = OWN | {"head": "pixel-shuffle"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    write_space(tmp_path)
    monkeypatch.chdir(tmp_path)
    begun: list[int] = []

    def learned(params: Any, name: str, block: Any, checkpoint: Path, *, every: int, watch: Callable[..., None]) -> Any:
        begun.append(int(checkpoint.stem.rpartition("-")[2]))
        final, steps = effect(block.architecture.model_dump()), block.train.steps
        training = SimpleNamespace(curve=[])
        for step in range(every, steps + 1, every):
            training.curve.append({"step": step, "val_explained_effect": final - 0.1 * (steps - step) / steps})
            watch(training, {})
        return final, training.curve

    def score(name: str, student: float) -> tuple[dict[str, float], bytes]:
        kept = io.BytesIO()
        np.save(kept, SAMPLES)
        return {"explained_effect": student, "sharpness_ratio": 1.0, "chroma_ratio": 1.0}, kept.getvalue()

    monkeypatch.setattr(search, "cost_of", lambda params, block, folder, is_own: cost(block.architecture.model_dump()))
    monkeypatch.setattr(search, "learned", learned)
    monkeypatch.setattr(search, "score", score)
    monkeypatch.setattr(search, "told_in_mlflow", lambda study, work: "")
    return begun


def look(**asked: Any) -> None:
    search.search("oil", Asked(space=Path("space.yaml"), **asked))


def trials() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(OUT / "search.json")["trials"]
    return rows


def test_a_planted_better_point_is_found(planted: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    look(trials=24, max_p90_ms=20.0, write=True)
    told, rows = read_json(OUT / "search.json"), trials()
    assert [row["trial"] for row in rows] == list(range(24))
    assert rows[0]["own"] and rows[0]["quality"]["explained_effect"] == pytest.approx(0.5)
    choice = rows[told["choice"]]
    assert choice["quality"]["explained_effect"] == pytest.approx(0.9)
    assert choice["architecture"]["encoder"].startswith("patches2")
    assert choice["front"] and not any(row["front"] for row in rows if row["state"] != "finished")
    states = {row["state"] for row in rows}
    assert states == {"finished", "pruned", "refused"}
    assert all(row["reason"] for row in rows if row["state"] != "finished")
    assert {row["reason"] for row in rows if row["cost"] and "refused" in row["cost"]} >= {
        "stem (conv2d) is taken by no delegate"
    }
    assert all(len(row["rungs"]) < 9 for row in rows if row["state"] == "pruned")
    # TPE keeps away from what is refused: fewer of the later trials are.
    refused = [row["state"] == "refused" for row in rows]
    assert sum(refused[12:]) < sum(refused[:12])
    out = capsys.readouterr().out
    assert "explained effect 0.900" in out and "the block's own has 0.500" in out
    for picture in ("front.png", "samples.png"):
        assert (OUT / picture).read_bytes().startswith(b"\x89PNG")
    assert (OUT / "index.html").read_text().count("<tr") == 1 + 24

    # What was written loads, is what the block says, and trains.
    params = load_params()
    block = params.student("oil")
    pasted = yaml.safe_load((OUT / "params.block.yaml").read_text())
    assert block.architecture.model_dump() == pasted["architecture"] == choice["architecture"]
    assert block.train.model_dump() == pasted["train"] and block.train.losses == choice["losses"]
    assert block.train.steps == 30  # the search's own length is not taken over
    train(params, "oil", block)
    assert read_json(Path("data/students/oil/student/student.json"))["architecture"] == choice["architecture"]


def test_the_same_search_draws_the_same(planted: list[int], tmp_path: Path) -> None:
    look(trials=8)
    first = [(row["point"], row["state"]) for row in trials()]
    [folder] = Path("data/.work/oil").glob("search-*/")
    folder.rename(tmp_path / "away")
    look(trials=5)
    look(trials=8)
    assert [(row["point"], row["state"]) for row in trials()] == first


def test_a_trial_that_was_cut_off_goes_on(
    planted: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look(trials=6)
    whole = [(row["point"], row["state"], row["rungs"]) for row in trials()]
    [folder] = Path("data/.work/oil").glob("search-*/")
    (folder / "study.db").unlink()
    planted.clear()
    plain, died = search.learned, [False]

    def dying(*args: Any, watch: Callable[..., None], **named: Any) -> Any:
        def watch_and_die(training: Any, line: Any) -> None:
            watch(training, line)
            if len(planted) == 2 and not died[0]:
                died[0] = True
                raise KeyboardInterrupt

        return plain(*args, watch=watch_and_die, **named)

    monkeypatch.setattr(search, "learned", dying)
    with pytest.raises(KeyboardInterrupt):
        look(trials=6)
    look(trials=6)
    assert [(row["point"], row["state"], row["rungs"]) for row in trials()] == whole
    assert "going on with trial" in capsys.readouterr().err
    assert len(planted) - 1 == len(set(planted))  # one was begun twice, none that had ended
    before = len(planted)
    look(trials=6)
    assert len(planted) == before


def test_everything_over_budget_is_one_line(planted: list[int]) -> None:
    with pytest.raises(UserError, match=r"no trial of 4 keeps the budget of 0\.5 ms on local \(the fastest, trial \d"):
        look(trials=4, max_p90_ms=0.5)
    assert planted == []  # nothing was trained
    assert read_json(OUT / "search.json")["choice"] is None
    assert (OUT / "index.html").exists() and not (OUT / "params.block.yaml").exists()


def test_a_picture_too_soft_is_no_choice(planted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    good = search.score

    def soft(name: str, student: Any) -> Any:
        figures, pictures = good(name, student)
        return dict(figures, sharpness_ratio=0.2), pictures

    monkeypatch.setattr(search, "score", soft)
    with pytest.raises(UserError, match=r"limits of quality .*sharpness 0\.20 is not in 0\.7 to 1\.3"):
        look(trials=3)
    assert trials()[0]["state"] == "outside"


def test_a_slower_machine_is_reckoned_out(planted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    speed = iter(range(1, 100))

    def slowing(params: Any, block: Any, folder: Path, is_own: bool) -> dict[str, Any]:
        found, times = cost(block.architecture.model_dump()), next(speed)
        return {key: value * times if key.endswith("_ms") else value for key, value in found.items()}

    monkeypatch.setattr(search, "cost_of", slowing)
    look(trials=8)
    costs = [row["cost"] for row in trials() if row["cost"] and "p90_ms" in row["cost"]]
    assert costs[-1]["measured_p90_ms"] > costs[-1]["p90_ms"]
    for row in trials():
        if row["cost"] and "p90_ms" in row["cost"]:
            assert row["cost"]["p90_ms"] == pytest.approx(sum(row["architecture"]["decoder_channels"]) / 8)


def test_another_space_is_another_study(planted: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(trials=2)
    assert "a new study" not in capsys.readouterr().err
    write_space(tmp_path, finest={"low": 8, "high": 16, "step": 8}, trials=3)
    look(trials=2)
    assert "a new study" in capsys.readouterr().err
    assert len(list(Path("data/.work/oil").glob("search-*/"))) == 2
    write_space(tmp_path, finest={"low": 8, "high": 16, "step": 8})  # for how long is no part of a space
    look(trials=2)
    assert len(list(Path("data/.work/oil").glob("search-*/"))) == 2


def test_the_same_point_is_not_trained_twice(planted: list[int], tmp_path: Path) -> None:
    one = {"low": 8, "high": 8, "step": 8}
    same = {"encoders": ["patches4_8_16"], "finest": one, "deepest": one, "losses": {"low": 1.0, "high": 1.0}}
    same |= {"levels": {"low": 2, "high": 2, "step": 1}, "left_out": {"low": 0, "high": 0, "step": 1}}
    write_space(tmp_path, **same)
    look(trials=9)
    assert len(trials()) == 9
    assert len(planted) == len({row["architecture"]["encoder"] for row in trials()}) < 5
    assert any("the same as trial" in row["reason"] for row in trials())


def test_a_training_that_diverges_is_refused(planted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = search.learned

    def diverging(params: Any, name: str, block: Any, *args: Any, **named: Any) -> Any:
        if block.architecture.encoder == OWN["encoder"]:
            raise UserError("the loss is nan at step 3")
        return plain(params, name, block, *args, **named)

    monkeypatch.setattr(search, "learned", diverging)
    look(trials=8)
    assert trials()[0]["state"] == "refused" and trials()[0]["reason"] == "the loss is nan at step 3"


def test_time_is_a_budget_too(planted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(search.time, "monotonic", lambda: float(next(clock)))
    look(trials=30, minutes=2.0)
    assert 1 <= len(trials()) < 5


@pytest.mark.parametrize("asked", [{"trials": 0}, {"steps": -1}, {"max_p90_ms": 0.0}, {"minutes": 0.0}])
def test_a_budget_of_nothing_is_refused(planted: list[int], asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be more than 0"):
        look(**asked)


def test_the_best_of_each_class_of_latency() -> None:
    def row(trial: int, over: float, effect: float, state: str = "finished") -> dict[str, Any]:
        cost = {"p90_ms": over, "over_reference": over}
        return {"trial": trial, "state": state, "cost": cost, "quality": {"explained_effect": effect}}

    rows = [row(0, 1.0, 0.6), row(1, 0.4, 0.5), row(2, 0.5, 0.4), row(3, 1.2, 0.9, "outside"), row(4, 2.0, 0.7)]
    assert best_by_latency(rows) == {"0.5": 1, "1": 0, "more": 4}
    assert best(rows) == rows[4] and best([*rows, row(5, 1.9, 0.7)]) == row(5, 1.9, 0.7) and best([]) is None


def test_the_shipped_space_holds_the_default(repository: Path) -> None:
    block = next(iter(load_params(repository / "params.yaml").students.values()))
    space = read_space(SPACE)
    point = own_point(space, block)
    assert point and architecture_of(point, block.architecture) == block.architecture
    assert losses_of(point, block.train.losses) == block.train.losses
    narrow = space.model_copy(update={"encoders": ["patches4_32_64_96"]})
    assert own_point(narrow, block) is None


@pytest.mark.parametrize(
    ("point", "encoder"),
    [
        ({"encoder": "patches2_16_32_64_96", "width": 1.0, "levels": 4}, "patches2_16_32_64_96"),
        ({"encoder": "patches2_16_32_64_96", "width": 1.0, "levels": 3}, "patches2_16_32_64"),
        ({"encoder": "patches2_16_32_64_96", "width": 1.0, "levels": 5}, "patches2_16_32_64_96_128"),
        ({"encoder": "patches2_16_32_64_96", "width": 0.75, "levels": 4}, "patches2_16_24_48_72"),
        ({"encoder": "patches2_16_32_64_96_se", "width": 0.5, "levels": 3}, "patches2_8_16_32_se"),
        ({"encoder": "patches4_12_20", "width": 1.0, "levels": 2}, "patches4_12_20"),
        ({"encoder": "patches8_64", "width": 0.01, "levels": 2}, "patches8_8_8"),
        ({"encoder": "mobilenetv4_conv_small_050"}, "mobilenetv4_conv_small_050"),
    ],
)
def test_encoders_of_points(point: dict[str, Any], encoder: str) -> None:
    assert encoder_of(point) == encoder


def test_decoders_of_points(repository: Path) -> None:
    assert geometric(96, 32, 4) == [96, 64, 48, 32]
    assert geometric(64, 16, 3) == [64, 32, 16] and geometric(64, 16, 1) == [16]
    own = Architecture.model_validate(OWN | {"head": "pixel-shuffle"})
    point = {"encoder": "mobilenetv4_conv_small_050", "left_out": 1, "deepest": 96, "finest": 48}
    assert architecture_of(point, own).decoder_channels == [96, 64, 48]
    shallow = {"encoder": "patches4_8_16", "width": 1.0, "levels": 2, "left_out": 1, "deepest": 8, "finest": 8}
    with pytest.raises(UserError, match="leaves the decoder no level"):
        architecture_of(shallow, own)


def test_encoders_that_cannot_be_had_say_why(repository: Path) -> None:
    block = load_params(repository / "params.yaml").student("oil")
    point = {"encoder": "nfnet_f0s", "left_out": 0, "deepest": 32, "finest": 16}
    with pytest.raises(UserError, match="timm has no model"):
        architecture_of(point, block.architecture)
    for encoder, says in (("levit_128s", "levit_128s cannot be built"), ("crossvit_tiny_240", "not a multiple of 17")):
        one = architecture_of(point | {"encoder": encoder}, block.architecture)
        with pytest.raises(UserError, match=says):
            built(block.model_copy(update={"architecture": one}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"finest": {"low": 8, "high": 4, "step": 4}}, "finest: .*high must be low plus some steps"),
        ({"width": {"low": 0.5, "high": 1.0, "step": 0.3}}, "width: .*some steps"),
        ({"losses": {"low": 2.0, "high": 1.0}}, "losses: .*less than low"),
        ({"encoders": []}, "encoders"),
        ({"encoders": ["patches4_8", "patches4_8"]}, "named twice"),
        ({"encoders": ["mobilenetv9"]}, "timm has no model 'mobilenetv9'"),
        ({"depth": 3}, "depth: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        read_space(write_space(tmp_path, **changes))
    assert "\n" not in str(refused.value)


def test_a_space_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_space(tmp_path / "none.yaml")
    assert Space.model_validate(TINY).trials == 20


@pytest.mark.server
def test_each_trial_is_a_run_in_mlflow_once(
    planted: list[int], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "told_in_mlflow", TOLD)
    look(trials=5)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_client.tracking_uri())
    experiment = client.get_experiment_by_name("oil").experiment_id

    def runs() -> tuple[Any, dict[str, Any]]:
        found = client.search_runs([experiment])
        [parent] = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert len(found) == 1 + len(children)
        return parent, {run.data.tags["trial.number"]: run for run in children}

    parent, children = runs()
    rows = trials()
    assert list(map(int, sorted(children))) == [row["trial"] for row in rows]
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert parent.data.metrics["search/explained_effect"] == pytest.approx(best(rows)["quality"]["explained_effect"])
    for row in rows:
        run = children[str(row["trial"])]
        assert run.data.tags["trial.state"] == row["state"] and run.data.tags["trial.reason"] == row["reason"]
        if row["rungs"]:
            curve = client.get_metric_history(run.info.run_id, "trial/val_explained_effect")
            assert [{"step": one.step, "explained_effect": one.value} for one in curve] == row["rungs"]
            assert run.data.params["architecture.encoder"] == row["architecture"]["encoder"]
    check_names(repository, parent, children)

    # Killed while the last one was written, then run again: the same runs, and that one whole.
    client.set_terminated(children["4"].info.run_id, "KILLED")
    look(trials=5)
    again, others = runs()
    assert again.info.run_id == parent.info.run_id and len(others) == 5
    assert others["4"].info.run_id != children["4"].info.run_id and others["4"].info.status == "FINISHED"
    assert all(others[key].info.run_id == children[key].info.run_id for key in others if key != "4")


def check_names(repository: Path, parent: Any, children: Mapping[str, Any]) -> None:
    """mlflow/tags.yaml and metrics.yaml list what there is."""
    tags = yaml.safe_load((repository / "mlflow" / "tags.yaml").read_text())
    metrics = yaml.safe_load((repository / "mlflow" / "metrics.yaml").read_text())["search"]
    used = {name for run in children.values() for name in run.data.tags if not name.startswith("mlflow.")}
    assert used == set(tags["trial"])
    assert {name for name in parent.data.tags if not name.startswith("mlflow.")} == set(tags["search"])
    found = {name for run in (parent, *children.values()) for name in run.data.metrics}
    assert found == set(metrics)


def test_a_search_goes_on_without_mlflow(planted: list[int], monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setattr(search, "told_in_mlflow", TOLD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TryAgain, match="does not answer"):
        look(trials=3)
    assert len(trials()) == 3 and (OUT / "params.block.yaml").exists()
