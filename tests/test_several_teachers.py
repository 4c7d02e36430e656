"""Teachers made of others: a trained student, several by weight or by region; how each is pinned and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scenes import scene
from test_generate import RAW, inputs, run, write_params  # noqa: F401 - `inputs` is a fixture
from test_students import SMALL
from tiny_onnx import NCHW, affine_bytes, graph_bytes, pinned

from models.batches import to_tensor
from models.errors import UserError
from models.features import probe
from models.students import build_student, load_student
from models.teachers import load_teacher
from models.teachers.digests import teacher_digest
from models.teachers.folders import file_sha256, folder_sha256
from models.teachers.inner import inner_features
from models.teachers.pinned import places, without_places
from models.teachers.regions import REGIONS, MaskModel, shares
from tasks.cluster_actor import put_in
from tasks.files import read_json
from tasks.learning import publish
from tasks.need import size_mib
from tasks.params import load_params, parse_params

PAINTER = {"kind": "painter", "name": "oil", "version": 1, "style": "oil"}


def student_teacher(folder: Path) -> dict[str, Any]:
    """A trained student as the stage train writes it, and the block that pins it."""
    torch.manual_seed(0)
    student = build_student(SMALL, 64)
    with torch.no_grad():
        student(torch.rand(4, 3, 64, 64))  # BatchNorm has seen pictures
    publish(folder, student, {"architecture": SMALL, "size": 64}, [])
    return {"kind": "student", "name": "big", "version": 1, "path": str(folder), "sha256": folder_sha256(folder)}


def affine(path: Path, scale: float, shift: float) -> dict[str, Any]:
    return pinned(path, affine_bytes(scale, shift))


def several(*teachers: dict[str, Any], by: str = "weight") -> dict[str, Any]:
    return {"kind": "several", "name": "both", "version": 1, "by": by, "teachers": list(teachers)}


def by_region(folder: Path, *regions: str) -> dict[str, Any]:
    """A teacher of one grey for each region: 0.1, 0.2, ..."""
    parts = [
        {"teacher": affine(folder / f"{number}.onnx", 0.0, (number + 1) / 10), "region": region}
        for number, region in enumerate(regions)
    ]
    return several(*parts, by="region")


def mask_file(path: Path, nodes: Any, **constants: Any) -> dict[str, str]:
    path.write_bytes(graph_bytes(nodes, shape=NCHW, out=("b", 1, "h", "w"), constants=constants))
    return {"path": str(path), "sha256": file_sha256(path)}


def red_mask(path: Path) -> dict[str, str]:
    """How red a pixel is."""
    return mask_file(path, [("Conv", ("x", "w"), "y")], w=np.array([1, 0, 0]).reshape(1, 3, 1, 1))


def pictures(count: int = 2, size: int = 64) -> Any:
    return np.stack([scene(seed, size, size) for seed in range(count)])


def with_teacher(repository: Path, teacher: dict[str, Any]) -> Any:
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    raw["students"]["oil"] |= {"teacher": teacher}
    return parse_params(raw).student("oil").teacher


def test_a_student_teaches_what_it_makes(tmp_path: Path) -> None:
    teacher = load_teacher(student_teacher(tmp_path / "big"))
    made = teacher(pictures(3), [0, 1, 2])
    assert made.dtype == np.float32 and made.flags.c_contiguous
    with torch.no_grad():
        expected = load_student(tmp_path / "big")(to_tensor(pictures(3))).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-5)
    np.testing.assert_array_equal(teacher(pictures(3)[1:2], [0])[0], made[1])


def test_a_student_of_other_bytes_is_refused_and_so_is_none(tmp_path: Path) -> None:
    block = student_teacher(tmp_path / "big")
    with pytest.raises(UserError, match="sides that are multiples of 32, the pairs are"):
        load_teacher(block)(pictures(1, 48), [0])
    record = tmp_path / "big" / "student.json"
    record.write_text(record.read_text().replace("bilinear", "nearest"))  # the weights are the same
    with pytest.raises(UserError, match=r"big has sha256 .* expected .*restore it or change the pin"):
        load_teacher(block)
    with pytest.raises(UserError, match=r"no trained student, it has no student\.json"):
        load_teacher(block | {"path": str(tmp_path)})


def test_features_of_a_student_are_those_of_its_modules(tmp_path: Path) -> None:
    block = student_teacher(tmp_path / "big")
    given = torch.rand(2, 3, 64, 64)
    deep, shallow = inner_features(block, ["decoder.0", "decoder.3"])(given)
    expected = probe(load_student(tmp_path / "big"), ["decoder.0", "decoder.3"], given, who="student")
    assert torch.equal(deep, expected[0]) and torch.equal(shallow, expected[1])
    with pytest.raises(UserError, match="no module 'relu_2' in the network; near"):
        inner_features(block, ["relu_2"])(given)
    with pytest.raises(UserError, match="a several teacher has no features to learn from"):
        inner_features(several({"teacher": block, "weight": 1.0}), ["decoder.0"])


def test_a_mean_is_exact(tmp_path: Path) -> None:
    half, grey = affine(tmp_path / "a.onnx", 0.5, 0.25), affine(tmp_path / "b.onnx", 0.0, 0.8)
    teacher = load_teacher(several({"teacher": half, "weight": 3.0}, {"teacher": grey, "weight": 1.0}))
    expected = 0.75 * (0.5 * pictures() / 255 + 0.25) + 0.25 * 0.8
    np.testing.assert_allclose(teacher(pictures(), [0, 1]), expected, atol=1e-6)


def test_seeds_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[int]] = []

    def draw(shown: Any, seeds: list[int]) -> Any:
        heard.append(list(seeds))
        return shown.astype(np.float32) / 255

    block = several({"teacher": PAINTER, "weight": 1.0}, {"teacher": PAINTER, "weight": 1.0})
    teacher = load_teacher(block)
    monkeypatch.setattr(teacher, "teachers", [draw, draw])
    np.testing.assert_allclose(teacher(pictures(), [7, 9]), pictures() / 255, atol=1e-6)
    assert heard == [[7, 9], [7, 9]]


@pytest.mark.parametrize(
    "regions",
    [("shadows", "midtones", "highlights"), ("centre", "surround"), ("shadows", "rest"), ("shadows", "highlights")],
)
def test_regions_sum_to_1_without_a_seam(regions: tuple[str, ...]) -> None:
    for picture in (*pictures(), np.random.default_rng(0).integers(256, size=(64, 96, 3), dtype=np.uint8)):
        found = shares(picture, regions)
        assert found.shape == (len(regions), *picture.shape[:2]) and found.min() >= 0
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
        assert np.array_equal(found, shares(picture, regions))
        whole = [REGIONS[region](picture) for region in regions if region in REGIONS]
        if regions in (("shadows", "midtones", "highlights"), ("centre", "surround")):
            np.testing.assert_allclose(np.sum(whole, axis=0), 1, atol=1e-6)
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    steps = np.abs(np.diff(shares(edge, ("shadows", "highlights"))[0], axis=1))
    assert steps.max() < 0.3  # where the picture jumps by 1


def test_each_region_is_painted_by_its_own(tmp_path: Path) -> None:
    teacher = load_teacher(by_region(tmp_path, "shadows", "midtones", "highlights"))
    flat = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (10, 128, 250)])
    made = teacher(flat, [0, 1, 2])
    for number, expected in enumerate((0.1, 0.2, 0.3)):
        np.testing.assert_allclose(made[number], expected, atol=1e-4)
    radial = load_teacher(by_region(tmp_path, "centre", "surround"))(flat[:1], [0])[0]
    assert radial[32, 32, 0] == pytest.approx(0.1, abs=1e-3) and radial[0, 0, 0] == pytest.approx(0.2, abs=1e-3)


def test_a_mask_and_what_it_leaves(tmp_path: Path) -> None:
    parts = [
        {"teacher": affine(tmp_path / "a.onnx", 0.0, 0.2), "mask": red_mask(tmp_path / "red.onnx")},
        {"teacher": affine(tmp_path / "b.onnx", 0.0, 0.6), "region": "rest"},
    ]
    red = np.zeros((1, 64, 64, 3), np.uint8)
    red[..., :32, 0] = 255
    made = load_teacher(several(*parts, by="region"))(red, [0])[0, :, :, 0]
    np.testing.assert_allclose([made[:, 0], made[:, -1]], np.repeat([[0.2], [0.6]], 64, axis=1), atol=1e-4)
    assert np.all(np.diff(made, axis=1) >= -1e-6) and np.diff(made, axis=1).max() < 0.1


def test_no_region_s_pixels_are_shared_by_all(tmp_path: Path) -> None:
    mask = MaskModel(**red_mask(tmp_path / "red.onnx"), name="m")
    np.testing.assert_allclose(shares(np.zeros((64, 64, 3), np.uint8), (mask, mask)), 0.5)


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    coloured = pinned(tmp_path / "c.onnx", affine_bytes(1, 0))
    coarse = mask_file(
        tmp_path / "nan.onnx",
        [("Conv", ("x", "w"), "m"), ("Sub", ("m", "m"), "z"), ("Div", ("z", "z"), "y")],
        w=np.ones((1, 3, 1, 1)),
    )
    for file in (coloured, coarse):
        mask = MaskModel(path=file["path"], sha256=file["sha256"], name="m v1")
        with pytest.raises(UserError, match=r"teacher m v1: .* a mask is \(1, 1, 64, 64\)"):
            mask(pictures(1)[0])
    with pytest.raises(UserError, match="expected 0000"):
        MaskModel(path=coloured["path"], sha256="0" * 64, name="m v1")


def test_a_digest_tells_parts_apart_and_not_paths(tmp_path: Path) -> None:
    first, second = affine(tmp_path / "a.onnx", 0.5, 0.25), affine(tmp_path / "b.onnx", 0.0, 0.8)
    mask, other = (
        red_mask(tmp_path / "m.onnx"),
        mask_file(tmp_path / "n.onnx", [("Conv", ("x", "w"), "y")], w=np.ones((1, 3, 1, 1))),
    )
    (tmp_path / "moved").mkdir()
    moved = affine(tmp_path / "moved" / "a.onnx", 0.5, 0.25) | {"name": "another"}
    block = several({"teacher": first, "weight": 1.0}, {"teacher": second, "weight": 2.0})
    again = several({"teacher": moved, "weight": 1.0}, {"teacher": second, "weight": 2.0})
    assert teacher_digest(block) == teacher_digest(again) == load_teacher(block).digest
    others = [
        several({"teacher": first, "weight": 1.0}, {"teacher": second, "weight": 1.0}),
        several({"teacher": second, "weight": 1.0}, {"teacher": first, "weight": 2.0}),
        several({"teacher": first, "weight": 1.0}, {"teacher": PAINTER, "weight": 2.0}),
        several({"teacher": first, "region": "shadows"}, {"teacher": second, "region": "rest"}, by="region"),
        several({"teacher": first, "region": "centre"}, {"teacher": second, "region": "rest"}, by="region"),
        several({"teacher": first, "mask": mask}, {"teacher": second, "region": "rest"}, by="region"),
        several({"teacher": first, "mask": other}, {"teacher": second, "region": "rest"}, by="region"),
    ]
    assert len({teacher_digest(each) for each in (block, *others)}) == len(others) + 1
    student = student_teacher(tmp_path / "big")
    assert teacher_digest(student) == teacher_digest(student | {"path": "elsewhere", "name": "b"})


def test_all_its_files_are_checked_and_shipped(tmp_path: Path) -> None:
    student, mask = student_teacher(tmp_path / "big"), red_mask(tmp_path / "red.onnx")
    block = several({"teacher": student, "mask": mask}, {"teacher": PAINTER, "region": "rest"}, by="region")
    assert [place.key for place in places(block)] == ["teachers.0.teacher.path", "teachers.0.mask.path"]
    told = without_places(block)
    assert "path" not in told["teachers"][0]["teacher"] and told["teachers"][0]["mask"] == {"sha256": mask["sha256"]}
    assert block["teachers"][0]["mask"] == mask
    put_in(told, "teachers.0.mask.path", "there")
    assert told["teachers"][0]["mask"]["path"] == "there"
    assert size_mib(block) is None  # the painter is no file
    both = several({"teacher": student, "weight": 1.0}, {"teacher": student, "weight": 1.0})
    assert size_mib(both) == pytest.approx(2 * (size_mib(student) or 0))
    (tmp_path / "red.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match=r"red\.onnx has sha256"):
        load_teacher(block)


GENAI = {"kind": "genai", "name": "g", "version": 1, "model": "m", "call": {"prompt": "p"}}
PAIR = [{"teacher": PAINTER, "weight": 0.5}, {"teacher": PAINTER, "weight": 0.5}]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"teachers": PAIR[:1]}, "teacher.teachers: List should have at least 2 items"),
        ({"teachers": [PAIR[0], {"teacher": PAINTER}]}, "teacher.teachers: .*each needs a `weight`"),
        ({"teachers": [PAIR[0] | {"region": "rest"}, PAIR[1]]}, "each needs a `weight`, and no `region`"),
        ({"teachers": [PAIR[0] | {"weight": 0.0}] * 2}, "all weights are 0"),
        ({"teachers": [PAIR[0] | {"weight": -1.0}, PAIR[1]]}, r"teacher\.teachers\.0\.weight: .*greater"),
        ({"by": "region"}, "each needs a `region` or a `mask`, and no `weight`"),
        ({"teachers": [PAIR[0], {"weight": 1.0, "teacher": several(*PAIR)}]}, "several teachers within several"),
        ({"teachers": [PAIR[0], {"weight": 1.0, "teacher": GENAI}]}, "a genai teacher cannot be one of several"),
        (
            {"teachers": [PAIR[0], {"weight": 1.0, "teacher": PAINTER | {"style": "no"}}]},
            r"teachers\.1\.teacher\.style",
        ),
        ({"colour": "red"}, r"unknown key students\.oil\.teacher\.colour"),
    ],
)
def test_what_does_not_fit_is_one_line(repository: Path, change: dict[str, Any], told: str) -> None:
    assert with_teacher(repository, several(*PAIR)).by == "weight"
    with pytest.raises(UserError, match=told) as caught:
        with_teacher(repository, several(*PAIR) | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["student", "weight", "region", "mask"])
@pytest.mark.usefixtures("inputs")
def test_pairs_of_each(tmp_path: Path, kind: str) -> None:
    """The whole stage generate, in this process and in two others: the same bytes, and no path in them."""
    big, half = student_teacher(tmp_path / "big"), affine(tmp_path / "half.onnx", 0.5, 0.25)
    mask = red_mask(tmp_path / "red.onnx")
    teacher = {
        "student": big,
        "weight": several({"teacher": half, "weight": 0.5}, {"teacher": big, "weight": 0.5}),
        "region": several({"teacher": half, "region": "shadows"}, {"teacher": big, "region": "rest"}, by="region"),
        "mask": several({"teacher": half, "mask": mask}, {"teacher": big, "region": "rest"}, by="region"),
    }[kind]
    alone = run(write_params(teacher))
    described = (RAW / "teacher.json").read_text()
    assert str(tmp_path) not in described
    assert read_json(RAW / "teacher.json")["digest"] == load_teacher(teacher).digest
    assert run(write_params(teacher, workers=2, batch_size=3)) == alone
    assert load_params().student("tiny").teacher.kind == teacher["kind"]
