"""The ONNX teacher: pinned bytes, its contract, and a sample that depends on itself alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_onnx import NCHW, NHWC, affine_bytes, graph_bytes, pinned

from models.errors import UserError
from models.teachers import load_teacher

UDNIE = Path(__file__).parents[2] / "shared/data/teachers/udnie.onnx"
UDNIE_SHA256 = "86365d39d21953023c9570f6db8da19e947dc73cfd43353bfc917e31bd296c4f"


def pictures(count: int = 3, size: int = 8) -> Any:
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [NCHW, NHWC, (1, 3, 8, 8), (2, 8, 8, 3), ("b", 3, 8, 8)])
def test_layouts_and_batches(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    teacher = load_teacher(pinned(tmp_path / "m.onnx", affine_bytes(0.5, 0.25, shape=shape)))
    images = pictures()
    out = teacher(images, [0, 1, 2])
    assert out.dtype == np.float32 and out.shape == images.shape
    np.testing.assert_allclose(out, images.astype(np.float32) / 255 * 0.5 + 0.25, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    # The model subtracts the mean over the whole batch: run as a batch it would mix the samples.
    data = graph_bytes([("ReduceMean", ("x",), "m"), ("Sub", ("x", "m"), "y")])
    teacher = load_teacher(pinned(tmp_path / "m.onnx", data))
    images = pictures()
    assert np.array_equal(teacher(images, [0] * 3)[1:2], teacher(images[1:2], [0]))


def test_digest_tells_files_apart_and_ignores_the_path(tmp_path: Path) -> None:
    data = affine_bytes(0.5, 0.25)
    first, moved = (load_teacher(pinned(tmp_path / name, data)).digest for name in ("a.onnx", "b.onnx"))
    assert first == moved
    assert first != load_teacher(pinned(tmp_path / "c.onnx", affine_bytes(0.5, 0.3))).digest


def test_other_bytes_never_reach_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pinned(tmp_path / "m.onnx", affine_bytes(1, 0))
    (tmp_path / "m.onnx").write_bytes(affine_bytes(2, 0))
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match=f"expected {settings['sha256']}"):
        load_teacher(settings)


def test_missing_file(tmp_path: Path) -> None:
    settings = pinned(tmp_path / "m.onnx", b"")
    with pytest.raises(UserError, match="cannot read .*put the file there"):
        load_teacher(settings | {"path": str(tmp_path / "absent.onnx")})


def classifier() -> bytes:
    return graph_bytes([("ReduceMean", ("x",), "y")], out=(1, 1, 1, 1))


def half() -> bytes:
    return graph_bytes([("Relu", ("x",), "y")], dtype=TensorProto.FLOAT16)


def two_inputs() -> bytes:
    model = onnx.load_model_from_string(graph_bytes([("Relu", ("x",), "y")]))
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    return model.SerializeToString()


def unknown_operator() -> bytes:
    model = onnx.load_model_from_string(graph_bytes([("Relu", ("x",), "y")]))
    model.graph.node[0].op_type = "Paint"
    return model.SerializeToString()


def external_weights() -> bytes:
    model = onnx.load_model_from_string(affine_bytes(1, 0))
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no model", "not an ONNX model"),
        (classifier(), "not an image-to-image model"),
        (half(), "not an image-to-image model"),
        (two_inputs(), "not an image-to-image model"),
        (graph_bytes([("Relu", ("x",), "y")], shape=("b", 1, 8, 8)), "not an image-to-image model"),
        (graph_bytes([("Relu", ("x",), "y")], shape=("b", 3, 8, 3)), "not an image-to-image model"),
        (unknown_operator(), "ONNX Runtime refuses the model"),
        (external_weights(), "its weights lie in another file"),
    ],
)
def test_another_contract_is_refused_in_one_line(tmp_path: Path, data: bytes, says: str, capfd: Any) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_teacher(pinned(tmp_path / "m.onnx", data))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_fixed_size_must_be_the_pairs_size(tmp_path: Path) -> None:
    teacher = load_teacher(pinned(tmp_path / "m.onnx", affine_bytes(1, 0, shape=("b", 3, 16, 16))))
    with pytest.raises(UserError, match=r"takes NCHW images of \(3, 16, 16\), the pairs are \(3, 8, 8\)"):
        teacher(pictures(1), [0])


def test_a_model_that_changes_the_size_is_refused(tmp_path: Path) -> None:
    # A 3x3 convolution without padding.
    data = graph_bytes(
        [("Conv", ("x", "w"), "y")], out=("b", 3, "h2", "w2"), constants={"w": np.ones((3, 3, 3, 3), np.float32)}
    )
    teacher = load_teacher(pinned(tmp_path / "m.onnx", data))
    with pytest.raises(UserError, match="keeps the size"):
        teacher(pictures(1), [0])


@pytest.mark.skipif(not UDNIE.is_file(), reason="needs ../shared/data/teachers/udnie.onnx")
def test_a_real_style_teacher() -> None:
    teacher = load_teacher({"kind": "onnx", "name": "udnie", "version": 1, "path": str(UDNIE), "sha256": UDNIE_SHA256})
    images = pictures(1, 256)
    out = teacher(images, [0])
    assert out.shape == (1, 256, 256, 3) and 0 <= out.min() and out.max() <= 1
    assert np.abs(out - images / 255).mean() > 0.1
