"""Residual networks for small pictures: ResNet (He et al. 2016, section 4.2), Wide ResNet (Zagoruyko & Komodakis 2016).

Modules are named as in the usual code, so its weights load. Three stages, each at half the size of the one before.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from models.classification.classifier import PictureClassifier, begin_weights
from models.errors import UserError


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size but for the stride; its shift is BatchNorm's."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class PaddedShortcut(nn.Module):
    """Option A: every second place, and channels of zeros on both sides. It has no weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,outputs,h/stride,w/stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def shortcut(inputs: int, outputs: int, stride: int, option: str) -> nn.Module:
    """What a block adds to: what came in, made to fit by option A (zeros) or B (a 1x1 convolution)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if option == "A":
        return PaddedShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride, option)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,outputs,h/stride,w/stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(PictureClassifier):
    """ResNet of depth 6n+2: a convolution, three stages of n blocks, a linear layer.

    `widths` are the stages' channels and `stem` those of the first convolution, 0 being as many as the first stage
    has. resnet8x4 and resnet32x4 of the literature on distillation (Tian et al. 2020) are of stem 32, widths
    64, 128, 256 and shortcut B.
    """

    def __init__(
        self,
        *,
        classes: int,
        depth: int,
        widths: Sequence[int],
        stem: int = 0,
        shortcut: str = "A",
        **normalisation: Sequence[float],
    ) -> None:
        super().__init__(**normalisation)
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"architecture.depth {depth}: a resnet-cifar has 6n+2 layers: 8, 14, 20, 32, 56, 110")
        self.option = shortcut
        inputs = stem or widths[0]
        if shortcut == "A" and any(a > b for a, b in zip([inputs, *widths], widths, strict=False)):
            raise UserError("architecture.widths: shortcut A adds channels and takes none away: let widths grow, or B")
        self.conv1, self.bn1 = conv3x3(3, inputs), nn.BatchNorm2d(inputs)
        stages = []
        for stride, outputs in zip((1, 2, 2), widths, strict=True):
            blocks = []
            for number in range((depth - 2) // 6):
                blocks.append(BasicBlock(inputs, outputs, stride if number == 0 else 1, shortcut))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, classes)
        begin_weights(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> (B,D,S/4,S/4)."""
        y: Tensor = functional.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return y

    def classifier(self) -> nn.Module:
        """The linear layer."""
        return self.linear

    def uncut(self) -> list[nn.Module]:
        """With padded shortcuts, all that is added along the blocks: inside of them channels go (Li et al. 2017)."""
        if self.option != "A":
            return super().uncut()
        seconds = [block.conv2 for block in self.modules() if isinstance(block, BasicBlock)]
        return [self.linear, self.conv1, *seconds]


class PreactivatedBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a 1x1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.changes = inputs != outputs
        self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if self.changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,outputs,h/stride,w/stride)."""
        active = functional.relu(self.bn1(x))
        y: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return y + self.shortcut(active if self.changes else x)


class WideResNet(PictureClassifier):
    """Wide ResNet of depth 6n+4, `width` times the channels of a ResNet.

    As published its BatchNorms stand after additions, where no convolution takes them in: in a file they are a
    multiplication and an addition of their own.
    """

    def __init__(self, *, classes: int, depth: int, width: int, **normalisation: Sequence[float]) -> None:
        super().__init__(**normalisation)
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"architecture.depth {depth}: a wrn-cifar has 6n+4 layers: 10, 16, 22, 28, 40")
        inputs = 16
        self.conv1 = conv3x3(3, inputs)
        stages = []
        for stride, outputs in zip((1, 2, 2), (16 * width, 32 * width, 64 * width), strict=True):
            blocks = []
            for number in range((depth - 4) // 6):
                blocks.append(PreactivatedBlock(inputs, outputs, stride if number == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.block1, self.block2, self.block3 = stages
        self.bn1 = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        begin_weights(self)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> (B,D,S/4,S/4)."""
        y = self.block3(self.block2(self.block1(self.conv1(x))))
        return functional.relu(self.bn1(y))

    def classifier(self) -> nn.Module:
        """The linear layer."""
        return self.linear
