"""Opening model files: one callable for both runtimes, one line for a file that will not do."""

from pathlib import Path

import numpy as np
import pytest
import tiny_litert
import tiny_onnx

from models.errors import UserError
from models.runtimes import open_model

PICTURE = np.linspace(-1, 8, 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_litert_file_is_a_function_of_pictures(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_litert.relu6_bytes())
    model = open_model(path, "litert", threads)
    assert model.size == 8
    np.testing.assert_array_equal(model(PICTURE), PICTURE.clip(0, 6))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_onnx_file_is_a_function_of_channels_last_pictures(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx.affine_bytes(2.0, 1.0, shape=(1, 3, 8, 8)))
    model = open_model(path, "onnx", threads)
    assert model.size == 8
    np.testing.assert_array_equal(model(PICTURE), PICTURE * 2 + 1)


def test_a_result_is_not_overwritten_by_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_litert.relu6_bytes())
    model = open_model(path, "litert")
    first = model(PICTURE)
    model(np.zeros_like(PICTURE))
    np.testing.assert_array_equal(first, PICTURE.clip(0, 6))


@pytest.mark.parametrize("runtime", ["litert", "onnx"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\0" * 4096])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, runtime: str, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model is no model|takes none") as caught:
        open_model(path, runtime)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = tiny_onnx.affine_bytes(2.0, 1.0, shape=(1, 3, 8, 8))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="no model"):
        open_model(path, "onnx")


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 8, 8, 3), (1, 8, 16, 3), (8, 8, 3)])
def test_a_litert_file_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_litert.relu6_bytes(shape))
    with pytest.raises(UserError, match="a student takes"):
        open_model(path, "litert")


def test_a_litert_file_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_litert.relu6_bytes(dtype=tiny_litert.schema.TensorType.UINT8))
    with pytest.raises(UserError, match=r"no model|a student takes"):
        open_model(path, "litert")


def test_an_onnx_file_without_a_fixed_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx.affine_bytes(2.0, 1.0))
    with pytest.raises(UserError, match="a student takes"):
        open_model(path, "onnx")


def test_a_missing_file_and_an_unknown_runtime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro quantise"):
        open_model(tmp_path / "none.onnx", "onnx")
    with pytest.raises(UserError, match="unknown runtime 'coreml'"):
        open_model(tmp_path / "none.onnx", "coreml")
