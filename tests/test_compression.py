"""Pruned and factorised students: smaller, still students, and the same after they were saved and loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.classification.networks import build
from models.compression import ROUND_TO, factorise, fit, is_pointwise, least_rank, prune
from models.exportability import blank, mega_macs
from models.students import build_student, load_student
from tasks.files import sha256_file, write_json

ARCHITECTURE = {
    "encoder": "mobilenetv4_conv_small_050",
    "decoder_channels": [48, 32, 24, 16],
    "skip": "add",
    "upsample": "bilinear",
    "head": "pixel-shuffle",
}
SIZE = 64


@pytest.fixture
def student() -> nn.Module:
    """One whose BatchNorms hold what a training leaves there."""
    torch.manual_seed(0)
    built = build_student(ARCHITECTURE, SIZE).train()
    with torch.no_grad():
        for _ in range(3):
            built(torch.rand(4, 3, SIZE, SIZE))
    return built.eval()


def picture() -> torch.Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("skip", ["add", "concat"])
def test_pruning_takes_whole_channels_and_leaves_a_student(skip: str) -> None:
    torch.manual_seed(0)
    student = build_student({**ARCHITECTURE, "skip": skip}, SIZE).eval()
    before = mega_macs(student, blank(SIZE))
    prune(student, SIZE, 0.5)
    assert 0.2 * before < mega_macs(student, blank(SIZE)) < 0.6 * before
    output = student(picture())
    assert output.shape == (1, 3, SIZE, SIZE)
    widths = [layer.num_features for layer in student.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(width % ROUND_TO == 0 for width in widths)
    student.train()(picture().repeat(2, 1, 1, 1)).square().mean().backward()
    assert not [name for name, weight in student.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.95])
def test_narrow_layers_lose_channels_too_and_keep_a_multiple(share: float) -> None:
    network = build({"kind": "resnet-cifar", "depth": 8, "widths": [16, 32, 64]}, 10)
    prune(network, 32, share, kept=network.uncut())  # type: ignore[operator]
    widths = {layer.out_channels for name, layer in network.named_modules() if name.endswith("conv1") and "." in name}
    assert widths == {max(ROUND_TO, round(whole * (1 - share)) // ROUND_TO * ROUND_TO) for whole in (16, 32, 64)}


def test_the_least_channels_go(student: nn.Module) -> None:
    """A channel that holds nothing is among those that are cut, so cutting it changes nothing."""
    level = student.decoder[-1]  # type: ignore[union-attr, index]
    last = level.pointwise  # its outputs reach the head alone
    with torch.no_grad():
        for part in (last[0].weight, last[1].weight, last[1].bias, last[1].running_mean):
            part[:ROUND_TO] = 0.0
        student.head.weight[:, :ROUND_TO] = 0.0  # type: ignore[union-attr, index]
        kept = last[0].weight[ROUND_TO:].clone()
    prune(student, SIZE, 0.5)
    assert last[0].weight.shape[0] == kept.shape[0]
    # The inputs of these were pruned as well; each output is one of the channels that held something.
    assert all(bool((row != 0).any()) for row in last[0].weight)


def test_factors_of_full_energy_change_nothing_and_of_less_save(student: nn.Module) -> None:
    before, whole = student(picture()), mega_macs(student, blank(SIZE))
    matrices = {
        name: layer.weight.flatten(1).detach() for name, layer in student.named_modules() if is_pointwise(layer)
    }
    for matrix in matrices.values():
        assert least_rank(matrix, 1.0) >= int(torch.linalg.matrix_rank(matrix))
    ranks = factorise(student, 0.8)
    assert ranks
    for name, rank in ranks.items():
        assert rank * sum(matrices[name].shape) < matrices[name].numel()
        first, second = student.get_submodule(name)  # type: ignore[misc]
        product = (second.weight.flatten(1) @ first.weight.flatten(1)).detach()
        lost = (product - matrices[name]).square().sum() / matrices[name].square().sum()
        assert lost < 0.2 + 1e-6
    assert mega_macs(student, blank(SIZE)) < whole
    assert 0 < (student(picture()) - before).abs().mean() < 0.2


def test_a_matrix_of_low_rank_is_kept_exactly(student: nn.Module) -> None:
    name, layer = next(
        (name, one) for name, one in student.named_modules() if is_pointwise(one) and min(one.weight.shape[:2]) >= 64
    )
    with torch.no_grad():
        u, v = torch.randn(layer.out_channels, 3), torch.randn(3, layer.in_channels)
        layer.weight.copy_((u @ v)[..., None, None] / 10)
    before = student(picture())
    ranks = factorise(student, 1 - 1e-9)
    assert ranks[name] == ROUND_TO
    torch.testing.assert_close(student(picture()), before, atol=1e-4, rtol=0)


def test_a_compressed_student_is_loaded_as_it_was(student: nn.Module, tmp_path: Path) -> None:
    prune(student, SIZE, 0.3)
    ranks = factorise(student, 0.9)
    wanted = student(picture())
    save_file(
        {name: value.contiguous() for name, value in student.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    record = {"architecture": ARCHITECTURE, "size": SIZE, "ranks": ranks}
    write_json(tmp_path / "student.json", record | {"weights_sha256": sha256_file(tmp_path / "weights.safetensors")})
    loaded = load_student(tmp_path)
    torch.testing.assert_close(loaded(picture()), wanted, atol=0, rtol=0)


def test_fit_leaves_a_whole_student_alone(student: nn.Module) -> None:
    other = build_student(ARCHITECTURE, SIZE)
    layers = dict(other.named_modules())
    fit(other, student.state_dict(), {})
    assert dict(other.named_modules()) == layers
