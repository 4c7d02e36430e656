"""tasks/compare.py: candidate and champion on the same pairs, in LiteRT, with bundles as they ship."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluate import SIZE, make_workspace
from tiny_litert import affine_bytes, relu6_bytes

from models.errors import UserError
from tasks import bundle as bundling
from tasks.compare import compare, write_comparison
from tasks.evidence import Evidence
from tasks.files import read_json, sha256_bytes, write_json
from tasks.gate import decide
from tasks.manifest import verify_bundle
from tasks.params import load_params

PHONE = "student.int8.tflite"
REPOSITORY = Path(__file__).parent.parent
PARITY = {"max_abs": 0.0, "psnr_db": None, "worst_psnr_db": None}


def make_exported(folder: Path, weights_sha256: str) -> list[dict[str, Any]]:
    """exported/: LiteRT files of the map 0.5 x + 0.25, which is the teacher, and nearly it."""
    folder.mkdir(parents=True)
    records = []
    for precision, shift in (("fp32", 0.25), ("int8", 0.26)):
        data = affine_bytes(0.5, shift, (1, SIZE, SIZE, 3))
        file = f"student.{precision}.tflite"
        (folder / file).write_bytes(data)
        record = {"file": file, "runtime": "litert", "precision": precision, "sha256": sha256_bytes(data)}
        records.append(record | {"bytes": len(data), "layout": "NHWC", "parity": PARITY})
    write_json(folder / "exported.json", {"student": weights_sha256, "files": records})
    return records


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose student `oil` has been evaluated and bundled."""
    root = tmp_path_factory.mktemp("workspace")
    make_workspace(root, make_exported)
    params = load_params(REPOSITORY / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        bundling.bundle(params, "oil", params.students["oil"])
    return root


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of it."""
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


STUDENT = Path("data/students/oil")
CHAMPION = Path("champion")


def make_champion(data: bytes) -> str:
    """A bundle in CHAMPION with this file for phones, of another teacher and other pairs; the file's sha256."""
    shutil.copytree(STUDENT / "bundle", CHAMPION)
    (CHAMPION / PHONE).write_bytes(data)
    manifest = read_json(CHAMPION / "manifest.json")
    entry = next(one for one in manifest["files"] if one["file"] == PHONE)
    entry.update(sha256=sha256_bytes(data), bytes=len(data))
    manifest["digests"]["pairs"] = manifest["digests"]["teacher"]["digest"] = "0" * 64
    write_json(CHAMPION / "manifest.json", manifest)
    return sha256_bytes(data)


def both() -> tuple[Evidence, Evidence]:
    found = compare(STUDENT, CHAMPION, warmup=1, runs=5)
    return Evidence.from_json(found["candidate"]), Evidence.from_json(found["champion"])


def explained(output: Callable[[np.ndarray], np.ndarray]) -> float:
    """The pooled explained effect by its formula."""
    x, y = (np.load(STUDENT / f"pairs/test.{side}.npy") / 255 for side in ("inputs", "targets"))
    return 1 - float(np.square(output(x) - y).sum() / np.square(x - y).sum())


def test_both_are_measured_on_the_candidates_pairs(workspace: Path) -> None:
    sha256 = make_champion(affine_bytes(0.7, 0.15, (1, SIZE, SIZE, 3)))
    candidate, champion = both()
    assert champion.explained_effect == pytest.approx(explained(lambda x: 0.7 * x + 0.15), abs=1e-4)
    assert candidate.explained_effect == pytest.approx(explained(lambda x: 0.5 * x + 0.26), abs=1e-4)
    assert (champion.pairs, champion.teacher) == (candidate.pairs, candidate.teacher) == ("d" * 64, "e" * 64)
    assert [(one.name, one.count, one.change) for one in champion.photos] == [
        (one.name, one.count, one.change) for one in candidate.photos
    ]
    assert champion.measured_sha256 == champion.shipped_sha256 == candidate.timed_with == sha256
    assert candidate.measured_sha256 == candidate.shipped_sha256 == champion.timed_with
    assert champion.colour_affine_explained == candidate.colour_affine_explained
    assert champion.file_bytes == (CHAMPION / PHONE).stat().st_size
    assert champion.p90_ms > 0 and candidate.p90_ms > 0
    assert champion.flicker < 0.01 and champion.structure_kept > 0.999


def test_the_gate_sees_which_is_better(workspace: Path) -> None:
    make_champion(affine_bytes(0.7, 0.15, (1, SIZE, SIZE, 3)))
    candidate, champion = both()
    rules = load_params(REPOSITORY / "params.yaml").students["oil"].gate
    about_champion = ("same_file", "same_reference", "min_gain_over_champion", "min_worst_slice_gain")
    forth = {one.name: one for one in decide(candidate, champion, rules).results}
    back = {one.name: one for one in decide(champion, candidate, rules).results}
    assert all(forth[name].passed for name in about_champion)
    assert [name for name in about_champion if not back[name].passed] == list(about_champion[2:])
    assert forth["max_p90_over_champion"].value is not None


def test_a_champion_of_another_size_has_pictures_resized(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = SIZE // 2
    make_champion(affine_bytes(0.5, 0.25, (1, half, half, 3)))
    _, champion = both()
    # The pictures are blocks of 8 pixels, of which resizing softens the edges.
    assert 0.7 < champion.explained_effect < 0.999
    assert champion.sharpness_ratio < 0.7
    assert f"takes {half} pixels: pictures are resized from {SIZE} and back" in capsys.readouterr().out


def test_without_a_champion_it_is_timed_alone(workspace: Path) -> None:
    found = compare(STUDENT, None, warmup=1, runs=5)
    assert found["champion"] is None
    candidate = Evidence.from_json(found["candidate"])
    assert 0 < candidate.p90_ms < 2.0 and candidate.timed_with is None  # its benchmark says 2.0
    assert 0 < found["undisturbed"] <= 1
    assert candidate.shipped_sha256 == candidate.measured_sha256
    assert candidate.bundle_mib == sum(one.bytes for one in verify_bundle(STUDENT / "bundle").files) / 2**20


def test_a_report_of_another_file_is_seen_by_the_gate(workspace: Path) -> None:
    quality = read_json(STUDENT / "report/quality.json")
    quality["evidence"]["measured_sha256"] = "0" * 64
    write_json(STUDENT / "report/quality.json", quality)
    candidate = Evidence.from_json(compare(STUDENT, None, warmup=1, runs=5)["candidate"])
    rules = load_params(REPOSITORY / "params.yaml").students["oil"].gate
    assert "000000000000 was measured" in decide(candidate, None, rules).reason


def other_pairs() -> None:
    record = read_json(STUDENT / "pairs/pairs.json")
    for path, key in (("pairs/pairs.json", "digest"), ("student/student.json", "pairs")):
        write_json(STUDENT / path, read_json(STUDENT / path) | {key: "f" * 64})
    assert record["digest"] != "f" * 64


def no_evidence() -> None:
    quality = read_json(STUDENT / "report/quality.json")
    del quality["evidence"]
    write_json(STUDENT / "report/quality.json", quality)


@pytest.mark.parametrize(
    ("data", "damage", "says"),
    [
        (b"no model at all", lambda: None, "cannot compare with the champion at champion: .*no model that LiteRT"),
        (relu6_bytes((1, SIZE, SIZE, 4)), lambda: None, "cannot compare with the champion at champion: .*one float32"),
        (affine_bytes(float("nan"), 0.0, (1, SIZE, SIZE, 3)), lambda: None, "cannot compare .*gives no picture"),
        (relu6_bytes(), lambda: (CHAMPION / PHONE).write_bytes(b"x"), "has sha256"),
        (relu6_bytes(), lambda: (CHAMPION / "manifest.json").unlink(), "missing champion/manifest.json"),
        (relu6_bytes(), lambda: shutil.rmtree(CHAMPION), "no bundle at champion"),
        (relu6_bytes(), lambda: (STUDENT / "bundle" / PHONE).write_bytes(b"x"), "has sha256"),
        (relu6_bytes(), lambda: shutil.rmtree(STUDENT / "bundle"), "no bundle at data"),
        (relu6_bytes(), other_pairs, "not of one run"),
        (relu6_bytes(), no_evidence, "does not fit this version"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    workspace: Path, data: bytes, damage: Callable[[], Any], says: str
) -> None:
    make_champion(data)
    damage()
    with pytest.raises(UserError, match=says) as caught:
        both()
    assert "\n" not in str(caught.value)


def test_the_file_is_written_whole_or_not_at_all(workspace: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", workspace)
    make_champion(affine_bytes(0.7, 0.15, (1, SIZE, SIZE, 3)))
    write_comparison("oil", CHAMPION, Path("made/comparison.json"))
    found = json.loads(Path("made/comparison.json").read_text())
    assert sorted(found) == ["candidate", "champion", "undisturbed"]
    assert Evidence.from_json(found["champion"]).explained_effect
    for student, champion, says in (
        ("oil", "absent", "no bundle at absent"),
        ("oill", "champion", "no student 'oill'"),
    ):
        with pytest.raises(UserError, match=says):
            write_comparison(student, Path(champion), Path("other.json"))
        assert not Path("other.json").exists()


def test_its_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.compare", "--out", "x"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "--student" in done.stderr
