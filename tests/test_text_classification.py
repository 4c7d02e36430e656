"""A classifier of texts goes through its stages: from labelled texts and a transformer's answers to a judged bundle."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.folders import folder_sha256
from tasks.classification import benchmark, bundle, compare, curate, evaluate, generate, lineage, quantise, train
from tasks.classification.evidence import LabelEvidence
from tasks.classification.params import TextClassifier
from tasks.classification.train_text_teacher import Recipe, make_teacher
from tasks.dataset import dataset
from tasks.dataset_params import LinesDataset
from tasks.evidence_kinds import read_evidence
from tasks.files import read_json, read_jsonl, sha256_file, sha256_folder, write_json
from tasks.kinds import stage_of
from tasks.manifest import Tokens, verify_bundle
from tasks.params import Params, load_params

NAME, FOLDER, TEACHER = "mood", Path("data/students/mood"), Path("teacher")
GOOD, BAD = ("lovely", "brilliant", "moving", "funny"), ("dull", "clumsy", "tedious", "flat")
THINGS = ("film", "plot", "cast", "ending", "music", "script", "camera", "story")
LOSSES = [{"kind": "kd", "temperature": 2.0, "soft": 0.5}]
LONGEST = 16
SOURCE = {"kind": "lines", "source": "lines", "files": {"train": "all.txt"}, "split": {"val": 0.2, "test": 0.25}} | {
    "seed": 0
}


def sentences() -> list[str]:
    """Lines of a label and a text: 1 where more is praised than blamed."""
    random = np.random.default_rng(0)
    lines = set()
    while len(lines) < 240:
        good = int(random.integers(2))
        words = [str(random.choice(GOOD if good else BAD)) for _ in range(2)]
        things = random.choice(THINGS, 2, replace=False)
        lines.add(f"{good} the {things[0]} is {words[0]} and the {things[1]} {random.choice(['is', 'was'])} {words[1]}")
    return sorted(lines)


def settings(repository: Path, **change: Any) -> Params:
    """The shipped params with this classifier alone; `change` by key of its block, joined by dots."""
    params = load_params(repository / "params.yaml")
    digits = params.classifiers["digits"].model_dump()
    tokens = {"by": "teacher", "vocabulary": None, "lowercase": None, "truncate": False}
    shape = {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 64, "dropout": 0.1, "max_tokens": LONGEST}
    block = digits | {
        "task": "text-classification",
        "dataset": NAME,
        "teacher": {"kind": "transformers", "name": "mood-bert", "version": 1, "path": str(TEACHER)}
        | {"sha256": folder_sha256(TEACHER), "max_tokens": LONGEST, "truncate": False},
        "pairs": digits["pairs"] | {"views": 1, "pad": 0},
        "architecture": {"kind": "transformer", **shape, "tokens": tokens},
        "train": digits["train"]
        | {"steps": 60, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.01}
        | {"milestones": [], "losses": LOSSES},
    }
    for key, value in change.items():
        place: Any = block
        *path, last = key.split(".")
        for part in path:
            place = place[part]
        place[last] = value
    short = params.benchmark.model_copy(update={"warmup": 1, "runs": 5, "threads": [1]})
    made = TextClassifier.model_validate(block)
    sources = {NAME: LinesDataset.model_validate(SOURCE)}
    return params.model_copy(update={"datasets": sources, "classifiers": {NAME: made}, "benchmark": short})


def run(params: Params, *stages: Any) -> None:
    for stage in stages:
        getattr(stage, stage.__name__.rpartition(".")[2])(params, NAME, params.classifiers[NAME])


def layers_of(folder: Path, **change: Any) -> dict[str, Any]:
    """An architecture of some layers of a folder."""
    tokens = {"by": "teacher", "truncate": False}
    block = {"kind": "transformer-layers", "path": str(folder), "sha256": folder_sha256(folder), "layers": 1}
    return block | {"max_tokens": LONGEST, "tokens": tokens} | change


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which everything up to the bundle was made."""
    root = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("lines").mkdir()
        Path("lines/all.txt").write_text("\n".join(sentences()) + "\n")
        dataset(NAME, LinesDataset.model_validate(SOURCE))
        shape = {"layers": 2, "hidden": 32, "heads": 2, "vocabulary": 200, "max_tokens": LONGEST}
        make_teacher(NAME, TEACHER, Recipe(**shape, epochs=20, learning_rate=3e-3))
        run(settings(repository), generate, curate, train, quantise, benchmark, evaluate, bundle)
        yield root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to spoil."""
    for name in ("data", "teacher"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(root: Path, split: str) -> list[str]:
    return [one["text"] for one in read_jsonl(root / f"data/datasets/{NAME}/{split}.texts.jsonl")]


def test_the_answers_are_the_teachers(made: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.classification.teachers import load_teacher

    monkeypatch.chdir(made)
    teacher = load_teacher(settings(repository).classifiers[NAME].teacher.model_dump())
    logits = np.load(FOLDER / "raw/test.logits.npy")
    assert logits.shape == (66, 1, 2)
    np.testing.assert_allclose(logits[:, 0], teacher(texts(made, "test")), atol=1e-5)


def test_the_student_learns_and_its_files_say_the_same(made: Path) -> None:
    quality = read_json(made / FOLDER / "report/quality.json")
    assert quality["teacher"]["accuracy"] > 0.9
    assert quality["student"]["accuracy"] > 0.9 > quality["baselines"]["majority"]["accuracy"]
    files = {one["file"]: one for one in read_json(made / FOLDER / "exported/exported.json")["files"]}
    assert list(files) == ["student.fp32.tflite", "student.int8.tflite", "student.fp32.onnx", "student.int8.onnx"]
    for runtime in ("tflite", "onnx"):
        exact, small = (files[f"student.{precision}.{runtime}"] for precision in ("fp32", "int8"))
        assert exact["parity"]["max_relative"] < 1e-3 and exact["parity"]["agreement"] == 1
        assert 0 < small["parity"]["max_relative"] < 0.3 and small["bytes"] < 0.75 * exact["bytes"]
        assert quality["files"][exact["file"]]["accuracy"] == quality["student"]["accuracy"]
        assert quality["files"][small["file"]]["agreement"] > 0.9
    assert {one["file"] for one in quality["int8"]} == {"student.int8.tflite", "student.int8.onnx"}
    times = read_json(made / FOLDER / "benchmark/benchmark.json")["files"]
    assert {one["file"] for one in times} == set(files) and all(one["p50_ms"] > 0 < one["peak_mib"] for one in times)


def test_the_files_take_short_and_padded_rows(made: Path) -> None:
    from models.runtimes import open_model

    ids = np.array([[2, 9, 8, 11, 3]])
    mask = np.ones_like(ids)
    padded = tuple(np.pad(one, ((0, 0), (0, LONGEST - 5)), constant_values=0) for one in (ids, mask))
    found = []
    for name, runtime in (("fp32.tflite", "litert"), ("fp32.onnx", "onnx")):
        model: Any = open_model(made / FOLDER / f"exported/student.{name}", runtime, gives="logits-of-tokens")
        assert model.size == LONGEST == model.example()[0].shape[1]
        found += [model((ids, mask)), model(padded)]
        with pytest.raises(UserError, match="17 tokens, and the file takes 16"):
            model(tuple(np.ones((2, 1, LONGEST + 1), np.int64)))
        with pytest.raises(UserError, match="a student takes and gives one float32 picture"):
            open_model(made / FOLDER / f"exported/student.{name}", runtime)
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], atol=1e-5)


def test_halved_files_say_the_same(here: Path, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    params = settings(repository)
    precisions = params.quantise.precisions.model_copy(update={"litert": ["fp16", "w8a16"], "onnx": ["fp16"]})
    asked = params.quantise.model_copy(update={"precisions": precisions})
    sizes = {one.name: one.stat().st_size for one in (FOLDER / "exported").iterdir()}
    run(params.model_copy(update={"quantise": asked}), quantise)
    assert "w8a16 is not made of classifiers, litert goes without" in capfd.readouterr().err
    for one in read_json(FOLDER / "exported/exported.json")["files"]:
        assert one["parity"]["max_relative"] < 0.01 and one["parity"]["agreement"] == 1
        assert one["bytes"] < 0.9 * sizes[one["file"].replace("fp16", "fp32")]


def test_files_of_pictures_are_none_of_texts(tmp_path: Path) -> None:
    from tiny_onnx import affine_bytes

    from models.runtimes import open_model

    (tmp_path / "model.onnx").write_bytes(affine_bytes(1.0, 0.0))
    with pytest.raises(UserError, match="a text classifier takes ids and mask"):
        open_model(tmp_path / "model.onnx", "onnx", gives="logits-of-tokens")


def test_the_bundle_is_called_with_tokenizers_alone(made: Path) -> None:
    """By the code of the model card, which is all that an app has."""
    folder = made / FOLDER / "bundle"
    manifest = verify_bundle(folder)
    assert manifest.task == "text-classification" and manifest.classes == ["0", "1"]
    assert manifest.tokenizer and manifest.tokenizer.max_tokens == LONGEST
    assert {one.file for one in manifest.loaded} >= {"tokenizer.json", "student.int8.tflite", "student.int8.onnx"}
    takes = manifest.phone.input
    assert isinstance(takes, Tokens) and (takes.shape, takes.dtype, takes.shorter) == ((1, LONGEST), "int32", False)
    blocks = (folder / "MODEL_CARD.md").read_text().split("```")[1::2]
    code = [block.removeprefix("python\n") for block in blocks]
    assert len(code) == 3
    test, labels = texts(made, "test"), np.load(made / f"data/datasets/{NAME}/test.labels.npy")
    right = {"litert": 0, "onnx": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for text, label in zip(test, labels, strict=True):
            told: dict[str, Any] = {"text": text}
            exec(code[0], told)
            for runtime, block in zip(right, code[1:], strict=True):
                exec(block, told)
                right[runtime] += int(told["logits"].argmax()) == label
    quality = read_json(made / FOLDER / "report/quality.json")["files"]
    assert right["litert"] / 66 == pytest.approx(quality["student.int8.tflite"]["accuracy"], abs=1e-5)
    assert right["onnx"] / 66 == pytest.approx(quality["student.int8.onnx"]["accuracy"], abs=1e-5)


def test_another_tokeniser_in_the_bundle_is_found(here: Path) -> None:
    path = FOLDER / "bundle/tokenizer.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"film", b"mlif"))
    with pytest.raises(UserError, match="tokenizer.json has sha256"):
        verify_bundle(FOLDER / "bundle")
    path.write_bytes(data)
    manifest = read_json(FOLDER / "bundle/manifest.json")
    write_json(FOLDER / "bundle/manifest.json", {key: manifest[key] for key in manifest if key != "tokenizer"})
    with pytest.raises(UserError, match="files that take tokens and the tokenizer do not belong together"):
        verify_bundle(FOLDER / "bundle")


def test_the_report_shows_texts(here: Path, repository: Path) -> None:
    work = evaluate.read_work(FOLDER, NAME)
    models = evaluate.open_models(FOLDER, work)
    turned = {name: lambda some, model=model: -model(some) for name, model in models.items()}  # all of it wrong
    found = evaluate.measure_all(turned, work)
    quality = evaluate.summarise(found, work, evaluate.student_evidence(work, found).to_json())
    shutil.rmtree(FOLDER / "report")
    (FOLDER / "report").mkdir()
    evaluate.write_page(FOLDER / "report", NAME, FOLDER, quality, work)
    page = (FOLDER / "report/index.html").read_text()
    assert quality["worst"] and all(work.inputs[one["row"]] in page for one in quality["worst"])
    assert "1 classes" not in page and "2 classes, texts" in " ".join(page.split())


def test_texts_that_are_too_long_are_one_line(here: Path, repository: Path) -> None:
    before = sha256_folder(FOLDER / "raw")
    with pytest.raises(
        UserError, match=r"^teacher mood-bert v1: 240 of 240 texts have more than 5 tokens, the longest"
    ):
        run(settings(repository, **{"teacher.max_tokens": 5}), generate)
    assert sha256_folder(FOLDER / "raw") == before
    with pytest.raises(UserError, match=r"^architecture: 240 of 240 texts have more than 5 tokens, the longest"):
        run(settings(repository, **{"architecture.max_tokens": 5}), train)
    cut = {"by": "teacher", "vocabulary": None, "lowercase": None, "truncate": True}
    change = {"architecture.max_tokens": 5, "architecture.tokens": cut, "train.steps": 3}
    run(settings(repository, **change), train)
    assert read_json(FOLDER / "student/student.json")["tokens"]["max_tokens"] == 5


def test_pictures_are_no_texts(here: Path, repository: Path) -> None:
    digits = load_params(repository / "params.yaml").classifiers["digits"]
    params = settings(repository).model_copy(
        update={"classifiers": {NAME: digits.model_copy(update={"dataset": NAME})}}
    )
    with pytest.raises(UserError, match="image-classification takes images, and dataset mood is of texts"):
        run(params, generate)


def test_a_teacher_that_runs_beside_must_know_the_same_tokens(here: Path, repository: Path) -> None:
    own = {"by": "wordpiece", "vocabulary": 90, "lowercase": True, "truncate": False}
    cosine = [
        {"kind": "hidden-cosine", "student": "model.bert.encoder.layer.0", "weight": 1.0}
        | {"teacher": "model.bert.encoder.layer.1"},
        *LOSSES,
    ]
    change: dict[str, Any] = {"architecture.tokens": own, "architecture.max_tokens": 40, "train.steps": 4}
    with pytest.raises(UserError, match=r"the teacher's tokeniser \(.*\) is not the student's \(.*, 90 tokens\)"):
        run(settings(repository, **change, **{"train.losses": cosine}), train)
    run(settings(repository, **change), train)  # by its logits alone it may
    assert read_json(FOLDER / "student/student.json")["tokens"]["vocabulary"] == 90
    run(settings(repository, **{"train.losses": cosine, "train.steps": 4}), train)
    assert any("cosine" in name for name in read_json(FOLDER / "student/student.json")["final"])


def test_a_student_of_the_teachers_layers_and_one_that_starts_from_a_student(here: Path, repository: Path) -> None:
    run(settings(repository, architecture=layers_of(TEACHER), **{"train.steps": 3}), train)
    record = read_json(FOLDER / "student/student.json")
    assert record["architecture"]["config"]["num_hidden_layers"] == 1
    assert record["tokens"]["sha256"] == sha256_file(TEACHER / "tokenizer.json")
    shutil.copytree(FOLDER / "student", "start")
    run(settings(repository, init="start", architecture=layers_of(TEACHER), **{"train.steps": 3}), train)
    again = read_json(FOLDER / "student/student.json")
    assert again["init"] == record["weights_sha256"] and again["tokens"] == record["tokens"]
    with Path("start/tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="init's tokeniser"):
        run(settings(repository, init="start", architecture=layers_of(TEACHER)), train)


def test_a_teachers_layers_as_factors(here: Path, repository: Path) -> None:
    cut = {"prune": 0.0, "low_rank": 0.5}
    run(settings(repository, architecture=layers_of(TEACHER), cut=cut, **{"train.steps": 3}), train, quantise)
    record = read_json(FOLDER / "student/student.json")
    assert record["ranks"] and all(name.startswith("model.") for name in record["ranks"])
    files = read_json(FOLDER / "exported/exported.json")["files"]
    assert all(one["parity"]["agreement"] == 1 for one in files if one["precision"] == "fp32")
    with pytest.raises(UserError, match="cut.prune: transformers have no channels"):
        run(settings(repository, architecture=layers_of(TEACHER), **{"cut.prune": 0.5}), train)
    with pytest.raises(ValidationError, match="of texts, architecture.kind transformer-layers begins so"):
        settings(repository, init="teacher")


def test_a_student_can_teach(here: Path, repository: Path) -> None:
    shutil.copytree(FOLDER / "student", "old")
    teacher = {"kind": "student", "name": "old", "version": 1, "path": "old", "sha256": folder_sha256(Path("old"))}
    teacher |= {"max_tokens": LONGEST, "truncate": False}
    run(settings(repository, teacher=teacher), generate, curate)
    assert read_json(FOLDER / "pairs/pairs.json")["teacher_name"] == "old"
    own = settings(repository).classifiers[NAME].teacher.model_dump()
    several = {"kind": "several", "name": "both", "version": 1, "mean_of": "probabilities"}
    several["teachers"] = [{"teacher": teacher, "weight": 1.0}, {"teacher": own, "weight": 3.0}]  # type: ignore[assignment]
    before = np.load(FOLDER / "raw/test.logits.npy")
    run(settings(repository, teacher=several), generate)
    assert not np.allclose(np.load(FOLDER / "raw/test.logits.npy"), before)
    own["max_tokens"] = 5
    with pytest.raises(UserError, match="^teacher mood-bert v1: 240 of 240 texts have more than 5 tokens"):
        run(settings(repository, teacher=several), generate)


def test_a_language_model_teaches_and_what_it_refuses_is_left_out(
    here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat_api import KEY, chat_api

    from models.teachers import ledger

    monkeypatch.setattr(ledger, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("UNDERSTUDY_ANSWERS", str(here / "answers"))
    monkeypatch.setenv("UNDERSTUDY_TEST_KEY", KEY)
    long = max(len(text) for split in ("train", "val", "test") for text in texts(here, split))
    kept = sum(len(text) < long for text in texts(here, "train"))
    labels = {"instruction": "Is it praised?", "orders": 1, "votes": 1, "max_characters": long - 1}
    with chat_api() as api:
        model = {"name": "tiny", "version": 3, "model": "tiny-lm", "base_url": api.address, "parallel": 4}
        model |= {"key_variable": "UNDERSTUDY_TEST_KEY", "calls_per_minute": 1e6, "max_calls": 1000}
        model |= {"price_in": 0.0, "price_out": 0.0, "max_cost": 0.0}
        teacher = {"kind": "chat", "api": model, "labels": labels, "classes": {"negative": "", "positive": ""}}
        record = Path(f"data/datasets/{NAME}/dataset.json")
        write_json(record, read_json(record) | {"classes": ["positive", "negative"]})
        with pytest.raises(UserError, match="teacher tiny has its classes in another order than the dataset"):
            run(settings(repository, teacher=teacher), generate)
        assert not api.asked
        write_json(record, read_json(record) | {"classes": ["negative", "positive"]})
        run(settings(repository, teacher=teacher), generate, curate)
        with pytest.raises(UserError, match="tokens.by is teacher, and this teacher has no tokeniser: say wordpiece"):
            run(settings(repository, teacher=teacher), train)
        own = {"by": "wordpiece", "vocabulary": 90, "lowercase": True, "truncate": True}
        params = settings(repository, teacher=teacher, **{"train.steps": 3, "architecture.tokens": own})
        run(params, train)
    block = params.classifiers[NAME].teacher
    assert type(block).model_validate(block.model_dump()) == block  # as a retrain reads it back from MLflow
    assert teacher_digest(block.model_dump()) == read_json(FOLDER / "pairs/pairs.json")["teacher"]
    told = read_json(FOLDER / "raw/teacher.json")
    assert (told["name"], told["version"], told["model"]) == ("tiny", 3, "tiny-lm")
    assert "127.0.0.1" not in json.dumps(told) and "KEY" not in json.dumps(told)
    rejected = read_jsonl(FOLDER / "pairs/rejected.jsonl")
    assert rejected and all(f"{long} characters" in one["reason"] for one in rejected)
    assert len(np.load(FOLDER / "pairs/train.rows.npy")) == kept
    assert np.isfinite(np.load(FOLDER / "raw/train.logits.npy")[np.load(FOLDER / "pairs/train.rows.npy")]).all()
    assert len(api.asked) == 240 - len(rejected)


def test_equal_work_gives_equal_bytes_and_a_killed_training_goes_on(
    here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import training

    params = settings(repository)
    first = sha256_folder(FOLDER / "student")
    original, steps = training.train_step, 0

    def dies(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 45:
            raise KeyboardInterrupt
        return original(*args)

    shutil.rmtree("data/.work")
    short = params.model_copy(update={"train": params.train.model_copy(update={"checkpoint_every": 20})})
    monkeypatch.setattr(training, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(short, train)
    assert steps == 45
    monkeypatch.setattr(training, "train_step", original)
    run(short, train)
    assert sha256_folder(FOLDER / "student") == first
    exported = sha256_folder(FOLDER / "exported")
    run(params, quantise)
    assert sha256_folder(FOLDER / "exported") == exported


def test_a_champion_has_its_own_tokeniser(here: Path, repository: Path) -> None:
    shutil.copytree(FOLDER / "bundle", "champion")
    own = {"by": "bpe", "vocabulary": 400, "lowercase": True, "truncate": False}
    change: dict[str, Any] = {"architecture.tokens": own, "architecture.max_tokens": 24, "train.steps": 30}
    params = settings(repository, **change)
    run(params, train, quantise, benchmark, evaluate, bundle)
    found = compare.compare(FOLDER, Path("champion"), NAME, warmup=1, runs=5, target="local")
    candidate, champion = (read_evidence(found[who]) for who in ("candidate", "champion"))
    assert isinstance(candidate, LabelEvidence) and isinstance(champion, LabelEvidence)
    before = read_json(Path("champion/manifest.json"))
    phone = next(one for one in before["files"] if one["file"] == "student.int8.tflite")
    assert champion.accuracy == pytest.approx(phone["quality"]["accuracy"], abs=1e-5)
    assert candidate.timed_with == champion.measured_sha256
    assert champion.bundle_mib == pytest.approx(
        sum(one["bytes"] for one in [*before["files"], before["tokenizer"]]) / 2**20
    )
    write_json(Path("champion/manifest.json"), before | {"task": "image-classification"})
    with pytest.raises(UserError, match="cannot be compared; give the new one another name"):
        compare.compare(FOLDER, Path("champion"), NAME, warmup=1, runs=5, target="local")


def test_the_chain_is_checked_and_told(here: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import tracking

    told: list[Any] = []
    monkeypatch.setattr(tracking, "log_run", lambda name, facts: told.append((name, facts)))
    run(settings(repository), lineage)
    assert [one.stage for one in told[0][1]][-2:] == ["bundle", "lineage"]
    assert read_json(FOLDER / "lineage.json")["files"]["tokenizer.json"]
    with (FOLDER / "student/tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=r"tokenizer.json has sha256"):
        run(settings(repository), lineage)


def test_a_workspace_gets_the_teacher_and_the_texts(here: Path, made: Path, repository: Path, tmp_path: Path) -> None:
    import subprocess

    from tasks import carry

    subprocess.run(["git", "init", "--quiet", "."], check=True)
    shutil.copytree(made / "lines", "lines")
    shutil.copytree(TEACHER, "layers")
    space = tmp_path / "space"
    space.mkdir()
    params = settings(repository, architecture=layers_of(Path("layers")))
    carry.carry_labels(space, params, NAME, params.classifiers[NAME])
    files = {"config.json", "model.safetensors", "tokenizer.json"}
    for name in ("teacher", "layers"):
        assert {path.name for path in (space / name).iterdir()} >= files
    assert (space / "lines/all.txt").read_bytes() == (made / "lines/all.txt").read_bytes()
    shutil.rmtree(TEACHER)
    shutil.rmtree(space)
    space.mkdir()
    with pytest.raises(UserError, match=r"classifiers.mood.teacher.path: nothing lies at teacher"):
        carry.carry_labels(space, params, NAME, params.classifiers[NAME])


def test_stages_are_found_by_the_kind_of_task() -> None:
    assert stage_of("text-classification", "quantise") is quantise.quantise
