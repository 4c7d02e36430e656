"""ingest: what is taken, what is set aside and why, what belongs together, and that splits stay."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter
from scenes import clip, encoded, scene

from models.errors import UserError
from tasks import pictures
from tasks.files import read_json
from tasks.ingest import INPUTS, ingest, split_of
from tasks.params import Params, parse_params
from tasks.records import Input, SetAside, read_records
from tasks.sources import LIBRARIES, library_sources
from tasks.stage_params import Split

SHARES = Split(val=0.15, test=0.2)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data/sources below an empty current folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/sources")
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def settings(repository: Path) -> Callable[..., Params]:
    """The shipped params with another ingest section: small pictures, no libraries, equal shares."""

    def change(**values: Any) -> Params:
        raw = yaml.safe_load((repository / "params.yaml").read_text())
        small = {"libraries": [], "min_side": 32, "max_side": 64, "seed": 0, "split": {"val": 0.3, "test": 0.3}}
        raw["ingest"] |= small | values
        return parse_params(raw)

    return change


def fill(folder: Path, count: int = 12) -> None:
    """Enough photos that no split is empty."""
    for seed in range(count):
        (folder / f"photo{seed}.png").write_bytes(encoded(scene(seed)))


def results() -> tuple[dict[str, Input], dict[str, str]]:
    """What ingest wrote, both by origin: inputs, and the reasons of what was set aside."""
    inputs = {one.origin: one for one in read_records(INPUTS / "inputs.jsonl", Input)}
    return inputs, {one.origin: one.reason for one in read_records(INPUTS / "set_aside.jsonl", SetAside)}


def test_each_input_is_written_and_described(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    ingest(settings())
    inputs, set_aside = results()
    assert len(inputs) == 12
    assert not set_aside
    for one in inputs.values():
        pixels = pictures.read_input(INPUTS / "images", one.digest)
        assert pixels.shape == (one.height, one.width, 3) == (51, 64, 3)  # scaled down to max_side
        assert one.licence == "not stated"
        assert one.clip == ""
    summary = read_json(INPUTS / "summary.json")
    assert sum(summary["inputs"].values()) == 12
    assert len(list((INPUTS / "images").iterdir())) == 12


def test_equal_sources_give_equal_bytes(sources: Path, settings: Callable[..., Params]) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in INPUTS.rglob("*") if path.is_file()}

    fill(sources)
    ingest(settings())
    first = content()
    ingest(settings())
    assert content() == first
    assert [path.name for path in Path("data").iterdir() if path.name.startswith(".tmp")] == []


def test_unusable_files_are_set_aside_with_the_reason(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    whole = encoded(scene(50), "JPEG")
    grey = np.repeat(scene(51)[..., :1], 3, axis=2)
    second = Image.fromarray(scene(53))
    bad = {
        "text.jpg": (b"no picture", "broken: not an image"),
        "cut.jpg": (whole[: len(whole) // 2], "broken: cannot be decoded"),
        "cut.png": (encoded(scene(50))[:-400], "broken: cannot be decoded"),
        "empty.png": (b"", "broken: not an image"),
        "tiny.png": (encoded(scene(52, 90, 20)), "tiny: short side is 14 pixels, below min_side 32"),
        "grey.png": (encoded(grey), "grey: mean chroma is 0.00"),
        "levels.png": (encoded(grey[..., 0]), "grey: no colour channels"),
        "moving.gif": (encoded(scene(54), "GIF", save_all=True, append_images=[second]), "animated: 2 frames"),
        "moving.png": (encoded(scene(54), save_all=True, append_images=[second]), "animated: 2 frames"),
        "copy.bmp": (encoded(scene(0), "BMP"), "duplicate: same pixels as folder:"),
        "notes.txt": (b"text", "unknown: neither picture nor video by its name (.txt)"),
        "cut.mp4": (b"\0\0\0\x20ftypisom", "broken: cannot be decoded"),
    }
    for name, (data, _) in bad.items():
        (sources / name).write_bytes(data)
    (sources / "nowhere.png").symlink_to("gone")
    os.mkfifo(sources / "pipe.png")  # opening it would wait for ever
    ingest(settings())
    inputs, set_aside = results()
    # The copy comes first by name, so it is the photo that is set aside.
    assert "folder:copy.bmp" in inputs
    assert set_aside.pop("folder:photo0.png") == "duplicate: same pixels as folder:copy.bmp"
    for name in ("nowhere.png", "pipe.png"):
        assert set_aside.pop(f"folder:{name}") == "unreadable: not a file, or a link to nothing"
    assert set_aside.keys() == {f"folder:{name}" for name in bad if name != "copy.bmp"}
    for origin, reason in set_aside.items():
        assert reason.startswith(bad[origin.removeprefix("folder:")][1])
    assert read_json(INPUTS / "summary.json")["set_aside"]["broken"] == 5


def test_a_file_that_may_not_be_read_is_set_aside(
    sources: Path, settings: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sources)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "photo3.png")
    ingest(settings())
    assert results()[1] == {"folder:photo3.png": "unreadable: no permission to read it"}


def test_near_duplicates_share_a_group_also_mirrored(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    pixels = scene(3)
    (sources / "again.jpg").write_bytes(encoded(pixels, "JPEG", quality=60))
    (sources / "mirrored.png").write_bytes(encoded(pixels[:, ::-1]))
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))
    (sources / "soft.png").write_bytes(encoded(np.asarray(soft)))
    ingest(settings())
    inputs, _ = results()
    alike = [inputs[f"folder:{name}"] for name in ("photo3.png", "again.jpg", "mirrored.png", "soft.png")]
    assert len({one.group for one in alike}) == 1
    assert len({one.split for one in alike}) == 1
    assert len({one.group for one in inputs.values()}) == 12


def test_adding_unrelated_files_moves_no_input(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    ingest(settings())
    before, _ = results()
    (sources / "a").mkdir()
    for seed in range(100, 110):
        (sources / "a" / f"{seed}.png").write_bytes(encoded(scene(seed)))
    ingest(settings())
    after, _ = results()
    assert len(after) == 22
    assert {origin: after[origin] for origin in before} == before


def test_shares_are_about_those_asked_for() -> None:
    splits = [split_of(str(key), 0, SHARES) for key in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.2, abs=0.02)
    assert splits.count("val") / 4000 == pytest.approx(0.15, abs=0.02)


def test_frames_of_a_clip_share_clip_and_group(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    clip(sources / "pan.mp4", [scene(60 + i // 4) for i in range(12)])
    ingest(settings(frames_per_second=1.0))
    inputs, _ = results()
    frames = {origin: one for origin, one in inputs.items() if "pan.mp4" in origin}
    assert list(frames) == [f"folder:pan.mp4#{seconds}.000" for seconds in range(3)]
    assert len({(one.clip, one.group, one.split) for one in frames.values()}) == 1
    assert next(iter(frames.values())).clip


def test_licence_notes_come_from_the_nearest_source_json(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources)
    for folder in ("a/b/c", "a/d"):
        (sources / folder).mkdir(parents=True)
        (sources / folder / "x.png").write_bytes(encoded(scene(70 + len(folder))))
    (sources / "a/SOURCE.json").write_text(json.dumps({"origin": "me", "licence": "CC0"}))
    (sources / "a/b/SOURCE.json").write_text(json.dumps({"origin": "you", "licence": "MIT"}))
    (sources / "README.md").write_text("no input")
    (sources / ".hidden.png").write_bytes(encoded(scene(80)))
    ingest(settings())
    inputs, set_aside = results()
    assert not set_aside
    assert inputs["folder:a/b/c/x.png"].licence == "MIT (you)"
    assert inputs["folder:a/d/x.png"].licence == "CC0 (me)"
    (sources / "a/SOURCE.json").write_text('{"origin": "me"}')
    with pytest.raises(UserError, match=r"a/SOURCE\.json must be"):
        ingest(settings())
    assert len(read_records(INPUTS / "inputs.jsonl", Input)) == len(inputs)  # the old output stays whole


def test_linked_folders_are_visited_once_and_never_in_a_circle(
    sources: Path, settings: Callable[..., Params], tmp_path: Path
) -> None:
    fill(sources)
    (tmp_path / "outside.png").write_bytes(encoded(scene(92)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.png").write_bytes(encoded(scene(90)))
    (elsewhere / "back").symlink_to(sources.resolve())
    (sources / "real").mkdir()
    (sources / "real" / "near.png").write_bytes(encoded(scene(91)))
    for name, target in {"a-link": "real", "self": ".", "up": "../..", "one": elsewhere, "two": elsewhere}.items():
        (sources / name).symlink_to(target)
    ingest(settings())
    inputs, set_aside = results()
    assert {origin for origin in inputs if "photo" not in origin} == {"folder:real/near.png", "folder:one/far.png"}
    assert not set_aside


def test_empty_and_missing_folders_say_what_to_do(sources: Path, settings: Callable[..., Params]) -> None:
    with pytest.raises(UserError, match=r"no inputs: put photos or videos into data/sources"):
        ingest(settings())
    with pytest.raises(UserError, match=r"ingest\.folder: there is no folder data/gone"):
        ingest(settings(folder="data/gone"))
    (sources / "only.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"all 1 files were set aside \(1 broken\)"):
        ingest(settings())
    assert not INPUTS.exists()


def test_an_empty_split_is_refused(sources: Path, settings: Callable[..., Params]) -> None:
    fill(sources, 1)
    with pytest.raises(UserError, match=r"add photos to data/sources, or change ingest\.seed"):
        ingest(settings())
    assert not INPUTS.exists()


def test_the_shipped_settings_split_the_library_photographs_sensibly(sources: Path, repository: Path) -> None:
    ingest(parse_params(yaml.safe_load((repository / "params.yaml").read_text())))
    inputs, set_aside = results()
    assert len(inputs) == 11
    assert not set_aside
    names: dict[str, set[str]] = {}
    for origin, one in inputs.items():
        names.setdefault(one.split, set()).add(Path(origin).stem)
    assert inputs["library:scikit-image/motorcycle_left.png"].group == (
        inputs["library:scikit-image/motorcycle_right.png"].group
    )
    special = {"retina", "ihc", "hubble_deep_field"}
    assert len(names["test"] - special) >= 2
    assert names["val"] - special
    assert len(names["train"]) >= 6
    assert names["train"] & {"astronaut", "chelsea"}
    assert all(one.licence for one in inputs.values())


def test_library_photographs_are_all_installed() -> None:
    assert sum(len(library_sources(name)) for name in LIBRARIES) == 11
