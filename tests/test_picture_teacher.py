"""A teacher of pictures from labels alone, where there is no better one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from models.classification.networks import build
from models.classification.teachers import load_teacher
from models.errors import UserError
from tasks.classification import train_picture_teacher
from tasks.classification.examples import open_examples
from tasks.classification.first_teacher import open_labelled
from tasks.classification.params import ImageClassifier
from tasks.classification.train_picture_teacher import Recipe, make_teacher, started
from tasks.dataset import dataset
from tasks.files import read_json, read_jsonl, sha256_file, write_json
from tasks.params import load_params

SMALL = {"kind": "resnet-cifar", "depth": 8, "widths": [8, 16, 32]}
SHORT: dict[str, Any] = {"architecture": SMALL, "epochs": 6, "batch_size": 32, "pad": 1, "flip": False}


@pytest.fixture
def here(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shipped params and 300 digits of each side."""
    text = (repository / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    dataset("digits", load_params().datasets["digits"].model_copy(update={"most": 300}))
    return tmp_path


def test_it_learns_and_what_it_tells_to_write_is_a_teacher(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", "digits", "--out", "teachers/own", "--architecture", json.dumps(SMALL)]
    arguments += ["--epochs", "25", "--batch-size", "32", "--pad", "1", "--no-flip"]
    monkeypatch.setattr(sys, "argv", ["train_picture_teacher", *arguments])
    train_picture_teacher.main()
    told = yaml.safe_load(capsys.readouterr().out.splitlines()[-1])
    block = yaml.safe_load(Path("params.yaml").read_text())["classifiers"]["digits"]
    teacher = ImageClassifier.model_validate(block | told).teacher
    record = read_json(Path("teachers/own/teacher.json"))
    assert (
        record["accuracy"]["test"] > 0.7 and not record["flip"] and record["sha256"] == teacher.model_dump()["sha256"]
    )
    examples = open_examples("digits").splits["test"]
    said = load_teacher(teacher.model_dump())(examples.inputs).argmax(axis=1)
    assert (said == examples.labels).mean() == pytest.approx(record["accuracy"]["test"], abs=1e-4)
    assert {"step", "val_accuracy"} == read_jsonl(Path("teachers/own/curve.jsonl"))[-1].keys()
    assert not list(Path("data/.work").glob("picture-teacher-*"))


def test_a_stopped_training_goes_on_to_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import training

    recipe = Recipe.model_validate(SHORT | {"epochs": 2})
    make_teacher("digits", Path("whole"), recipe)
    step, count = training.train_step, 0

    def stopping(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 12:
            raise KeyboardInterrupt
        return step(*args)

    params = load_params()
    params = params.model_copy(update={"train": params.train.model_copy(update={"checkpoint_every": 5})})
    monkeypatch.setattr(train_picture_teacher, "load_params", lambda: params)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            make_teacher("digits", Path("parts"), recipe)
    assert list(Path("data/.work").glob("picture-teacher-*")) and not Path("parts").exists()
    make_teacher("digits", Path("parts"), recipe)
    assert sha256_file(Path("parts/weights.safetensors")) == sha256_file(Path("whole/weights.safetensors"))


def test_weights_of_other_classes_are_taken_but_for_the_last_layer(here: Path) -> None:
    before = build(SMALL, 7)
    save_file(before.state_dict(), "seven.safetensors")
    torch.manual_seed(0)
    network = started(open_examples("digits"), Recipe.model_validate(SHORT | {"weights": "seven.safetensors"}))
    values = network.state_dict()
    assert values["linear.weight"].shape == (10, 32)
    same = [name for name in values if torch.equal(values[name], before.state_dict()[name])]
    assert set(values) - set(same) == {"linear.weight", "linear.bias"}
    timm = {"kind": "timm", "name": "mobilenetv3_small_050", "size": 16}
    inner = build(timm, 3).network  # type: ignore[union-attr]
    save_file(inner.state_dict(), "timm.safetensors")  # type: ignore[arg-type]
    network = started(
        open_examples("digits"), Recipe.model_validate({"architecture": timm, "weights": "timm.safetensors"})
    )
    first = next(iter(load_file("timm.safetensors").items()))
    assert torch.equal(network.state_dict()[f"network.{first[0]}"], first[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "none.safetensors"}, "--weights: no file at none.safetensors"),
        ({"weights": "params.yaml"}, "--weights: params.yaml is no safetensors file"),
        ({"weights": "wide.safetensors"}, "--weights wide.safetensors: .*name the architecture it was saved from"),
    ],
)
def test_wrong_weights_are_one_line(here: Path, change: dict[str, Any], message: str) -> None:
    save_file(build(SMALL | {"widths": [16, 32, 64]}, 10).state_dict(), "wide.safetensors")
    with pytest.raises(UserError, match=message):
        make_teacher("digits", Path("out"), Recipe.model_validate(SHORT | change))
    assert not Path("out").exists()


def test_a_wrong_architecture_is_one_line() -> None:
    with pytest.raises(UserError, match="--architecture is not YAML|resnet-cifar.widths|widths"):
        train_picture_teacher.read_recipe({"architecture": "{kind: resnet-cifar, depth: 8}"})
    with pytest.raises(UserError, match="epochs: Input should be greater than 0"):
        train_picture_teacher.read_recipe({"architecture": json.dumps(SMALL), "epochs": 0.0})


def test_a_dataset_of_the_other_kind_or_without_labels_is_one_line(here: Path) -> None:
    with pytest.raises(UserError, match="dataset digits is of images: this teacher learns from texts"):
        open_labelled("digits", "texts")
    labels, about = Path("data/datasets/digits/val.labels.npy"), Path("data/datasets/digits/dataset.json")
    np.save(labels, np.full_like(np.load(labels), -1))
    record = read_json(about)
    record["files"][labels.name] = sha256_file(labels)
    write_json(about, record)
    with pytest.raises(UserError, match="dataset digits: without labels on each side nobody can be taught by them"):
        make_teacher("digits", Path("out"), Recipe.model_validate(SHORT))
