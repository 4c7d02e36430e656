"""torch, LiteRT and ONNX on the golden student, and what is said of a file that departs from torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from tiny_student import GOLDEN, SIZE, golden_student

from models import students
from models.departure import first_departure, layers_of
from models.errors import UserError
from models.litert import to_litert
from models.onnx_export import to_onnx
from models.runtimes import open_model
from models.torch_setup import prepare_torch
from tasks.parity import Tolerance, check_float_file, parity, resized, torch_function
from tasks.quantise import supported

TOLERANCE = Tolerance(max_difference=1e-3, min_psnr_db=80.0)
SUFFIXES = {"litert": "tflite", "onnx": "onnx"}
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "Conv")
LAYERS = {"encoder.stem.0", "encoder.down.0", "encoder.down.1.0", "decoder.0.project.0", "decoder.0.lateral.0"}
LAYERS |= {"decoder.0.depthwise.0", "decoder.0.pointwise.0", "head"}


@pytest.fixture(scope="module")
def student() -> Any:
    prepare_torch(1)
    return golden_student()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.load(GOLDEN / "input.npy").astype(np.float32) / 255


@pytest.fixture(scope="module")
def files(student: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden student's float files by runtime."""
    folder = tmp_path_factory.mktemp("golden")
    made = {"litert": to_litert(student, SIZE), "onnx": to_onnx(student, SIZE)}
    paths = {runtime: folder / f"student.fp32.{SUFFIXES[runtime]}" for runtime in made}
    for runtime, path in paths.items():
        path.write_bytes(made[runtime])
    return paths


def damaged(content: bytes, runtime: str, place: int) -> bytes:
    """The file with one weight of its operation number `place` changed."""
    if runtime == "litert":
        flatbuffer = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        graph = flatbuffer.subgraphs[0]
        buffer = flatbuffer.buffers[graph.tensors[graph.operators[place].inputs[1]].buffer]
        buffer.data = np.frombuffer(with_one_changed(np.frombuffer(bytes(buffer.data), np.float32)).tobytes(), np.uint8)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer))
    model = onnx.load_from_string(content)
    [weights] = [one for one in model.graph.initializer if one.name == model.graph.node[place].input[1]]
    weights.CopyFrom(onnx.numpy_helper.from_array(with_one_changed(onnx.numpy_helper.to_array(weights)), weights.name))
    return bytes(model.SerializeToString())


def with_one_changed(weights: np.ndarray) -> np.ndarray:
    changed = weights.copy()
    changed.flat[changed.size // 2] += max(1.0, float(np.abs(changed).max()))
    return changed


def test_torch_makes_of_the_golden_picture_what_it_did(student: Any, picture: np.ndarray) -> None:
    expected = np.load(GOLDEN / "expected.npy")
    assert expected.min() == 0 and expected.max() == 1 and expected.std() > 0.1
    np.testing.assert_allclose(torch_function(student)(picture), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("runtime", SUFFIXES)
def test_the_runtimes_do_too(files: dict[str, Path], picture: np.ndarray, runtime: str) -> None:
    expected = np.load(GOLDEN / "expected.npy")
    np.testing.assert_allclose(open_model(files[runtime], runtime)(picture), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("runtime", SUFFIXES)
def test_a_weight_changed_in_the_file_is_found_in_its_layer(
    student: Any, files: dict[str, Path], picture: np.ndarray, runtime: str
) -> None:
    content = files[runtime].read_bytes()
    assert first_departure(student, content, runtime, picture) == ""
    operations, layers = layers_of(student, content, runtime, picture)
    assert all(layers.agree(one.output) for one in operations)
    found = {}
    for place, one in enumerate(operations):
        if one.op in CONVOLUTIONS:
            step = layers.first_step(one)
            assert step is not None
            name = step.layer.removeprefix("student.")
            found[name] = first_departure(student, damaged(content, runtime, place), runtime, picture)
    assert found == {name: f"{name} (conv2d)" for name in LAYERS}


@pytest.mark.parametrize(("runtime", "convert"), [("litert", to_litert), ("onnx", to_onnx)])
def test_a_converter_that_gets_one_operation_wrong_is_found_there(
    student: Any,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    convert: Callable[[Any, int], bytes],
) -> None:
    import torch

    def corners(x: torch.Tensor, mode: str) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    path = tmp_path / f"student.fp32.{SUFFIXES[runtime]}"
    with monkeypatch.context() as patch:
        patch.setattr(students, "double", corners)
        path.write_bytes(convert(student, SIZE))
    expected = torch_function(student)(picture)
    found = parity(open_model(path, runtime), [(picture,)], [expected])
    with pytest.raises(
        UserError, match=r"differs from torch by .* first at decoder\.0 \(upsample_bilinear2d\)"
    ) as told:
        check_float_file(student, path, runtime, found, [(picture,)], [expected], TOLERANCE)
    assert "\n" not in str(told.value) and path.name in str(told.value)


def test_a_file_that_only_the_delegate_gets_wrong_has_no_layer(
    student: Any, files: dict[str, Path], picture: np.ndarray
) -> None:
    found = {"max_abs": 0.5, "psnr_db": 20.0, "worst_psnr_db": 20.0}
    expected = torch_function(student)(picture)
    with pytest.raises(UserError, match="in no single layer: litert departs when it joins them"):
        check_float_file(student, files["litert"], "litert", found, [(picture,)], [expected], TOLERANCE)


def test_what_is_within_the_tolerance() -> None:
    good = {"max_abs": 1e-3, "psnr_db": 90.0, "worst_psnr_db": 80.0}
    assert TOLERANCE.holds(good)
    assert not TOLERANCE.holds(good | {"max_abs": 1.1e-3})
    assert not TOLERANCE.holds(good | {"worst_psnr_db": 79.9})
    assert not TOLERANCE.holds(good | {"max_abs": float("nan")})


def test_the_sizes_that_are_claimed_are_checked(student: Any, picture: np.ndarray) -> None:
    own = {"max_abs": 1e-6, "psnr_db": 100.0, "worst_psnr_db": 100.0}
    lines = [{"runtime": runtime, "precision": "fp32", "parity": own} for runtime in SUFFIXES]
    lines.append({"runtime": "litert", "precision": "int8", "parity": {}})
    first, other = supported(student, SIZE, lines, [64], [(picture,)], TOLERANCE)
    assert first == {"size": SIZE, "parity": {"litert": own, "onnx": own}}
    assert other["size"] == 64
    for runtime in SUFFIXES:
        assert 0 < other["parity"][runtime]["max_abs"] < 1e-5


def test_pictures_are_resized_within_their_range(picture: np.ndarray) -> None:
    [large] = resized([(picture,)], 96)
    assert large.shape == (1, 96, 96, 3) and large.dtype == np.float32
    assert large.min() >= 0 and large.max() <= 1
    np.testing.assert_allclose(large.mean((0, 1, 2)), picture.mean((0, 1, 2)), atol=0.01)
