"""Networks that classify pictures: of the literature's sizes, with its weights, and smaller after a cut."""

import io
import itertools
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn

from models.batches import to_tensor
from models.classification.networks import build, check_classes, classes_of, cut, described, load_network, load_weights
from models.compression import fit
from models.errors import UserError
from models.terms import inner_outputs
from tasks.classification.network_params import ImageArchitecture
from tasks.files import sha256_file, write_json
from tasks.params import parse_params, parse_yaml

# Of Tian et al. 2020 (CRD), in millions for 100 classes.
LITERATURE: list[tuple[dict[str, Any], float]] = [
    ({"kind": "resnet-cifar", "depth": 32, "widths": [64, 128, 256], "stem": 32, "shortcut": "B"}, 7.43),
    ({"kind": "resnet-cifar", "depth": 8, "widths": [64, 128, 256], "stem": 32, "shortcut": "B"}, 1.23),
    ({"kind": "resnet-cifar", "depth": 56, "widths": [16, 32, 64], "shortcut": "B"}, 0.86),
    ({"kind": "resnet-cifar", "depth": 20, "widths": [16, 32, 64], "shortcut": "B"}, 0.28),
    ({"kind": "wrn-cifar", "depth": 40, "width": 2}, 2.26),
    ({"kind": "wrn-cifar", "depth": 16, "width": 2}, 0.70),
    ({"kind": "vgg-cifar", "depth": 13}, 9.46),
    ({"kind": "vgg-cifar", "depth": 8}, 3.96),
    ({"kind": "mobilenetv2-cifar", "width": 0.5, "expand": 6}, 0.81),
]
SMALL: list[dict[str, Any]] = [
    {"kind": "resnet-cifar", "depth": 14, "widths": [16, 32, 64]},
    {"kind": "resnet-cifar", "depth": 8, "widths": [16, 32, 64], "stem": 8, "shortcut": "B"},
    {"kind": "wrn-cifar", "depth": 10, "width": 1},
    {"kind": "vgg-cifar", "depth": 8},
    {"kind": "mobilenetv2-cifar", "width": 0.5, "expand": 2},
    {"kind": "timm", "name": "mobilenetv3_small_050", "size": 32},
]
TEACHER = {"kind": "resnet-cifar", "depth": 20, "widths": [16, 32, 64], "stem": 0, "shortcut": "A"}


def pictures(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def seen(architecture: dict[str, Any], classes: int = 5) -> nn.Module:
    """One whose BatchNorms hold what a training leaves there."""
    torch.manual_seed(0)
    network = build(architecture, classes).train()
    with torch.no_grad():
        for _ in range(2):
            network(pictures(4))
    return network.eval()


@pytest.mark.parametrize(("architecture", "millions"), LITERATURE)
def test_they_are_as_large_as_in_the_literature(architecture: dict[str, Any], millions: float) -> None:
    count = sum(weight.numel() for weight in build(architecture, 100).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_padded_shortcuts_have_no_weights() -> None:
    """He et al. 2016, table 6: ResNet-20 has 0.27 million."""
    network = build(TEACHER, 10)
    assert sum(weight.numel() for weight in network.parameters()) == 269_722
    assert not [name for name, _ in network.named_parameters() if "shortcut" in name]


@pytest.mark.parametrize("architecture", SMALL, ids=lambda one: one["kind"])
def test_logits_are_the_last_layer_on_pooled_features(architecture: dict[str, Any]) -> None:
    network = seen(architecture)
    with torch.no_grad(), inner_outputs(network, ["pool"]) as inner:
        logits = network(pictures(3))
    assert logits.shape == (3, 5)
    assert inner["pool"].ndim == 2
    with torch.no_grad():
        torch.testing.assert_close(network.features(pictures(3)), inner["pool"])  # type: ignore[operator]
        torch.testing.assert_close(network.classifier()(inner["pool"]), logits)  # type: ignore[operator]
    network.train()(pictures(3)).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_normalisation_is_part_of_the_network_and_no_weight() -> None:
    plain = seen(SMALL[0] | {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]})
    normal = build(SMALL[0] | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}, 5).eval()
    normal.load_state_dict(plain.state_dict())
    shifted = (pictures() - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(normal(pictures()), plain(shifted))


def test_equal_seeds_build_equal_weights() -> None:
    first, second = (seen(SMALL[0]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def cifar() -> tuple[torch.Tensor, torch.Tensor]:
    """300 of CIFAR-10's test pictures, 30 of each class, and their classes."""
    archive = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar10" / "cifar10_jpegs.tar.xz"
    if not archive.is_file():
        pytest.skip("no ../shared/data beside the repository")
    found: dict[str, list[np.ndarray]] = {}
    with tarfile.open(archive) as files:
        for member in files:
            *_, side, kind, name = ("", "", *Path(member.name).parts)
            if side == "test" and name.endswith(".jpg") and len(found.setdefault(kind, [])) < 30:
                file = files.extractfile(member)
                assert file is not None
                found[kind].append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
            if len(found) == 10 and all(len(some) == 30 for some in found.values()):
                break
    labels = torch.arange(10).repeat_interleave(30)
    return to_tensor(np.stack(list(itertools.chain(*(found[kind] for kind in sorted(found)))))), labels


# JPEG costs them about ten points of 91.8 and 93.6 %; a wrong shortcut or order of classes would cost eighty.
@pytest.mark.parametrize(("depth", "least"), [(20, 0.75), (56, 0.78)])
def test_the_literatures_weights_load_and_are_right(cifar: Any, shared_data: Path, depth: int, least: float) -> None:
    values = load_file(shared_data / f"teachers/cifar10_resnet{depth}.safetensors")
    assert classes_of(TEACHER, values, "x") == 10
    network = build(TEACHER | {"depth": depth}, 10).eval()
    load_weights(network, values, "teacher")
    with torch.inference_mode():
        right = torch.cat([network(some) for some in cifar[0].split(50)]).argmax(dim=1) == cifar[1]
    assert float(right.float().mean()) > least


def test_weights_of_another_architecture_are_refused() -> None:
    values = build(TEACHER, 10).state_dict()
    with pytest.raises(UserError, match=r"^teacher t: its weights are not those of the architecture, 30 names"):
        load_weights(build(TEACHER | {"depth": 14}, 10), values, "teacher t")
    with pytest.raises(UserError, match=r"^teacher t: size mismatch for conv1.weight.*name the architecture"):
        load_weights(build(TEACHER | {"widths": [8, 16, 32]}, 10), values, "teacher t")
    with pytest.raises(UserError, match=r"no linear.weight"):
        classes_of(TEACHER, {}, "teacher t")


def test_timms_own_files_load_too() -> None:
    architecture = SMALL[-1]
    network = seen(architecture)
    own = network.network.state_dict()  # type: ignore[union-attr]
    assert classes_of(architecture, own, "x") == classes_of(architecture, network.state_dict(), "x") == 5
    other = build(architecture, 5).eval()
    load_weights(other, own, "teacher")
    with torch.no_grad():
        torch.testing.assert_close(other(pictures()), network(pictures()))


def test_a_model_of_one_size_is_built_for_the_datasets() -> None:
    network = build({"kind": "timm", "name": "vit_tiny_patch16_224", "size": 32}, 3).eval()
    with torch.no_grad():
        assert network(pictures()).shape == (2, 3)
        assert network.features(pictures()).shape == (2, 192)  # type: ignore[operator]
    assert network.mean.flatten().tolist() == [0.5, 0.5, 0.5]  # type: ignore[operator, union-attr]  # its own


def test_a_model_with_two_heads_is_taken_whole() -> None:
    """DeiT: a second head that learnt from a teacher, and their mean."""
    architecture = {"kind": "timm", "name": "deit_tiny_distilled_patch16_224", "size": 32}
    network = build(architecture, 3).eval()
    shown = (pictures() - network.mean) / network.std  # type: ignore[operator]
    with torch.no_grad(), inner_outputs(network, ["pool"]) as inner:
        torch.testing.assert_close(network(pictures()), network.network(shown))  # type: ignore[operator]
    assert inner["pool"].shape == (2, 192)
    assert classes_of(architecture, network.state_dict(), "x") == 3
    assert len(network.uncut()) == 2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("architecture", "line"),
    [
        ({"kind": "resnet-cifar", "depth": 21, "widths": [16, 32, 64]}, r"depth 21: a resnet-cifar has 6n\+2 layers"),
        ({"kind": "resnet-cifar", "depth": 8, "widths": [64, 32, 16]}, "shortcut A adds channels"),
        ({"kind": "wrn-cifar", "depth": 17, "width": 1}, r"depth 17: a wrn-cifar has 6n\+4 layers"),
        ({"kind": "vgg-cifar", "depth": 9}, "depth 9: a vgg-cifar has 8, 11, 13, 16, 19 layers"),
        ({"kind": "timm", "name": "resnet19", "size": 32}, "timm has no model 'resnet19'"),
        ({"kind": "timm", "name": "vit_tiny_patch16_224", "size": 8}, "does not take 8 x 8 pixels"),
        ({"kind": "lenet"}, "architecture.kind 'lenet': there are resnet-cifar, "),
    ],
)
def test_what_cannot_be_built_is_one_line(architecture: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        build(architecture, 3)
    assert "\n" not in str(caught.value)


def cost(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("architecture", SMALL, ids=lambda one: one["kind"] + one.get("shortcut", ""))
@pytest.mark.parametrize(("pruned", "energy"), [(0.5, 1.0), (0.0, 0.5)])
def test_a_cut_network_is_smaller_and_comes_back_from_its_weights(
    architecture: dict[str, Any], pruned: float, energy: float, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    network = seen(architecture)
    before = cost(network)
    ranks = cut(network, 32, pruned, energy)
    assert cost(network) < 0.9 * before
    assert bool(ranks) == (energy < 1)
    network.train()(pictures(3)).square().mean().backward()
    network.eval()
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    record = {
        "architecture": described(network, architecture),
        "classes": [*"abcde"],
        "ranks": ranks,
        "weights_sha256": sha256_file(tmp_path / "weights.safetensors"),
    }
    write_json(tmp_path / "student.json", record)
    again = load_network(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(pictures()), network(pictures()))
    with (tmp_path / "weights.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="another sha256"):
        load_network(tmp_path)


def test_factors_that_keep_everything_change_nothing() -> None:
    """A 3x3 convolution of rank one is exactly two thin ones, stride and border included."""
    network = seen(TEACHER | {"depth": 8})
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(layer.weight[:1] * torch.linspace(0.5, 1, len(layer.weight)).view(-1, 1, 1, 1))
        before = network(pictures())
        ranks = cut(network, 32, 0.0, 0.999999)
        assert set(ranks.values()) == {8} and "layer2.0.conv1" in ranks
        torch.testing.assert_close(network(pictures()), before, rtol=1e-4, atol=1e-4)


def test_padded_shortcuts_keep_the_width_between_blocks() -> None:
    network = seen(TEACHER)
    cut(network, 32, 0.5, 1.0)
    blocks = network.layer3  # type: ignore[union-attr]
    assert [(block.conv1.out_channels, block.conv2.out_channels) for block in blocks] == [(32, 64)] * 3  # type: ignore[union-attr]


def test_fit_narrows_a_linear_layer() -> None:
    network = seen({"kind": "vgg-cifar", "depth": 8})
    cut(network, 32, 0.5, 1.0)
    whole = build({"kind": "vgg-cifar", "depth": 8}, 5)
    fit(whole, network.state_dict(), {})
    assert whole.linear.in_features == network.linear.in_features == 256  # type: ignore[union-attr]


def test_classes_have_to_be_the_datasets() -> None:
    check_classes((), 2, ["no", "yes"], "teacher t")
    check_classes(("NO", "YES"), 2, ["no", "yes"], "teacher t")
    check_classes(("bad", "good"), 2, ["0", "1"], "teacher t")  # other names may mean the same
    with pytest.raises(UserError, match=r"teacher t knows 3 classes, and the dataset has 2 \(no, yes\)"):
        check_classes((), 3, ["no", "yes"], "teacher t")
    with pytest.raises(UserError, match=r"another order than the dataset: set the dataset's `classes` to \[YES, NO\]"):
        check_classes(("YES", "NO"), 2, ["no", "yes"], "teacher t")


def test_the_architectures_that_the_docs_tell_are_params(repository: Path) -> None:
    text = (repository / "docs" / "classifier-networks.md").read_text()
    blocks: dict[str, Any] = {}
    for part in text.split("```yaml\n")[1:]:
        blocks |= yaml.safe_load(part.split("```")[0])
    assert len(blocks) == 9
    counts = {}
    for name, block in blocks.items():
        told = TypeAdapter(ImageArchitecture).validate_python(block).model_dump()
        counts[name] = sum(weight.numel() for weight in build(told, 100).parameters()) / 1e6
    for row in (
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " M |" in line
    ):
        for name, count in (row[:2], row[2:]):
            assert counts[name] == pytest.approx(float(count.removesuffix(" M")), abs=0.006), name


def test_the_blocks_of_the_literature_are_whole(repository: Path) -> None:
    raw = yaml.safe_load((repository / "params.yaml").read_text())
    more = yaml.safe_load((repository / "docs" / "cifar.yaml").read_text())
    raw["datasets"] |= more["datasets"]
    raw["classifiers"] |= more["classifiers"]
    params = parse_params(raw)
    pairs = [name for name in params.classifiers if name.startswith("cifar100-")]
    assert len(pairs) == 4
    for name in (*pairs, "cifar10-resnet20"):
        block = params.classifiers[name]
        train = block.train
        assert train.steps * train.batch_size == 240 * 45_000 and train.milestones == [150 / 240, 180 / 240, 210 / 240]
        sizes = [
            sum(one.numel() for one in build(part.model_dump(), 100).parameters())
            for part in (block.teacher.architecture, block.architecture)
        ]
        assert sizes[0] > 2 * sizes[1]


def test_the_block_of_texts_in_the_docs_is_one(repository: Path) -> None:
    text = (repository / "docs" / "classifiers.md").read_text()
    [written] = [part for part in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "text-classification" in part]
    datasets, classifiers = written.replace("0123...", "0" * 63 + "a").split("classifiers:\n")
    shipped = (repository / "params.yaml").read_text()  # its anchors are used
    whole = shipped.replace("\ndatasets:\n", "\n" + datasets)
    whole = whole.replace("\n# What CI runs on a pull request", classifiers + "\n# What CI runs on a pull request")
    params = parse_params(parse_yaml(whole))
    block, digits = params.classifiers["sst2"], params.classifiers["digits"]
    assert block.task == "text-classification" and params.datasets[block.dataset].kind == "lines"
    assert block.gate.max_p90_ms == digits.gate.max_p90_ms and block.gate.min_accuracy < digits.gate.min_accuracy
