"""How far one set of pictures is from another as a set: kernel inception distance (Binkowski et al. 2018), offline.

KID is unbiased on small sets, where FID is not. Its features are those of a network without training (Naeem et al.
2020 and models/perceptual.py), as Inception's weights would have to be downloaded: figures compare with one another,
not with those of the literature. 0 is no difference beyond chance, and may come out a little negative.
"""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.perceptual import random_features
from models.torch_setup import make_torchvision_importable

SUBSETS = 50


class Scaled(nn.Module):
    """Pooled features over the root mean square of a set's own, so that the kernel sees values of about 1."""

    def __init__(self, of: Tensor) -> None:
        super().__init__()
        self.scale = of.square().mean().sqrt()
        self.num_features = of.shape[1]

    def forward(self, pooled: Tensor) -> Tensor:
        """(B,C) -> (B,C)."""
        return pooled / self.scale


def pooled(pictures: Iterable[Tensor]) -> Tensor:
    """Batches of (B,3,H,W) in [0,1] -> their features (N,C)."""
    network = random_features()
    with torch.inference_mode():
        return torch.cat([network.pooled(batch) for batch in pictures])


def kid(outputs: Tensor, targets: Tensor, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of KID over subsets of half the pictures, of pooled features (N,C) each.

    Raises UserError for fewer than 8 pictures.
    """
    make_torchvision_importable()
    from torchmetrics.image.kid import KernelInceptionDistance

    size = len(targets) // 2
    if size < 4:
        raise UserError(f"KID of {len(targets)} pictures says nothing: have at least 8 to test on")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Metric `Kernel Inception Distance`"
        )  # that it keeps what it is given
        metric = KernelInceptionDistance(feature=Scaled(targets), subsets=SUBSETS, subset_size=size)
    metric.update(targets, real=True)
    metric.update(outputs, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)
