"""Stage video on files and teachers whose flicker is known beforehand."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageSequence
from scenes import clip, scene
from test_evaluate import SIZE, make_exported, make_pairs, make_student
from tiny_onnx import affine_bytes

from models.errors import UserError
from tasks import video as stage
from tasks.evidence import Evidence
from tasks.files import read_json, sha256_bytes, sha256_file, write_json
from tasks.params import load_params
from tasks.phone import with_video

OUT = Path("data/students/oil/video")
GENAI = {"kind": "genai", "name": "costly", "version": 1, "model": "gemini-2.5-flash-image", "call": {"prompt": "x"}}
GENAI |= {"calls_per_minute": 60, "max_calls": 1, "price_per_call": 0.04, "max_cost": 1.0}


@pytest.fixture
def here(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose student halves the contrast, as its teacher does; the "int8" file is a little lighter."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/students/oil"
    make_pairs(folder / "pairs", tmp_path / "data/inputs/inputs.jsonl")
    make_student(folder / "student")
    make_exported(folder / "exported", read_json(folder / "student/student.json")["weights_sha256"])
    (tmp_path / "clips").mkdir()
    params = yaml.safe_load((repository / "params.yaml").read_text())
    params["video"] |= {"photos": 2, "frames": 3, "clips": "clips", "clip_frames": 4}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    teach(0.5)
    return tmp_path


def teach(gain: float) -> None:
    """Another teacher: gain x + 0.25."""
    data = affine_bytes(gain, 0.25, shape=(1, 3, SIZE, SIZE))
    Path("teacher.onnx").write_bytes(data)
    about = {"kind": "onnx", "name": "affine", "version": 1, "path": "teacher.onnx", "sha256": sha256_bytes(data)}
    change(teacher=about)


def change(teacher: dict[str, Any] | None = None, **video: Any) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["video"] |= video
    if teacher:
        params["students"]["oil"]["teacher"] = teacher
    Path("params.yaml").write_text(yaml.safe_dump(params))


def run() -> dict[str, Any]:
    params = load_params()
    stage.video(params, "oil", params.student("oil"))
    found: dict[str, Any] = read_json(OUT / "video.json")
    return found


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as opened:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]


def test_a_student_that_is_its_teacher_flickers_as_much(here: Path) -> None:
    found = run()
    assert list(found["flicker"]) == ["camera", "jitter", "noise"]
    for ratios in found["over_teacher"].values():
        assert ratios == {"float": 1.0, "phone": pytest.approx(1.0, abs=1e-3)}
    noise = found["flicker"]["noise"]
    assert noise["input"] == pytest.approx(3.0, rel=0.05) and noise["phone"] == pytest.approx(noise["input"] / 2, 1e-3)
    assert found["flicker"]["camera"]["phone"] < 0.1
    assert found["phone"] == sha256_file(here / "data/students/oil/exported/student.fp32.onnx")  # no LiteRT here
    assert (found["pairs"], found["teacher"], found["without_teacher"], found["clips"]) == ("d" * 64, "e" * 64, "", 0)


def test_a_calmer_teacher_makes_the_ratio(here: Path) -> None:
    teach(0.4)
    noise = run()
    over = noise["over_teacher"]["noise"]["phone"]
    assert over == pytest.approx(0.5 / 0.4, rel=1e-3)
    teach(0.0)  # a flat picture: below a level nobody can tell
    noise = run()
    assert noise["flicker"]["noise"]["teacher"] == 0.0
    assert noise["over_teacher"]["noise"]["phone"] == noise["flicker"]["noise"]["phone"]


def test_the_clip_shows_input_teacher_and_student_of_a_still(here: Path) -> None:
    found = run()["clip"]
    assert found == {"of": "still", "frames": 4, "panels": 3, "width": 3 * SIZE + 2 * stage.GAP, "height": SIZE}
    frames = frames_of(OUT / "clip.webp")
    with Image.open(OUT / "clip.png") as poster:
        first = np.asarray(poster)
    assert len(frames) == 4 and {frame.shape for frame in frames} == {first.shape}
    left, middle, right = first[:, :SIZE], first[:, SIZE + stage.GAP : 2 * SIZE + stage.GAP], first[:, -SIZE:]
    assert np.abs(left * 0.5 + 0.25 * 255 - middle).max() < 1 and (middle == right).all()
    assert np.abs(frames[0].astype(float) - first).mean() < 6  # it is WebP, with loss
    assert np.abs(frames[0].astype(float) - frames[2]).mean() > 5


def test_run_again_it_gives_the_same_bytes_and_leaves_nothing_else(here: Path) -> None:
    run()
    before = {path.name: path.read_bytes() for path in OUT.iterdir()}
    (OUT / "stray").write_text("of a run that was killed")
    run()
    assert {path.name: path.read_bytes() for path in OUT.iterdir()} == before
    assert before.keys() == {"video.json", "clip.webp", "clip.png"}


def test_a_costly_teacher_is_not_asked_unless_it_is_wished(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(teacher=GENAI)
    found = run()
    assert "genai teacher's pictures cost" in found["without_teacher"] and "costly_teachers" in found["without_teacher"]
    assert all(one["teacher"] is None and one["phone"] is not None for one in found["flicker"].values())
    assert all(one == {"float": None, "phone": None} for one in found["over_teacher"].values())
    assert found["clip"]["panels"] == 2 and frames_of(OUT / "clip.webp")[0].shape == (SIZE, 2 * SIZE + stage.GAP, 3)
    asked: list[Any] = []

    def paid(pictures: np.ndarray, seeds: list[int]) -> np.ndarray:
        asked.append(set(seeds))
        return pictures.astype(np.float32) / 255

    monkeypatch.setattr(stage, "load_teacher", lambda settings: paid)
    change(costly_teachers=True)
    assert run()["over_teacher"]["noise"]["phone"] == pytest.approx(0.5, abs=1e-3)
    assert asked == [{stage.SEED}] * (2 * (1 + 3 * 3) + 4)


def test_a_teacher_that_gives_no_picture_leaves_no_ratio(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "load_teacher", lambda settings: lambda x, seeds: np.full(x.shape, np.nan, np.float32))
    found = run()
    assert found["without_teacher"] == "the teacher did not make a picture of every frame"
    assert found["flicker"]["camera"]["teacher"] is None and found["clip"]["panels"] == 2


def test_no_photos_leave_the_stage_out(here: Path) -> None:
    change(photos=0)
    found = run()
    assert found["flicker"] == found["over_teacher"] == {} and found["clip"] is None
    assert found["without_teacher"] == "video.photos is 0" and [path.name for path in OUT.iterdir()] == ["video.json"]


def test_videos_are_measured_and_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = scene(3, 128, 96)
    clip(here / "clips/b.mp4", [np.roll(big, 2 * at, axis=1) for at in range(6)])
    clip(here / "clips/c-short.mp4", [big, big])
    (here / "clips/a-broken.mp4").write_bytes(b"no video")
    found = run()
    assert found["clips"] == 1 and found["clip"]["of"] == "video" and len(frames_of(OUT / "clip.webp")) == 4
    levels = found["flicker"]["clips"]
    assert 0 < levels["input"] < 6 and levels["phone"] == pytest.approx(levels["input"] / 2, rel=0.1)
    told = capsys.readouterr().err
    assert "a-broken.mp4 is left out: broken" in told and "c-short.mp4 is left out: it has 2 frames, not 4" in told
    change(max_clips=0)
    assert "clips" not in run()["flicker"]


def test_a_folder_that_is_not_there_is_one_line(here: Path) -> None:
    change(clips="nowhere")
    with pytest.raises(UserError, match=r"video\.clips: there is no folder nowhere"):
        run()


def test_files_that_are_not_the_recorded_ones_are_refused(here: Path) -> None:
    (here / "data/students/oil/exported/student.fp32.onnx").write_bytes(
        affine_bytes(0.5, 0.3, shape=(1, 3, SIZE, SIZE))
    )
    with pytest.raises(UserError, match="exported model: .* has sha256"):
        run()
    assert not OUT.exists()


def test_a_clip_keeps_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    large = stage.animated(frames)
    limit = int(0.7 * len(large))
    monkeypatch.setattr(stage, "MAX_CLIP_BYTES", limit)
    small = stage.animated(frames)
    assert len(small) <= limit
    with Image.open(io.BytesIO(small)) as opened:
        assert opened.n_frames == 3


def test_the_gate_judges_the_worst_kind_of_stills(tmp_path: Path) -> None:
    evidence = Evidence(pairs="p", measured_sha256="f")
    ratios = {kind: {"float": 9.0, "phone": value} for kind, value in (("camera", 1.5), ("noise", 0.9), ("clips", 7.0))}
    told = {"pairs": "p", "phone": "f", "over_teacher": ratios, "without_teacher": ""}
    write_json(tmp_path / "video.json", told)
    assert with_video(evidence, read_json(tmp_path / "video.json")).flicker_over_teacher == 1.5
    unknown = told | {"over_teacher": {"camera": {"float": None, "phone": None}}, "without_teacher": "it costs"}
    found = with_video(evidence, unknown)
    assert (found.flicker_over_teacher, found.without_teacher) == (None, "it costs")
    for other in ({"pairs": "q"}, {"phone": "g"}):
        with pytest.raises(UserError, match="other pairs or files"):
            with_video(evidence, told | other)
