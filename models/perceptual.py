"""A perceptual distance that needs no download: features of a network with random weights.

LPIPS (Zhang et al. 2018) asks a network that was trained to classify, which is tens of megabytes and not ours to ship.
Much of what such a distance is worth lies in the architecture: a VGG that was never trained follows people's judgement
nearly as well once features are compared by more than their place (Amir & Weiss 2021), draws textures and styles (He et
al. 2016), and embeds sets of pictures for measures of distribution (Naeem et al. 2020). This one has the shape of
VGG's first four blocks with a quarter of the channels, weights drawn by a fixed seed and scaled as He et al. (2015);
most filters of the first layer sum to zero, as those that are learnt do: else a shade counts for more than blur.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 20151213
WIDTHS = (16, 32, 64, 96)
PLAIN = 4  # filters of the first layer that see colour and brightness as they are


class RandomFeatures(nn.Module):
    """(B,3,H,W) in [0,1] -> features at 1/1, 1/2, 1/4 and 1/8 of the size; frozen, the same on every machine."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        layers, before = [], 3
        for width in WIDTHS:
            layer = nn.Conv2d(before, width, 3, padding=1)
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / (9 * before)) ** 0.5)
                layer.bias.zero_()  # type: ignore[union-attr]
            layers.append(layer)
            before = width
        self.layers = nn.ModuleList(layers)
        with torch.no_grad():
            edges = layers[0].weight[PLAIN:]
            edges.sub_(edges.mean(dim=(2, 3), keepdim=True)).mul_((9 / 8) ** 0.5)  # a ninth of the variance goes
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """As above."""
        found = []
        x = (x - 0.5) * 4  # about unit variance
        for number, layer in enumerate(self.layers):
            if number:
                x = functional.avg_pool2d(x, 2)
            x = layer(x).relu()
            found.append(x)
        return found

    def pooled(self, x: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,C): each feature's mean and deviation, to compare sets of pictures by."""
        found = self(x)
        return torch.cat([*(one.mean(dim=(2, 3)) for one in found), *(spread(one) for one in found)], dim=1)


@cache
def random_features(device: str = "cpu") -> RandomFeatures:
    """The one network on a device."""
    # Whoever asks first may do so in inference mode, whose tensors no later gradient could pass through.
    with torch.inference_mode(False):
        return RandomFeatures().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def distances(output: Tensor, target: Tensor) -> Tensor:
    """How different two (B,3,H,W) in [0,1] look, (B,): squared distances of features of unit length, as in LPIPS.

    Besides place by place, features are compared by their deviation over the picture (Amir & Weiss 2021: by how they
    are distributed, as a texture need not lie at the same pixel).
    """
    network = random_features(str(output.device))
    both = network(torch.cat([output, target]))
    found = output.new_zeros(len(output))
    for features in both:
        ours, theirs = features.chunk(2)
        apart = (unit(ours) - unit(theirs)).square().sum(dim=1).mean(dim=(1, 2))
        texture = (spread(ours) - spread(theirs)).abs() / (spread(ours) + spread(theirs))
        found = found + apart + texture.mean(dim=1)
    return found / len(both)


def unit(features: Tensor) -> Tensor:
    """(B,C,h,w) scaled to length 1 along C at every place."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def spread(features: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,C): the standard deviation over the picture, a little more than 0."""
    return (features.var(dim=(2, 3), unbiased=False) + 1e-4).sqrt()


def perceptual(output: Tensor, target: Tensor) -> Tensor:
    """The mean of `distances` between parts of two (B,3,H,W): 0 on equal ones.

    Whole pictures would cost a training step as much as the student does. So it is the middle of every second one: a
    student is the same everywhere, and a batch is drawn at random.
    """
    return distances(middles(output), middles(target)).mean()


def middles(pictures: Tensor) -> Tensor:
    """(B,3,H,W) -> (ceil(B/2),3,H//2,W//2): the middle of the first, the third, and so on."""
    height, width = pictures.shape[-2], pictures.shape[-1]
    top, left = height // 4, width // 4
    middle = pictures[::2, :, top : top + height // 2, left : left + width // 2]
    return middle.contiguous(memory_format=torch.channels_last)
