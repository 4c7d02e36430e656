"""How far two pictures are apart to the eye, for inversion: LPIPS where its weights are at hand, else a pyramid.

LPIPS (Zhang et al. 2018) needs AlexNet or VGG16 trained on ImageNet, as torchvision's state dict in safetensors; its
own small part comes with torchmetrics. Without them: L1 between Laplacian pyramids (Bojanowski et al. 2018), which
knows no faces but keeps edges in their place.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from models.errors import UserError
from models.teachers.stylegan2.operations import downsample, upsample

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (B,3,H,W) in [-1,1], twice -> (B,)
NETS = {5: "alex", 13: "vgg"}  # by the number of convolutions
LARGEST = 256  # pixels on a side at which LPIPS looks


def load_distance(path: Path | None) -> Distance:
    """The distance to use: LPIPS with the weights in a safetensors file, or the pyramid if there is none."""
    return pyramid_distance if path is None else lpips(path)


def pyramid_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each level of a Laplacian pyramid, averaged over the levels; 0 for the same."""
    rest, levels = a - b, []  # the pyramid is linear, so that of the difference is the difference of theirs
    while min(rest.shape[2:]) >= 16 and not (rest.shape[2] % 2 or rest.shape[3] % 2):
        smaller = downsample(rest)
        levels.append((rest - upsample(smaller)).abs().mean(dim=(1, 2, 3)))
        rest = smaller
    return torch.stack([*levels, rest.abs().mean(dim=(1, 2, 3))]).mean(dim=0)


def lpips(path: Path) -> Distance:
    """LPIPS with the convolutions of a torchvision AlexNet or VGG16; a UserError for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchmetrics.functional.image.lpips import _LPIPS

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is no safetensors file ({error}): save torchvision's AlexNet or VGG16 as one"
        ) from None
    weights = sorted((int(name.split(".")[1]), name) for name in tensors if _is_convolution(name, tensors[name]))
    net = NETS.get(len(weights))
    if net is None:
        raise UserError(f"{path} holds {len(weights)} convolutions: AlexNet has 5 and VGG16 13; give one of these")
    network = _LPIPS(pretrained=True, net=net, pnet_rand=True).eval().requires_grad_(False)
    layers = [layer for layer in network.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer, (_, name) in zip(layers, weights, strict=True):
        layer.weight.copy_(tensors[name])
        assert layer.bias is not None
        layer.bias.copy_(tensors[name.replace(".weight", ".bias")])

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return network.to(a.device)(_at_most(a), _at_most(b)).flatten()

    return distance


def _is_convolution(name: str, tensor: torch.Tensor) -> bool:
    return name.startswith("features.") and name.endswith(".weight") and tensor.ndim == 4


def _at_most(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, size=(LARGEST, LARGEST), mode="area") if x.shape[-1] > LARGEST else x
