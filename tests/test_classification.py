"""A classifier goes through its stages: from labelled digits and a teacher's answers to a bundle that is judged."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import FOLDER, LOSSES, NAME, made_digits, run, settings

from models.errors import UserError
from tasks.classification import benchmark, bundle, compare, curate, evaluate, generate, lineage, quantise, train
from tasks.classification.evidence import LabelEvidence
from tasks.dataset import dataset
from tasks.evidence_kinds import read_evidence
from tasks.files import read_json, read_jsonl, sha256_file, sha256_folder, write_json
from tasks.gate import decide
from tasks.kinds import stage_of
from tasks.manifest import LabelQuality, verify_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything up to the bundle was made."""
    return made_digits(tmp_path_factory)


@pytest.fixture
def here(own_digits: Path) -> Path:
    """A copy of it to spoil, which is the current folder."""
    return own_digits


def test_the_answers_are_the_teachers_to_the_views(made: Path, repository: Path) -> None:
    from models.classification.teachers import load_teacher

    params = settings(repository)
    teacher = load_teacher(params.classifiers[NAME].teacher.model_dump())
    inputs = np.load(made / "data/datasets/digits/test.inputs.npy")
    logits = np.load(made / FOLDER / "raw/test.logits.npy")
    assert logits.shape == (300, 1, 10)
    np.testing.assert_allclose(logits[:, 0], teacher(inputs), atol=1e-4)
    taught = np.load(made / FOLDER / "raw/train.logits.npy")
    assert taught.shape == (300, 3, 10)
    train_inputs = np.load(made / "data/datasets/digits/train.inputs.npy")
    shown = generate.viewer(
        generate.open_examples(NAME, folder=made / "data/datasets").splits["train"], params.classifiers[NAME], True
    )
    np.testing.assert_allclose(taught[5:9, 2], teacher(shown(np.arange(5, 9), np.full(4, 2))), atol=1e-4)
    assert len(train_inputs) == 300 and not np.allclose(taught[:, 0], taught[:, 1])


def test_the_student_learns_and_its_files_say_the_same(made: Path) -> None:
    quality = read_json(made / FOLDER / "report/quality.json")
    assert quality["teacher"]["accuracy"] > 0.97
    assert quality["student"]["accuracy"] > 2 * quality["baselines"]["majority"]["accuracy"]
    files = {one["file"]: one for one in read_json(made / FOLDER / "exported/exported.json")["files"]}
    assert {"student.fp32.tflite", "student.int8.tflite", "student.fp32.onnx", "student.int8.onnx"} <= set(files)
    for name in ("student.fp32.tflite", "student.fp32.onnx"):
        assert files[name]["parity"]["max_relative"] < 1e-3 and files[name]["parity"]["agreement"] == 1
        assert quality["files"][name]["accuracy"] == quality["student"]["accuracy"]
    assert all(one["gives"] == "logits" for one in files.values())
    curve = read_jsonl(made / FOLDER / "student/curve.jsonl")
    assert {"val_accuracy", "val_agreement", "val_divergence"} <= curve[-1].keys()


def test_the_bundle_says_what_an_app_needs_and_the_gate_judges_it(made: Path, repository: Path) -> None:
    manifest = verify_bundle(made / FOLDER / "bundle")
    assert manifest.task == "image-classification" and manifest.classes == [str(digit) for digit in range(10)]
    assert manifest.phone.output.shape == (1, 10) and isinstance(manifest.phone.quality, LabelQuality)
    assert {one.name for one in manifest.gate.results} >= {"min_accuracy", "max_copied_errors", "max_p90_ms"} - {
        "max_copied_errors"
    }
    card = (made / FOLDER / "bundle/MODEL_CARD.md").read_text()
    assert "tells 10 classes apart" in card and "student.int8.tflite" in card
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(made / FOLDER / "bundle" / manifest.phone.file))
    model.allocate_tensors()
    picture = np.load(made / "data/datasets/digits/test.inputs.npy")[:1].astype(np.float32) / 255
    model.set_tensor(model.get_input_details()[0]["index"], picture)
    model.invoke()
    assert model.get_tensor(model.get_output_details()[0]["index"]).shape == (1, 10)


def test_a_champion_is_measured_on_the_same_examples(here: Path, repository: Path) -> None:
    params = settings(repository)
    found = compare.compare(FOLDER, FOLDER / "bundle", NAME, warmup=1, runs=5, target="local")
    candidate, champion = (read_evidence(found[who]) for who in ("candidate", "champion"))
    assert isinstance(candidate, LabelEvidence) and isinstance(champion, LabelEvidence)
    assert candidate.right == champion.right and candidate.accuracy == champion.accuracy
    assert candidate.timed_with == champion.measured_sha256
    decision = decide(candidate, champion, params.classifiers[NAME].gate)
    gains = {one.name: one.value for one in decision.results if "champion" in one.against}
    assert gains["min_gain_over_champion"] == 0 and gains["min_worst_class_gain"] == 0
    other = read_json(FOLDER / "bundle/manifest.json")
    import shutil

    shutil.copytree(FOLDER / "bundle", "old")
    write_json(Path("old/manifest.json"), other | {"classes": [*other["classes"][:-1], "ten"]})
    with pytest.raises(UserError, match="cannot be compared; give the new one another name"):
        compare.compare(FOLDER, Path("old"), NAME, warmup=1, runs=5, target="local")


def test_equal_work_gives_equal_bytes_and_a_killed_training_goes_on(
    here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import training

    params = settings(repository)
    first = sha256_folder(FOLDER / "student")
    run(params, generate, curate)
    original, steps = training.train_step, 0

    def dies(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 45:
            raise KeyboardInterrupt
        return original(*args)

    import shutil

    shutil.rmtree("data/.work")
    short = params.model_copy(update={"train": params.train.model_copy(update={"checkpoint_every": 20})})
    monkeypatch.setattr(training, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(short, train)
    monkeypatch.setattr(training, "train_step", original)
    run(short, train)
    assert sha256_file(FOLDER / "student/weights.safetensors") == sha256_file(
        here / FOLDER / "student/weights.safetensors"
    )
    assert sha256_folder(FOLDER / "student") == first


def test_generating_goes_on_where_it_was_stopped(here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sha256_folder(FOLDER / "raw")
    monkeypatch.setattr(generate, "BLOCK", 100)
    original, asked = generate.answer, []

    def answer(teacher: Any, shown: Any, rows: Any, *rest: Any) -> None:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(rows[0])
        original(teacher, shown, rows, *rest)

    monkeypatch.setattr(generate, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        run(settings(repository), generate)
    monkeypatch.setattr(generate, "answer", original)
    kept = {path: path.stat().st_mtime_ns for path in Path("data/.work/digits").glob("generate-*/*")}
    assert len(kept) == 4
    run(settings(repository), generate)
    assert sha256_folder(FOLDER / "raw") == before and not list(Path("data/.work/digits").glob("generate-*"))


class Broken:
    """A teacher that says nothing of use."""

    digest, classes, labels = "b" * 64, 10, ()

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def __call__(self, inputs: Any) -> Any:
        return np.resize(self.answers, (len(inputs), np.shape(self.answers)[-1]))


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (np.full((1, 10), np.nan), "logits of 256 of 256 examples are not finite"),
        (np.zeros((1, 7)), "gives logits of 7 classes, and the dataset has 10"),
    ],
)
def test_answers_that_are_none_are_refused(
    here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, answers: Any, says: str
) -> None:
    import models.classification.teachers as teachers

    before = sha256_folder(FOLDER / "raw")
    monkeypatch.setattr(teachers, "load_teacher", lambda settings: Broken(answers))
    with pytest.raises(UserError, match=says):
        run(settings(repository), generate)
    assert sha256_folder(FOLDER / "raw") == before


def test_answers_have_a_budget(here: Path, repository: Path) -> None:
    with pytest.raises(UserError, match=r"take 0 MiB, and pairs.max_mib is 0.001: ask for fewer views"):
        run(settings(repository, **{"pairs.max_mib": 0.001}), generate)


def test_answers_to_another_dataset_are_stale(here: Path, repository: Path) -> None:
    params = settings(repository)
    dataset(NAME, params.datasets[NAME].model_copy(update={"most": 200}))
    for stage, says in (
        (curate, "answers to another dataset"),
        (train, "another dataset"),
        (evaluate, "another dataset"),
    ):
        with pytest.raises(UserError, match=says):
            run(params, stage)


def test_confident_conflicts_with_the_label_are_dropped_from_training_alone(here: Path, repository: Path) -> None:
    labels = np.load("data/datasets/digits/train.labels.npy")
    labels[:5] = (labels[:5] + 1) % 10
    np.save("data/datasets/digits/train.labels.npy", labels)
    record = read_json(Path("data/datasets/digits/dataset.json"))
    record["files"]["train.labels.npy"] = sha256_file(Path("data/datasets/digits/train.labels.npy"))
    write_json(Path("data/datasets/digits/dataset.json"), record)
    run(settings(repository, **{"pairs.max_conflict": 0.8}), curate)
    rejected = read_jsonl(FOLDER / "pairs/rejected.jsonl")
    assert {one["row"] for one in rejected} >= set(range(5)) and {one["split"] for one in rejected} == {"train"}
    assert "the teacher is sure of" in rejected[0]["reason"]
    assert not set(np.load(FOLDER / "pairs/train.rows.npy")) & set(range(5))
    assert read_json(FOLDER / "pairs/yield.json")["train"]["conflict"] == len(rejected)


def test_a_loss_that_teaches_nothing_is_refused_before_the_first_step(here: Path, repository: Path) -> None:
    from models.classification.batches import LabelBatches

    params = settings(repository, **{"train.losses": [{"kind": "labels", "weight": 1.0}, *LOSSES]})
    run(params, train)
    unlabelled = LabelBatches.about

    def about(self: Any, rest: Any) -> Any:
        return {**unlabelled(self, rest), "labels": rest[0] * 0 - 1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelBatches, "about", about)
        changed = settings(repository, **{"train.losses": [{"kind": "labels", "weight": 1.0}], "train.seed": 5})
        with pytest.raises(UserError, match="labels"):
            run(changed, train)


@pytest.mark.parametrize(
    "losses",
    [
        [
            {"kind": "dkd", "alpha": 1.0, "beta": 2.0, "temperature": 4.0, "warmup": 0.1},
            {"kind": "labels", "weight": 1.0},
        ],
        [{"kind": "fitnets", "student": "layer2", "teacher": "layer2", "weight": 1.0}, *LOSSES],
        [{"kind": "mutual", "weight": 1.0, "temperature": 1.0}, {"kind": "labels", "weight": 1.0}],
    ],
)
def test_other_losses_teach_too(here: Path, repository: Path, losses: list[dict[str, Any]]) -> None:
    params = settings(repository, **{"train.losses": losses, "train.steps": 10})
    run(params, train)
    record = read_json(FOLDER / "student/student.json")
    assert record["train"]["losses"] == losses and len(record["final"]) >= 2


CUTS = [({"prune": 0.5, "low_rank": 1.0}, False), ({"prune": 0.0, "low_rank": 0.5}, True)]


@pytest.mark.parametrize(("cut", "factors"), CUTS)
def test_a_cut_teacher_is_trained_again_and_comes_whole_out_of_its_files(
    here: Path, repository: Path, cut: dict[str, Any], factors: bool
) -> None:
    teacher = settings(repository).classifiers[NAME].teacher.model_dump()
    change = {"init": "teacher", "architecture": teacher["architecture"], "cut": cut, "train.steps": 40}
    params = settings(repository, **change)
    run(params, train, quantise, benchmark, evaluate)
    record = read_json(FOLDER / "student/student.json")
    assert record["init"] == "teacher" and record["cut"] == cut and bool(record["ranks"]) == factors
    assert record["parameters"] < 130_000  # the whole teacher has 175,066
    quality = read_json(FOLDER / "report/quality.json")
    assert quality["student"]["accuracy"] > 0.9  # a student from scratch is far from that after so few steps
    assert quality["files"]["student.fp32.tflite"]["accuracy"] == quality["student"]["accuracy"]
    run(settings(repository, **change | {"init": str(FOLDER / "student"), "train.steps": 2}), train)
    assert read_json(FOLDER / "student/student.json")["ranks"] == record["ranks"]  # it is not cut again
    assert read_json(FOLDER / "student/student.json")["parameters"] == record["parameters"]


def test_what_cannot_be_cut_is_one_line(here: Path, repository: Path) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="from scratch has nothing to cut: set init to teacher"):
        settings(repository, **{"cut.prune": 0.5})
    with pytest.raises(UserError, match="init: teacher: its weights are not those of the architecture"):
        run(settings(repository, init="teacher"), train)  # a ResNet-8 is no ResNet-14


def test_an_unknown_module_is_refused_with_the_nearest_names(here: Path, repository: Path) -> None:
    losses = [{"kind": "fitnets", "student": "layer2", "teacher": "layer9", "weight": 1.0}, *LOSSES]
    with pytest.raises(UserError, match="no module 'layer9'.*near: .*layer"):
        run(settings(repository, **{"train.losses": losses}), train)


def test_the_chain_is_checked_and_told(here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import tracking

    told: list[Any] = []
    monkeypatch.setattr(tracking, "log_run", lambda name, facts: told.append((name, facts)))
    run(settings(repository), lineage)
    name, facts = told[0]
    assert name == NAME
    stages = [one.stage for one in facts]
    assert stages == [
        "dataset",
        "generate",
        "curate",
        "train",
        "quantise",
        "benchmark",
        "evaluate",
        "bundle",
        "lineage",
    ]
    assert read_json(FOLDER / "lineage.json")["dataset"]["name"] == NAME
    with (FOLDER / "student/weights.safetensors").open("r+b") as file:
        file.seek(200)
        file.write(b"\0\1\2\3")
    with pytest.raises(UserError, match="has sha256"):
        run(settings(repository), lineage)


def test_stages_are_found_by_the_kind_of_task() -> None:
    assert stage_of("image-classification", "train") is train.train
    with pytest.raises(UserError, match="image-classification has no stage video"):
        stage_of("image-classification", "video")


def test_evidence_of_another_run_is_refused(here: Path, repository: Path) -> None:
    quality = read_json(FOLDER / "report/quality.json")
    quality["evidence"]["pairs"] = "0" * 64
    write_json(FOLDER / "report/quality.json", quality)
    with pytest.raises(UserError, match="measured on other pairs"):
        run(settings(repository), bundle)
    evidence = LabelEvidence.from_json(quality["evidence"])
    assert dataclasses.replace(evidence, pairs=None).pairs is None
