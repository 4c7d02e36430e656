"""VGG (Simonyan & Zisserman 2015) and MobileNetV2 (Sandler et al. 2018) for small pictures.

Both as the literature on distillation has them for 32x32 pixels (Tian et al. 2020): VGG with BatchNorm and one linear
layer, MobileNetV2 with plain ReLU and fewer strides. Modules have names of their own.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.classification.classifier import PictureClassifier, begin_weights
from models.errors import UserError

# Convolutions of each of the five levels, by the number of layers with weights.
VGG_LEVELS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_WIDTHS = (64, 128, 256, 512, 512)
# Expansion (0: the architecture's own), channels, blocks, stride.
MOBILENET_LEVELS = (
    (1, 16, 1, 1),
    (0, 24, 2, 1),
    (0, 32, 3, 2),
    (0, 64, 4, 2),
    (0, 96, 3, 1),
    (0, 160, 3, 2),
    (0, 320, 1, 1),
)
MOBILENET_LAST = 1280


def conv_bn_relu(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution, BatchNorm and, if asked, ReLU; keeps the size but for the stride."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *([nn.ReLU()] if activate else []))


class CifarVgg(PictureClassifier):
    """VGG with `depth` layers; pictures are halved before the second, third and fourth level."""

    def __init__(self, *, classes: int, depth: int, **normalisation: Sequence[float]) -> None:
        super().__init__(**normalisation)
        if depth not in VGG_LEVELS:
            raise UserError(f"architecture.depth {depth}: a vgg-cifar has {', '.join(map(str, VGG_LEVELS))} layers")
        inputs = 3
        levels = []
        for number, (count, outputs) in enumerate(zip(VGG_LEVELS[depth], VGG_WIDTHS, strict=True)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number in (1, 2, 3) else []
            for _ in range(count):
                layers.append(conv_bn_relu(inputs, outputs))
                inputs = outputs
            levels.append(nn.Sequential(*layers))
        self.levels = nn.Sequential(*levels)
        self.linear = nn.Linear(inputs, classes)
        begin_weights(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> (B,512,S/8,S/8)."""
        y: Tensor = self.levels(x)
        return y

    def classifier(self) -> nn.Module:
        """The linear layer."""
        return self.linear


class InvertedResidual(nn.Module):
    """To `expand` times the channels, depthwise 3x3, and back; added to what came in where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.adds = stride == 1 and inputs == outputs
        self.expand = conv_bn_relu(inputs, hidden, kernel=1)
        self.depthwise = conv_bn_relu(hidden, hidden, stride=stride, groups=hidden)
        self.project = conv_bn_relu(hidden, outputs, kernel=1, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,outputs,h/stride,w/stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class CifarMobileNetV2(PictureClassifier):
    """MobileNetV2 at `width` times its channels, which expands them `expand` times; the last layer keeps 1,280."""

    def __init__(self, *, classes: int, width: float, expand: int, **normalisation: Sequence[float]) -> None:
        super().__init__(**normalisation)
        inputs = int(32 * width)
        self.stem = conv_bn_relu(3, inputs, stride=2)
        levels = []
        for own, channels, count, stride in MOBILENET_LEVELS:
            outputs = int(channels * width)
            blocks = []
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride if number == 0 else 1, own or expand))
                inputs = outputs
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.Sequential(*levels)
        last = int(MOBILENET_LAST * max(1.0, width))
        self.last = conv_bn_relu(inputs, last, kernel=1)
        self.linear = nn.Linear(last, classes)
        begin_weights(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> (B,D,S/16,S/16)."""
        y: Tensor = self.last(self.levels(self.stem(x)))
        return y

    def classifier(self) -> nn.Module:
        """The linear layer."""
        return self.linear
