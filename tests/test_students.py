"""Students: shapes, gradients, what the exporters rely on, and refusals in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.errors import UserError
from models.students import build_student, load_student
from tasks.files import sha256_file
from tasks.params import load_params
from tasks.student_params import Architecture

SMALL = {
    "encoder": "mobilenetv4_conv_small_035",
    "decoder_channels": [16, 16, 8, 8],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}


@pytest.mark.parametrize("skip", ["add", "concat"])
@pytest.mark.parametrize("head", ["pixel-shuffle", "full-resolution"])
def test_output_is_a_picture_of_the_same_size(skip: str, head: str) -> None:
    student = build_student({**SMALL, "skip": skip, "head": head}, 64).eval()
    output = student(torch.rand(2, 3, 64, 96))
    assert output.shape == (2, 3, 64, 96)
    assert 0 <= output.min() and output.max() <= 1


PATCHES = {"encoder": "patches4_8_16_24", "decoder_channels": [16, 8]}
GATED = {**PATCHES, "encoder": "patches4_8_16_24_se"}
QUARTER = {"decoder_channels": [16, 16, 16]}


@pytest.mark.parametrize(("change", "block"), [({}, 2), (QUARTER, 4), ({"decoder_channels": [16]}, 16), (PATCHES, 4)])
def test_a_decoder_that_ends_early_gives_larger_blocks(change: dict[str, object], block: int) -> None:
    student = build_student({**SMALL, **change}, 64).eval()
    assert student.head.out_channels == 3 * block**2
    assert student(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("change", [{}, PATCHES, GATED])
def test_every_weight_gets_a_gradient(change: dict[str, object]) -> None:
    student = build_student({**SMALL, **change}, 64).train()
    student(torch.rand(2, 3, 64, 64)).square().mean().backward()
    without = [name for name, weight in student.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


@pytest.mark.parametrize(("change", "sees"), [(PATCHES, False), (GATED, True)])
def test_squeeze_and_excitation_sees_the_whole_picture(change: dict[str, object], sees: bool) -> None:
    torch.manual_seed(0)
    student = build_student({**SMALL, **change}, 64).eval()
    picture = torch.rand(1, 3, 64, 512)
    changed = picture.clone()
    changed[..., 448:] = 0
    with torch.no_grad():
        moved = (student(picture) - student(changed)).abs().amax(dim=(0, 1, 2))
    assert moved[448:].min() > 0
    assert bool(moved[:64].min() > 0) == sees


def test_no_clamp_while_training_so_that_gradients_live() -> None:
    student = build_student(SMALL, 64).train()
    nn.init.constant_(student.head.bias, 3.0)
    assert student(torch.rand(2, 3, 64, 64)).max() > 1


def test_only_relu6_is_left() -> None:
    student = build_student({**SMALL, "encoder": "mobilenetv4_conv_small_050"}, 64)
    assert not [module for module in student.modules() if isinstance(module, nn.ReLU)]
    assert [module for module in student.modules() if isinstance(module, nn.ReLU6)]


@pytest.mark.parametrize("name", list(load_params(Path(__file__).parent.parent / "params.yaml").students))
def test_every_shipped_architecture_builds(name: str, repository: Path) -> None:
    block = load_params(repository / "params.yaml").students[name]
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    assert sum(parameter.numel() for parameter in student.parameters()) < 2_000_000
    assert set(Architecture.model_fields) == set(SMALL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder": "mobilenetv4_conv_smal"}, "timm has no model"),
        ({"decoder_channels": [16, 8, 8, 8, 8]}, "decoder_channels has 5 entries; .* needs 4 or fewer"),
        ({"decoder_channels": [16, 8], "head": "full-resolution"}, "decoder_channels has 2 entries; .* needs 4, "),
        ({**PATCHES, "head": "full-resolution"}, "needs 2, and an encoder that begins at half resolution"),
    ],
)
def test_a_wrong_architecture_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_student({**SMALL, **change}, 64)


def test_a_size_the_encoder_cannot_halve_is_refused() -> None:
    with pytest.raises(UserError, match="not a multiple of 32"):
        build_student(SMALL, 80)


def test_weights_with_another_sha256_are_refused(tmp_path: Path) -> None:
    student = build_student(SMALL, 64)
    save_file(student.state_dict(), tmp_path / "weights.safetensors")
    record = {"architecture": SMALL, "size": 64, "weights_sha256": sha256_file(tmp_path / "weights.safetensors")}
    (tmp_path / "student.json").write_text(json.dumps(record))
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(load_student(tmp_path)(x), student.eval()(x))
    with (tmp_path / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(UserError, match="sha256"):
        load_student(tmp_path)
