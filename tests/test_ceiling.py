"""What limits a student, by students that differ in one thing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.students import build_student
from tasks import ceiling
from tasks.params import changed_student, load_params


def test_a_wider_student_has_twice_the_channels(repository: Path) -> None:
    block = yaml.safe_load((repository / "params.yaml").read_text())["students"]["oil"]
    wide = ceiling.wider(block["architecture"])
    assert wide["encoder"] == "patches2_32_64_128_192_se" and wide["decoder_channels"] == [128, 64, 32]
    counts = [
        sum(one.numel() for one in build_student(each, 64).parameters()) for each in (block["architecture"], wide)
    ]
    assert 3 < counts[1] / counts[0] < 4.2
    timm = ceiling.wider(block["architecture"] | {"encoder": "mobilenetv3_small_050"})
    assert timm["encoder"] == "mobilenetv3_small_050"


def test_every_change_fits_the_block(repository: Path) -> None:
    block = load_params(repository / "params.yaml").student("oil")
    made = {
        label: changed_student(block, change, label)
        for label, change in ceiling.changes(block.model_dump(), 100).items()
    }
    assert list(made) == [ceiling.OWN, *ceiling.STANDS_FOR]
    assert made["twice the steps"].train.steps == 200 and made[ceiling.HALF] == made[ceiling.OWN]
    assert made["the pixel loss alone"].train.losses == {"pixel": 1.0}


EFFECTS = {ceiling.OWN: [0.7], "twice as wide": [0.72], "the pixel loss alone": [0.71], "twice the steps": [0.69]}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({ceiling.HALF: [0.695]}, "capacity limits it most (+0.020): take wider layers"),
        ({ceiling.HALF: [0.6]}, "data limits it most (+0.100): add inputs"),
        ({ceiling.HALF: [0.695], "twice the steps": [0.8]}, "steps limits it most (+0.100)"),
        ({ceiling.HALF: [0.7], "twice as wide": [0.7], "the pixel loss alone": [0.6]}, "none of these limits it"),
    ],
)
def test_what_gains_most_is_what_limits(change: dict[str, list[float]], verdict: str) -> None:
    told = ceiling.judge(EFFECTS | change)
    assert told["verdict"].startswith(verdict)
    assert set(told["gains"]) == {"capacity", "loss", "steps", "data"}
    assert ceiling.to_table(told | {"teacher_to_itself": None}).count("\n") == 2 + len(EFFECTS | change)


def test_what_gains_with_one_seed_alone_limits_nothing() -> None:
    """Of which seed it is, is chance."""
    found = {
        ceiling.OWN: [0.698, 0.708],
        "twice as wide": [0.740, 0.721],
        "the pixel loss alone": [0.679, 0.617],
        "twice the steps": [0.691, 0.795],
        ceiling.HALF: [0.706, 0.705],
    }
    told = ceiling.judge(found)
    assert told["verdict"].startswith("capacity limits it most (+0.028)")
    table = ceiling.to_table(told | {"teacher_to_itself": None})
    assert "| twice the steps | 0.743 | steps | +0.040 (-0.007 to +0.087) |" in table
    assert ceiling.judge(found | {"twice as wide": [0.740, 0.707]})["verdict"].startswith("none of these")


def test_students_are_made_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    made: list[tuple[dict[str, Any], float]] = []

    def make(params: Any, name: str, block: Any, share: float) -> Path:
        made.append((block.model_dump(), share))
        return Path(str(len(made)))

    monkeypatch.setattr(ceiling, "train_apart", make)
    monkeypatch.setattr(ceiling, "measure", lambda folder, pairs: {"explained_effect": 0.1 * int(str(folder))})
    monkeypatch.setattr(ceiling, "teacher_to_itself", lambda pairs: 0.93)
    monkeypatch.chdir(repository)
    ceiling.ceiling("oil", tmp_path / "out", 40, [3])
    assert [share for _, share in made] == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert [block["train"]["steps"] for block, _ in made] == [40, 40, 40, 80, 40]
    assert {block["train"]["seed"] for block, _ in made} == {3}
    table = (tmp_path / "out/ceiling.md").read_text()
    assert "| twice the steps | 0.400 | steps | +0.300 |" in table
    assert "| the teacher, with another seed | 0.930 | the ceiling |" in table
