"""Teachers of classifiers: pinned, the same for an input in any company, and one line when something is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from tiny_text import TEXTS, tiny_folder

from models.classification.networks import build, described
from models.classification.teachers import BATCH, load_teacher
from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.folders import folder_sha256
from tasks.classification.network_params import ImageArchitecture, ImageTeacher, TextArchitecture, TextTeacher
from tasks.files import sha256_file, write_json

ARCHITECTURE = {"kind": "resnet-cifar", "depth": 8, "widths": [8, 16, 32]}


def dumped(adapter: Any, block: dict[str, Any]) -> dict[str, Any]:
    """The block as params.yaml's schema gives it on."""
    found: dict[str, Any] = TypeAdapter(adapter).validate_python(block).model_dump()
    return found


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def network_block(folder: Path, seed: int = 0, classes: int = 4, **changed: Any) -> dict[str, Any]:
    """A teacher of random weights, written to a file."""
    torch.manual_seed(seed)
    network = build(ARCHITECTURE, classes)
    network.train()(torch.rand(8, 3, 16, 16))
    path = folder / f"{seed}-{classes}.safetensors"
    save_file(network.state_dict(), path)
    block = {"kind": "network", "name": "net", "version": 1, "architecture": ARCHITECTURE}
    return dumped(ImageTeacher, block | {"path": str(path), "sha256": sha256_file(path)} | changed)


def text_block(folder: Path, **changed: Any) -> dict[str, Any]:
    block = {"kind": "transformers", "name": "text", "version": 1, "path": str(folder), "max_tokens": 40}
    return dumped(TextTeacher, block | {"sha256": folder_sha256(folder), "truncate": False} | changed)


def several(mean_of: str, *parts: tuple[dict[str, Any], float]) -> dict[str, Any]:
    teachers = [{"teacher": block, "weight": weight} for block, weight in parts]
    return {"kind": "several", "name": "all", "version": 1, "mean_of": mean_of, "teachers": teachers}


def test_a_networks_answers_are_the_networks(tmp_path: Path) -> None:
    block = network_block(tmp_path)
    teacher = load_teacher(block)
    inputs = pictures(5)
    logits, pooled = teacher.with_pooled(inputs)
    assert np.array_equal(teacher(inputs), logits)
    assert (teacher.classes, logits.shape, logits.dtype, pooled.shape) == (4, (5, 4), np.float32, (5, 32))
    network = build(ARCHITECTURE, 4).eval()
    network.load_state_dict(load_file(block["path"]))
    with torch.no_grad():
        plain = network(torch.from_numpy(inputs).permute(0, 3, 1, 2) / 255)
        np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-5)
        assert teacher.network is not None
        np.testing.assert_allclose(teacher.network(torch.from_numpy(inputs).permute(0, 3, 1, 2) / 255), plain, 1e-4)
        last = network.linear(torch.from_numpy(pooled))  # type: ignore[operator]
    np.testing.assert_allclose(last, logits, rtol=1e-4, atol=1e-5)
    assert teacher(inputs[:0]).shape == (0, 4)


def test_an_answer_hangs_on_no_neighbour(tmp_path: Path) -> None:
    """To the bit: in other places, in batches of other sizes, alone, and on another number of threads."""
    teacher = load_teacher(network_block(tmp_path))
    inputs = pictures(BATCH + 9)
    logits = teacher(inputs)
    order = np.random.default_rng(1).permutation(len(inputs))
    assert np.array_equal(teacher(inputs[order]), logits[order])
    assert np.array_equal(teacher(inputs[:3]), logits[:3])
    assert np.array_equal(teacher(inputs[7:8]), logits[7:8])
    assert np.array_equal(teacher.with_pooled(inputs[7:8])[1], teacher.with_pooled(inputs)[1][7:8])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert np.array_equal(teacher(inputs), logits)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_answer_to_a_text_hangs_on_no_neighbour(tmp_path: Path) -> None:
    teacher = load_teacher(text_block(tiny_folder(tmp_path / "t")))
    logits = teacher(TEXTS)
    again, pooled = teacher.with_pooled(TEXTS)
    assert logits.shape == (len(TEXTS), 3) and pooled.shape == (len(TEXTS), 32) and np.array_equal(again, logits)
    assert len(np.unique(logits.argmax(axis=1))) > 1
    order = np.random.default_rng(1).permutation(len(TEXTS))
    assert np.array_equal(teacher([TEXTS[row] for row in order]), logits[order])
    assert np.array_equal(teacher(TEXTS[4:5]), logits[4:5])
    assert teacher([]).shape == (0, 3)
    # Whole rows, filled to the most tokens, say the same.
    assert teacher.tokens is not None and teacher.network is not None
    ids, mask = (torch.from_numpy(one) for one in teacher.tokens(TEXTS))
    with torch.no_grad():
        np.testing.assert_allclose(teacher.network(ids, mask), logits, rtol=1e-3, atol=1e-4)


def test_texts_that_are_too_long_are_told_or_cut(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "t")
    with pytest.raises(UserError, match=r"texts have more than 8 tokens, the longest \d+: raise max_tokens"):
        load_teacher(text_block(folder, max_tokens=8))(TEXTS)
    assert load_teacher(text_block(folder, max_tokens=8, truncate=True))(TEXTS).shape == (len(TEXTS), 3)
    with pytest.raises(UserError, match="max_tokens is 41, and it takes 40"):
        load_teacher(text_block(folder, max_tokens=41))


def test_a_tokeniser_of_another_model_is_told(tmp_path: Path) -> None:
    from models.classification.tokens import train_tokens

    folder = tiny_folder(tmp_path / "t")
    more = [f"{text} {text[::-1]}" for text in TEXTS]
    train_tokens(more, by="bpe", vocabulary=400, lowercase=True, max_tokens=9, truncate=False).save(folder)
    with pytest.raises(UserError, match=r"its tokeniser has \d+ tokens, and its network knows \d+"):
        load_teacher(text_block(folder))


def test_students_teach_again(tmp_path: Path) -> None:
    """Born again: of pictures, and of texts with the tokeniser that lies beside the weights."""
    block = network_block(tmp_path)
    folder = tmp_path / "student"
    folder.mkdir()
    save_file(load_file(block["path"]), folder / "weights.safetensors")
    record = {"architecture": block["architecture"], "classes": [*"abcd"], "weights_sha256": block["sha256"]}
    write_json(folder / "student.json", record | {"weights_sha256": sha256_file(folder / "weights.safetensors")})
    own = {"kind": "student", "name": "self", "version": 1, "path": str(folder), "sha256": folder_sha256(folder)}
    again = load_teacher(dumped(ImageTeacher, own))
    assert again.classes == 4
    assert np.array_equal(again(pictures(3)), load_teacher(block)(pictures(3)))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"has sha256 .*, expected"):
        load_teacher(own)
    with pytest.raises(UserError, match="is no trained student, it has no weights.safetensors"):
        load_teacher(own | {"sha256": folder_sha256(folder)})


def test_text_students_teach_again(tmp_path: Path) -> None:
    first = load_teacher(text_block(tiny_folder(tmp_path / "t")))
    assert first.network is not None and first.tokens is not None
    folder = tmp_path / "student"
    folder.mkdir()
    save_file(
        {name: value.clone() for name, value in first.network.state_dict().items()}, folder / "weights.safetensors"
    )
    first.tokens.save(folder)
    record = {"architecture": described(first.network, {}), "classes": [*"abc"]}
    write_json(folder / "student.json", record | {"weights_sha256": sha256_file(folder / "weights.safetensors")})
    own = {"kind": "student", "name": "self", "version": 1, "path": str(folder), "sha256": folder_sha256(folder)}
    again = load_teacher(dumped(TextTeacher, own | {"max_tokens": 40, "truncate": False}))
    assert np.array_equal(again(TEXTS), first(TEXTS))
    with pytest.raises(UserError, match="it takes texts: say max_tokens and truncate"):
        load_teacher(own)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return found


def test_several_are_the_weighted_mean_that_is_said(tmp_path: Path) -> None:
    blocks = [network_block(tmp_path, seed) for seed in (0, 1)]
    first, second = (load_teacher(block)(pictures(6)) for block in blocks)
    of_logits = load_teacher(dumped(ImageTeacher, several("logits", (blocks[0], 1.0), (blocks[1], 3.0))))
    np.testing.assert_allclose(of_logits(pictures(6)), 0.25 * first + 0.75 * second, rtol=1e-5, atol=1e-6)
    of_chances = load_teacher(dumped(ImageTeacher, several("probabilities", (blocks[0], 1.0), (blocks[1], 3.0))))
    told = of_chances(pictures(6))
    np.testing.assert_allclose(softmax(told), 0.25 * softmax(first) + 0.75 * softmax(second), rtol=1e-4, atol=1e-6)
    assert of_logits.digest != of_chances.digest and of_chances.network is None
    with pytest.raises(UserError, match="no pooled features in common: set pairs.pooled to false"):
        of_chances.with_pooled(pictures(1))


def test_several_must_agree_on_the_classes(tmp_path: Path) -> None:
    blocks = network_block(tmp_path), network_block(tmp_path, classes=3)
    with pytest.raises(UserError, match="teacher all v1: its teachers know 4, 3 classes: they must agree"):
        load_teacher(several("logits", *((block, 1.0) for block in blocks)))
    names = [["no", "maybe", "yes"], ["yes", "maybe", "no"]]
    texts = [
        text_block(tiny_folder(tmp_path / str(number), id2label=dict(enumerate(some))))
        for number, some in enumerate(names)
    ]
    with pytest.raises(UserError, match="has the classes no, maybe, yes, one yes, maybe, no: they must be the same"):
        load_teacher(several("logits", *((block, 1.0) for block in texts)))


def test_logits_that_are_no_numbers_are_one_line(tmp_path: Path) -> None:
    block = network_block(tmp_path)
    values = load_file(block["path"])
    values["linear.bias"][1] = float("nan")
    save_file(values, block["path"])
    block["sha256"] = sha256_file(Path(block["path"]))
    with pytest.raises(UserError, match=r"^teacher net v1: its logits of 3 of 3 inputs are NaN or infinite, the first"):
        load_teacher(block)(pictures(3))


def test_what_is_missing_or_changed_is_one_line(tmp_path: Path) -> None:
    block = network_block(tmp_path)
    with pytest.raises(UserError, match=r"^teacher net v1: nothing lies at elsewhere: put it there"):
        load_teacher(block | {"path": "elsewhere"})
    with pytest.raises(UserError, match=r"^teacher net v1: .* has sha256 .*, expected 0000"):
        load_teacher(block | {"sha256": "0" * 64})
    Path(block["path"]).write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"is no safetensors file"):
        load_teacher(block | {"sha256": sha256_file(Path(block["path"]))})


def test_the_digest_changes_with_what_decides_answers_alone(tmp_path: Path) -> None:
    block = network_block(tmp_path)
    digest = teacher_digest(block)
    assert load_teacher(block).digest == digest
    assert teacher_digest(block | {"path": "elsewhere", "name": "other", "version": 2}) == digest
    assert teacher_digest(block | {"sha256": "0" * 64}) != digest
    assert teacher_digest(block | {"architecture": block["architecture"] | {"std": [1.0, 1.0, 1.0]}}) != digest
    text = text_block(tiny_folder(tmp_path / "t"))
    digests = {teacher_digest(text | changed) for changed in ({}, {"max_tokens": 9}, {"truncate": True})}
    assert len(digests) == 3
    pair = several("logits", (block, 1.0), (block, 2.0))
    assert teacher_digest(pair) != teacher_digest(several("logits", (block, 1.0), (block, 3.0)))


@pytest.mark.parametrize(
    ("adapter", "block", "line"),
    [
        (ImageArchitecture, ARCHITECTURE | {"wide": 2}, "wide"),
        (ImageArchitecture, ARCHITECTURE | {"widths": [1, 2]}, "at least 3"),
        (ImageArchitecture, {"kind": "vgg-cifar", "depth": 12}, "8, 11, 13, 16 or 19"),
        (
            TextArchitecture,
            {
                "kind": "transformer-layers",
                "path": "x",
                "sha256": "0" * 64,
                "layers": 2,
                "max_tokens": 9,
                "tokens": {"by": "bpe", "vocabulary": 9, "lowercase": True, "truncate": True},
            },
            "layers of a teacher know the teacher's tokens",
        ),
        (
            ImageTeacher,
            several("logits", ({"kind": "several"}, 1.0), ({"kind": "several"}, 1.0)),
            "name them all in one",
        ),
        (ImageTeacher, several("logits"), "at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(adapter: Any, block: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        TypeAdapter(adapter).validate_python(block)
