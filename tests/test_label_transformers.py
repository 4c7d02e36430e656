"""Text classifiers: students of some of a teacher's layers, small ones from nothing, and folders that will not do."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_text import KINDS, tiny_config, tiny_folder
from torch import nn

from models.classification.networks import build, cut, described, load_network
from models.classification.transformer import TextClassifier, evenly, fewer, layer_list, load_folder, made
from models.errors import UserError
from models.teachers.folders import folder_sha256
from models.terms import inner_outputs
from tasks.files import sha256_file, write_json

FRESH = {
    "kind": "transformer",
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "feed_forward": 64,
    "max_tokens": 16,
    "dropout": 0.1,
    "tokens": {},
}
IDS = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0


def tiny(kind: str, **settings: Any) -> TextClassifier:
    torch.manual_seed(0)
    return made(tiny_config(kind, vocabulary=60, **settings)).eval()


@pytest.mark.parametrize(
    ("count", "kept", "which"),
    [(12, 6, [0, 2, 4, 7, 9, 11]), (12, 12, list(range(12))), (4, 2, [0, 3]), (3, 1, [0]), (6, 3, [0, 2, 5])],
)
def test_layers_are_chosen_evenly(count: int, kept: int, which: list[int]) -> None:
    assert evenly(count, kept) == which


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_student_of_fewer_layers_is_the_teacher_without_the_others(kind: str) -> None:
    teacher = tiny(kind)
    student = fewer(teacher, [0, 2], 3).eval()
    picked = copy.deepcopy(teacher)
    layers: Any = picked.model.get_submodule(layer_list(picked.model))
    parent, _, last = layer_list(picked.model).rpartition(".")
    setattr(picked.model.get_submodule(parent), last, nn.ModuleList([layers[0], layers[2]]))
    with torch.no_grad():
        torch.testing.assert_close(student(IDS, MASK), picked(IDS, MASK), rtol=0, atol=0)
        assert not torch.allclose(student(IDS, MASK), teacher(IDS, MASK))
    student.train()(IDS, MASK).square().mean().backward()
    assert all(weight.grad is None for weight in teacher.parameters())  # it is a copy


@pytest.mark.parametrize("kind", KINDS[:4])
def test_hidden_states_and_features_are_found_by_path(kind: str) -> None:
    network = tiny(kind)
    with torch.no_grad(), inner_outputs(network, [*network.layers(), network.base()]) as inner:
        logits = network(IDS, MASK)
    features = inner[network.base()][:, 0]
    assert logits.shape == (3, 3) and features.shape == (3, 32)
    assert [tuple(inner[path].shape) for path in network.layers()] == [(3, 9, 32)] * 4
    torch.testing.assert_close(inner[network.layers()[-1]][:, 0], features)


def test_what_the_mask_hides_changes_nothing() -> None:
    network, other = tiny("bert"), IDS.clone()
    other[1, 6:] = 7
    with torch.no_grad():
        torch.testing.assert_close(network(other, MASK), network(IDS, MASK))
        torch.testing.assert_close(network(IDS[1:2, :6], MASK[1:2, :6]), network(IDS, MASK)[1:2])


@pytest.mark.parametrize("kind", [*KINDS, "fresh"])
def test_student_json_is_enough_to_build_it_again(kind: str) -> None:
    network = build(FRESH, 3, vocabulary=60, pad=0).eval() if kind == "fresh" else tiny(kind)
    record = json.loads(json.dumps(described(network, FRESH)))
    again = build(record, 3).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(IDS, MASK), network(IDS, MASK))  # type: ignore[operator]
    with pytest.raises(UserError, match="is of 3 classes, and 4 are wanted"):
        build(record, 4)


def test_a_folder_gives_its_layers_and_a_new_last_one_for_other_classes(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "teacher")
    teacher = load_folder(folder, "teacher t")
    block = {
        "kind": "transformer-layers",
        "path": str(folder),
        "sha256": folder_sha256(folder),
        "layers": 2,
        "keep": None,
        "max_tokens": 16,
        "tokens": {},
    }
    same, other = build(block, 3), build(block, 5)
    ours, theirs = same.state_dict(), teacher.state_dict()
    assert torch.equal(ours["model.classifier.weight"], theirs["model.classifier.weight"])
    for network in (same, other):
        weights = network.state_dict()
        for mine, its in ((0, 0), (1, 3)):
            name = "model.bert.encoder.layer.{}.intermediate.dense.weight"
            assert torch.equal(weights[name.format(mine)], theirs[name.format(its)])
    assert other.state_dict()["model.classifier.weight"].shape == (5, 32)
    assert "LABEL_4" in str(described(other, block))
    chosen = build(block | {"keep": [1, 2]}, 3).state_dict()
    name = "model.bert.encoder.layer.{}.output.dense.bias"
    assert torch.equal(chosen[name.format(0)], theirs[name.format(1)])
    for changed, line in (
        ({"layers": 5}, "layers 5: the teacher has 4, take 1 to 4"),
        ({"keep": [2, 1]}, "name layers of 0 to 3, each once, in order"),
        ({"max_tokens": 99}, "max_tokens is 99, and .* takes 40"),
        ({"sha256": "0" * 64}, "expected 0000"),
    ):
        with pytest.raises(UserError, match=line):
            build(block | changed, 3)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_low_rank_factors_come_back_from_student_json(kind: str, tmp_path: Path) -> None:
    network = tiny(kind)
    before = sum(weight.numel() for weight in network.parameters())
    with pytest.raises(UserError, match="transformers have no channels to prune here: take fewer layers"):
        cut(network, 0, 0.5, 1.0)
    ranks = cut(network, 0, 0.0, 0.5)
    assert ranks and sum(weight.numel() for weight in network.parameters()) < before
    values = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(values, tmp_path / "weights.safetensors")
    record = {"architecture": described(network, {}), "classes": [*"abc"], "ranks": ranks}
    write_json(tmp_path / "student.json", record | {"weights_sha256": sha256_file(tmp_path / "weights.safetensors")})
    with torch.no_grad():
        torch.testing.assert_close(load_network(tmp_path)(IDS, MASK), network(IDS, MASK))


def test_shared_layers_cannot_be_picked() -> None:
    with pytest.raises(UserError, match="AlbertForSequenceClassification does not keep its 4 layers in one list"):
        fewer(tiny("albert"), [0, 2], 3)


def test_positions_before_the_first_are_not_counted() -> None:
    assert tiny("bert").longest() == 40
    assert tiny("roberta").longest() == 39  # its positions begin behind the token that fills


def test_names_of_classes_are_told_where_there_are_any() -> None:
    assert tiny("bert").labels() == ()
    named = tiny("bert", id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0, "maybe": 1, "yes": 2})
    assert named.labels() == ("no", "maybe", "yes")


def test_folders_that_will_not_do_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^teacher t: no config.json in "):
        load_folder(tmp_path, "teacher t")
    folder = tiny_folder(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"^teacher t: no \*.safetensors in .* no pickle$"):
        load_folder(folder, "teacher t")
    whole = tiny_folder(tmp_path / "headless")
    load_folder(whole, "teacher t")
    model = load_folder(whole, "teacher t").model
    model.base_model.save_pretrained(whole)  # type: ignore[operator,union-attr]
    with pytest.raises(UserError, match=r"lacks weights \(classifier.bias\), which would be random"):
        load_folder(whole, "teacher t")
    config = json.loads((folder / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(UserError, match=r"^teacher t: transformers cannot load ") as caught:
        load_folder(whole, "teacher t")
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    folder, mark = tiny_folder(tmp_path / "t"), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": classes}))
    load_folder(folder, "teacher t")  # by what transformers itself knows of the kind
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": classes, "model_type": "own"}))
    with pytest.raises(UserError, match=r"^teacher t: transformers cannot load "):
        load_folder(folder, "teacher t")
    assert not mark.exists()


def test_heads_share_what_is_hidden() -> None:
    with pytest.raises(UserError, match="hidden 32 is no multiple of architecture.heads 3"):
        build(FRESH | {"heads": 3}, 2, vocabulary=60, pad=0)


def test_the_library_says_nothing_at_its_import(repository: Path) -> None:
    lines = ["from models.classification.transformer import import_transformers", "import_transformers().BertConfig()"]
    done = subprocess.run([sys.executable, "-c", "; ".join(lines)], cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
