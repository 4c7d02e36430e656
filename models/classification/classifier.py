"""What every picture classifier here is: plain pictures in, logits out, with the pooled features on the way.

Mean and standard deviation belong to the network, so that its file takes what a camera gives, as the files of image
effects do. They are no weights: params.yaml says them, and a state dict is that of the literature's code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, RGB


class PictureClassifier(nn.Module):
    """(B,3,S,S) in [0,1] -> logits (B,C). The module `pool` gives the pooled features (B,D)."""

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.pool: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> the last feature maps (B,D,h,w)."""
        raise NotImplementedError

    def classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """(B,3,S,S) in [0,1] -> pooled features (B,D)."""
        pooled: Tensor = self.pool(self.maps((x - self.mean) / self.std))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,S,S) in [0,1] -> (B,C)."""
        logits: Tensor = self.classifier()(self.features(x))
        return logits

    def uncut(self) -> list[nn.Module]:
        """Layers whose outputs pruning has to leave as many as they are."""
        return [self.classifier()]


def begin_weights(network: nn.Module) -> None:
    """Convolutions as He et al. 2015 begin them, by torch's global generator; BatchNorm begins as torch has it."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
