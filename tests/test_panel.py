"""panel: what is frozen stays on the test side whatever seed, shares and sources become, and is measured apart."""

# ruff: noqa: F811 - fixtures of other files are arguments here

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import clip, encoded, scene
from test_evaluate import made, read_quality, run  # noqa: F401 - a fixture
from test_ingest import fill, results, settings, sources  # noqa: F401 - fixtures

from models.errors import UserError
from tasks import panel
from tasks.files import read_json, sha256_file, write_json
from tasks.ingest import ingest
from tasks.panel_inputs import PANEL, PanelInput, read_panel, write_panel
from tasks.params import Params
from tasks.records import Input, Verdict, read_records, write_records

Settings = Callable[..., Params]


@pytest.fixture
def frozen(sources: Path, settings: Settings) -> list[PanelInput]:
    """A panel of two groups, a photo's and a clip's, out of twelve photos and a clip."""
    fill(sources)
    clip(sources / "pan.mp4", [scene(60 + i // 4) for i in range(12)])
    ingest(settings())
    inputs, _ = results()
    write_panel([_input(one) for one in inputs.values() if one.split == "test"])
    before = read_panel()
    PANEL.unlink()
    chosen = panel.freeze(settings(), share=1.0, count=None, seed=0)
    assert {one.digest for one in chosen} == {one.digest for one in before}
    return chosen


def _input(one: Input) -> PanelInput:
    return PanelInput(origin=one.origin, file="0" * 64, digest=one.digest, hashes=("0" * 16, "1" * 16))


def sides(chosen: list[PanelInput]) -> set[str]:
    inputs, _ = results()
    return {one.split for one in inputs.values() if one.digest in {frozen.digest for frozen in chosen}}


def test_the_panel_names_inputs_by_what_they_are(frozen: list[PanelInput], sources: Path) -> None:
    inputs, _ = results()
    assert read_panel() == sorted(frozen, key=lambda one: one.origin)
    for one in frozen:
        assert one.digest == inputs[one.origin].digest
        name = one.origin.removeprefix("folder:").partition("#")[0]
        assert one.file == sha256_file(sources / name)


@pytest.mark.parametrize(
    "changed", [{"seed": seed} for seed in range(1, 6)] + [{"split": {"val": 0.45, "test": 0.05}, "seed": 3}]
)
def test_seed_and_shares_do_not_move_it(
    frozen: list[PanelInput],
    settings: Settings,
    changed: dict[str, Any],
) -> None:
    ingest(settings(**changed))
    assert sides(frozen) == {"test"}
    inputs, _ = results()
    others = {one.split for one in inputs.values() if one.digest not in {one.digest for one in frozen}}
    assert {"train", "val"} <= others


def test_new_and_renamed_sources_do_not_move_it(
    frozen: list[PanelInput],
    sources: Path,
    settings: Settings,
) -> None:
    for seed in range(200, 220):
        (sources / f"more{seed}.png").write_bytes(encoded(scene(seed)))
    photo = next(one for one in frozen if "#" not in one.origin)
    name = photo.origin.removeprefix("folder:")
    (sources / name).rename(sources / "zzz.png")
    ingest(settings(seed=4))
    assert sides(frozen) == {"test"}
    assert results()[0]["folder:zzz.png"].digest == photo.digest


def test_what_is_near_it_or_of_its_clip_goes_to_the_test_side(
    frozen: list[PanelInput],
    sources: Path,
    settings: Settings,
) -> None:
    photo = next(one for one in frozen if "#" not in one.origin)
    pixels = scene(int("".join(filter(str.isdigit, photo.origin))))
    for seed in range(6):
        (sources / "near.jpg").write_bytes(encoded(np.ascontiguousarray(pixels[:, ::-1]), "JPEG", quality=40))
        ingest(settings(seed=seed))
        inputs, _ = results()
        assert inputs["folder:near.jpg"].split == "test"
        assert inputs["folder:near.jpg"].group == inputs[photo.origin].group


def test_a_clip_is_frozen_as_a_whole(sources: Path, settings: Settings) -> None:
    fill(sources)
    clip(sources / "pan.mp4", [scene(60 + i // 4) for i in range(12)])
    for seed in range(20):
        ingest(settings(seed=seed))
        inputs, _ = results()
        if inputs["folder:pan.mp4#0.000"].split == "test":
            break
    chosen = panel.freeze(settings(), 1.0, None, 0)
    assert sum("pan.mp4" in one.origin for one in chosen) == 3
    # Frames that were not frozen, as more are sampled now, follow those that were.
    ingest(settings(seed=seed + 1, frames_per_second=2.0))
    frames = [one for one in results()[0].values() if "pan.mp4" in one.origin]
    assert len(frames) > 3 and {one.split for one in frames} == {"test"}


def test_a_missing_or_changed_input_is_named_with_the_way_out(
    frozen: list[PanelInput],
    sources: Path,
    settings: Settings,
) -> None:
    photo = next(one for one in frozen if "#" not in one.origin)
    held = results()[0]
    with pytest.raises(UserError, match="come out as other pictures than were frozen .*ingest.max_side"):
        ingest(settings(max_side=48))
    (sources / photo.origin.removeprefix("folder:")).unlink()
    with pytest.raises(UserError, match=f"1 of {len(frozen)} inputs of the frozen panel are not among.*{photo.origin}"):
        ingest(settings())
    assert results()[0] == held  # what was there stays
    left = panel.drop([photo.origin])
    assert left == read_panel() == [one for one in frozen if one != photo]
    ingest(settings())
    with pytest.raises(UserError, match=r"no input folder:gone\.png in data/panel\.json; there are: folder:"):
        panel.drop(["folder:gone.png"])


def test_a_frozen_panel_is_not_frozen_over(frozen: list[PanelInput], settings: Settings) -> None:
    with pytest.raises(UserError, match="holds a panel already"):
        panel.freeze(settings(), 1.0, None, 0)


@pytest.mark.parametrize(("share", "count"), [(0.0, None), (1.0, 99), (2.0, None)])
def test_a_panel_of_what_is_not_there_is_refused(
    sources: Path,
    settings: Settings,
    share: float,
    count: int | None,
) -> None:
    fill(sources)
    ingest(settings())
    with pytest.raises(UserError, match=r"data/inputs has 1 to \d+ on the test side"):
        panel.freeze(settings(), share, count, 0)
    assert not PANEL.exists()


def test_the_draw_hangs_on_the_seed_alone() -> None:
    names = [f"g{number}" for number in range(30)]
    assert panel.draw_groups(names, 5, 1) == panel.draw_groups([*names[::-1], *names], 5, 1)
    assert len(panel.draw_groups(names, 5, 1)) == 5
    assert panel.draw_groups(names, 5, 1) != panel.draw_groups(names, 5, 2)


def test_check_reads_inputs_and_the_pairs_of_every_student(frozen: list[PanelInput]) -> None:
    kept = Path("data/students/oil/pairs/kept.jsonl")
    verdict = {"pair": "p", "rule": "", "reason": "", "index": 0, "seed": 0, "input": frozen[0].digest}
    write_records(kept, [Verdict(split="test", **verdict)])
    assert "in no training pairs of 1 students" in panel.check()
    write_records(kept, [Verdict(split="val", **verdict)])
    with pytest.raises(UserError, match="of the frozen panel is on the val side: run dvc repro lineage@oil"):
        panel.check()
    kept.unlink()
    inputs = [one for one in read_records(Path("data/inputs/inputs.jsonl"), Input) if one.digest != frozen[0].digest]
    write_records(Path("data/inputs/inputs.jsonl"), inputs)
    with pytest.raises(UserError, match="is not in data/inputs: run dvc repro ingest"):
        panel.check()


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": "other", "inputs": []},
        {"inputs": []},
        [],
        {"schema": "understudy-panel/1", "inputs": [{"origin": "a"}]},
        {"schema": "understudy-panel/1", "inputs": [{"origin": "a", "file": "x", "digest": "y", "hashes": ["1", "2"]}]},
    ],
)
def test_a_damaged_panel_is_one_line(tmp_path: Path, damage: Any) -> None:
    write_json(tmp_path / "panel.json", damage)
    with pytest.raises(UserError, match=r"panel\.json: .*git checkout"):
        read_panel(tmp_path / "panel.json")


def test_the_shipped_panel_is_empty_and_whole(repository: Path) -> None:
    assert (repository / PANEL).is_file()
    assert read_panel(repository / PANEL) == []


def test_the_command_shows_and_refuses_in_one_line(tmp_path: Path, repository: Path) -> None:
    def command(*words: str) -> Any:
        place = {"cwd": tmp_path, "env": {"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"}}
        return subprocess.run(
            [sys.executable, "-m", "tasks.panel", *words], capture_output=True, text=True, check=False, **place
        )

    assert command("show").stdout == "panel: none is frozen in data/panel.json; python -m tasks.panel freeze\n"
    refused = command("check")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


def test_the_report_tells_of_the_panel_apart(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(made.parents[2], root)
    assert read_quality(root / "data/students/oil")["panel"] is None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        test = [one for one in read_records(Path("data/inputs/inputs.jsonl"), Input) if one.split == "test"]
        gone = PanelInput(origin="folder:gone.png", file="1" * 64, digest="2" * 64, hashes=("0" * 16, "0" * 16))
        write_panel([*map(_input, test[:2]), gone])
    run(root)
    quality = read_quality(root / "data/students/oil")
    told, digests = quality["panel"], {one.digest for one in test[:2]}
    own = [one for one in quality["per_sample"] if one["input"] in digests]
    assert (told["inputs"], told["measured"], told["test_samples"]) == (3, 2, len(own)) == (3, 2, 4)
    assert told["missing"] == ["folder:gone.png"]
    assert told["explained_effect_interval"]["photos"] == 2
    error = sum(one["error"] for one in told["photos"])
    change = sum(one["change"] for one in told["photos"])
    assert told["phone"]["explained_effect"] == pytest.approx(1 - error / change, abs=1e-5)
    whole = {one["name"]: one for one in quality["evidence"]["photos"]}
    assert all(whole[one["name"]] == one for one in told["photos"])  # the same sums as in the whole test set
    page = (root / "data/students/oil/report/index.html").read_text()
    assert 'id="panel-table"' in page and "folder:gone.png" in page
    assert read_json(root / "data/panel.json")["schema"] == "understudy-panel/1"
