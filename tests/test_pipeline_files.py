"""dvc.yaml, params.yaml, prefect.yaml and the modules in tasks/ tell the same story."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.students import build_student
from tasks.params import load_params
from tasks.pipeline import DATASET, LABEL_STAGES, LABELS, SHARED, STAGES

OF_LABELS = (DATASET, *(f"{stage}{LABELS}" for stage in LABEL_STAGES if stage != DATASET))
LAYOUT = {
    "ingest": "data/inputs",
    "exportability": "data/students/NAME/exportability",
    "generate": "data/students/NAME/raw",
    "curate": "data/students/NAME/pairs",
    "train": "data/students/NAME/student",
    "quantise": "data/students/NAME/exported",
    "detector": "data/students/NAME/detector",
    "benchmark": "data/students/NAME/benchmark",
    "variants": "data/students/NAME/variants",
    "video": "data/students/NAME/video",
    "evaluate": "data/students/NAME/report",
    "bundle": "data/students/NAME/bundle",
    "lineage": "data/students/NAME/lineage.json",
}


@pytest.fixture(scope="module")
def stages(repository: Path) -> dict[str, Any]:
    """Stage -> its body in dvc.yaml."""
    raw = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    return {name: entry.get("do", entry) for name, entry in raw.items()}


@pytest.fixture(scope="module")
def label_stages(stages: dict[str, Any]) -> dict[str, Any]:
    """Stage of a classifier -> its body in dvc.yaml."""
    return {name.removesuffix(LABELS): body for name, body in stages.items() if name in OF_LABELS}


@pytest.fixture(scope="module")
def picture_stages(stages: dict[str, Any]) -> dict[str, Any]:
    """Stage of a student of pictures -> its body in dvc.yaml."""
    return {name: body for name, body in stages.items() if name not in OF_LABELS}


@pytest.fixture(scope="module")
def raw_params(repository: Path) -> Any:
    return yaml.safe_load((repository / "params.yaml").read_text())


def filled(text: str, raw_params: Any, student: str) -> str:
    block = raw_params["students"][student]
    text = text.replace("${key}", student).replace("${item.init}", block["init"])
    text = text.replace("${item.train.replay.pairs}", block["train"]["replay"]["pairs"])
    for section, key in (("ingest", "folder"), ("video", "clips")):
        text = text.replace(f"${{{section}.{key}}}", raw_params[section][key])
    return text


def test_the_stages_are_the_ones_the_flow_runs(stages: dict[str, Any]) -> None:
    assert tuple(stages) == (*STAGES, *OF_LABELS)


def test_stages_are_templated_over_the_students(repository: Path) -> None:
    raw = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    over = {**dict.fromkeys(SHARED), DATASET: "${datasets}", **dict.fromkeys(OF_LABELS[1:], "${classifiers}")}
    for name, entry in raw.items():
        assert entry.get("foreach") == over.get(name, "${students}")


@pytest.mark.parametrize("stage", LABEL_STAGES)
def test_a_classifiers_command_is_that_of_the_same_stage(label_stages: dict[str, Any], stage: str) -> None:
    option = "--name" if stage == DATASET else "--student"
    assert label_stages[stage]["cmd"] == f"python -m tasks.{stage} {option} ${{key}}"
    package = "tasks" if stage == DATASET else "tasks.classification"
    assert find_spec(f"{package}.{stage}") is not None
    assert f"{package.replace('.', '/')}/{stage}.py" in label_stages[stage]["deps"]
    assert [out.replace("${key}", "NAME") for out in label_stages[stage]["outs"]] == [
        "data/datasets/NAME" if stage == DATASET else LAYOUT[stage]
    ]


def test_what_a_classifiers_stages_need_is_there(
    repository: Path, label_stages: dict[str, Any], raw_params: Any
) -> None:
    for name, block in raw_params["classifiers"].items():
        source = raw_params["datasets"][block["dataset"]]["source"]
        made: set[str] = set()
        for stage, entry in label_stages.items():
            key = block["dataset"] if stage == DATASET else name
            words = {"${key}": key, "${item.dataset}": block["dataset"], "${item.source}": source}

            def filled_in(text: str, words: dict[str, str] = words) -> str:
                for word, value in words.items():
                    text = text.replace(word, value)
                return text

            for dependency in map(filled_in, entry["deps"]):
                assert dependency in made or (repository / dependency).exists(), f"{stage} needs {dependency}"
            made |= {filled_in(out) for out in entry["outs"]}
            for parameter in map(filled_in, entry.get("params", [])):
                value = raw_params
                for part in parameter.split("."):
                    assert part in value, f"{stage}: {parameter}"
                    value = value[part]
    keys = {parameter for entry in label_stages.values() for parameter in entry.get("params", [])}
    for block in raw_params["classifiers"].values():
        for key in block.keys() - {"approval", "dataset"}:
            assert f"classifiers.${{key}}.{key}" in keys, key


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_is_the_module_of_the_same_name(picture_stages: dict[str, Any], stage: str) -> None:
    stages = picture_stages
    module = f"python -m tasks.{stage}"
    assert stages[stage]["cmd"] == (module if stage in SHARED else f"{module} --student ${{key}}")
    assert find_spec(f"tasks.{stage}") is not None
    assert f"tasks/{stage}.py" in stages[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_follow_the_layout(picture_stages: dict[str, Any], stage: str) -> None:
    stages = picture_stages
    assert [out.replace("${key}", "NAME") for out in stages[stage]["outs"]] == [LAYOUT[stage]]


def test_every_dependency_exists_or_is_made_by_an_earlier_stage(
    repository: Path, picture_stages: dict[str, Any], raw_params: Any
) -> None:
    for student in raw_params["students"]:
        made: set[str] = set()
        for name, entry in picture_stages.items():
            for dependency in entry["deps"]:
                path = filled(dependency, raw_params, student)
                assert path in made or (repository / path).exists(), f"{name} needs {path}"
            made |= {filled(out, raw_params, student) for out in entry["outs"]}


def test_every_parameter_exists(picture_stages: dict[str, Any], raw_params: Any) -> None:
    for student in raw_params["students"]:
        for name, entry in picture_stages.items():
            for key in entry.get("params", []):
                value = raw_params
                for part in filled(key, raw_params, student).split("."):
                    assert part in value, f"{name}: {key}"
                    value = value[part]


def test_every_section_and_every_key_of_a_student_reaches_a_stage(stages: dict[str, Any], raw_params: Any) -> None:
    keys = {key for entry in stages.values() for key in entry.get("params", [])}
    sections = {key.partition(".")[0] for key in keys}  # generate leaves out what does not change the pairs
    of_no_stage = {"retrain", "drift", "coverage", "written", "profiles"}  # when to make a student, not how
    assert set(raw_params) == sections | of_no_stage
    items = {dependency for entry in stages.values() for dependency in entry["deps"]}
    for block in raw_params["students"].values():
        for key in block.keys() - {"approval", "distil_anyway"}:  # they change no byte
            assert f"students.${{key}}.{key}" in keys or f"${{item.{key}}}" in items, key


def test_the_shipped_students_can_be_built(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    params = load_params()
    assert len(params.students) >= 2
    for block in params.students.values():
        build_student(block.architecture.model_dump(), block.pairs.size)
        assert (Path(block.init) / "student.json").is_file()


def test_prefect_yaml_deploys_the_flow_for_a_student_there_is(repository: Path, raw_params: Any) -> None:
    deployments = yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]
    assert {one["name"] for one in deployments if one.get("schedules")} == {"retrain", "drift"}
    for deployment in deployments:
        path, _, name = deployment["entrypoint"].partition(":")
        assert f"def {name}(" in (repository / path).read_text()
        student = deployment.get("parameters", {}).get("student")
        assert student is None or student in raw_params["students"]
