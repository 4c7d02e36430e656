"""A trained student made smaller: channels pruned in groups, layers replaced by two thin ones.

Pruning takes whole channels, and with each what depends on it, so the result is an ordinary smaller network:
torch-pruning's dependency graph (Fang et al. 2023, DepGraph), channels ranked by the group's L2 norm. Factors are the
truncated singular value decomposition of a layer's matrix (Denton et al. 2014): a layer to few channels, and one back.
Both need training afterwards: what is cut was used.

`fit` gives a student built from its architecture the shapes of saved weights; nothing but the weights and the ranks is
recorded of what was cut.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

ROUND_TO = 8  # channels: kernels work on so many at once, and a remainder costs as much as a whole


def prune(student: nn.Module, size: int, share: float, kept: Sequence[nn.Module] | None = None) -> None:
    """Remove about `share` (0..1) of every group of channels in place, the least ones; the outputs of `kept` stay.

    These are the student's head where nothing is said. Groups keep a multiple of ROUND_TO channels, and at least that.
    """
    import torch_pruning

    class Pruner(torch_pruning.pruner.BasePruner):  # type: ignore[misc]
        """The library's, but for groups that it would round down to nothing, which it then leaves whole."""

        def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
            left = max(round_to, (current_channels - n_pruned) // round_to * round_to)
            return max(0, current_channels - left)

    was_training = student.training
    student.eval()
    pruner = Pruner(
        student,
        torch.zeros(1, 3, size, size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share,
        round_to=ROUND_TO,
        ignored_layers=[student.head] if kept is None else list(kept),
    )
    pruner.step()
    student.train(was_training)


def factorise(student: nn.Module, energy: float, takes: Callable[[nn.Module], bool] | None = None) -> dict[str, int]:
    """Replace layers in place by two of the least rank that keeps `energy` (0..1) of the squared weights.

    These are 1x1 convolutions, or what `takes` says of all that is a matrix (`is_matrix`). Of a larger convolution the
    first of the two keeps the kernel, the second is 1x1.

    Returns the rank of each that was replaced, by dotted name: only where it saves multiplications.
    """
    ranks = {}
    for name, layer in list(student.named_modules()):
        if (takes or is_pointwise)(layer):
            matrix = layer.weight.detach().flatten(1)
            rank = least_rank(matrix, energy)
            if rank * sum(matrix.shape) < matrix.numel():
                ranks[name] = rank
                replace(student, name, factors(layer, rank))
    return ranks


def is_pointwise(layer: nn.Module) -> bool:
    """Whether this is a 1x1 convolution over all channels, which is a matrix."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1


def is_matrix(layer: nn.Module) -> bool:
    """Whether this is a linear layer, or a convolution over all channels: by output its weights are a matrix."""
    # Neither is one of another class: a convolution that scales its weights or pads by the picture is more than them.
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def least_rank(matrix: Tensor, energy: float) -> int:
    """The least rank, in steps of ROUND_TO, whose best approximation keeps `energy` of the squared entries."""
    kept = torch.linalg.svdvals(matrix.double()).square().cumsum(0)
    needed = int((kept < energy * kept[-1]).sum()) + 1
    return min(-(-needed // ROUND_TO) * ROUND_TO, len(kept))


def factors(layer: nn.Conv2d | nn.Linear, rank: int) -> nn.Sequential:
    """Two layers, in -> rank -> out, whose product is the best approximation of that rank."""
    u, values, v = torch.linalg.svd(layer.weight.detach().flatten(1).double(), full_matrices=False)
    root = values[:rank].sqrt()
    pair = thin_pair(layer, rank)
    with torch.no_grad():
        pair[0].weight.copy_((root[:, None] * v[:rank]).view_as(pair[0].weight))
        pair[1].weight.copy_((u[:, :rank] * root).view_as(pair[1].weight))
        if layer.bias is not None:
            pair[1].bias.copy_(layer.bias)
    return pair


def thin_pair(layer: nn.Conv2d | nn.Linear, rank: int) -> nn.Sequential:
    """The two layers without their values; the first carries the stride, where there are fewest channels."""
    if isinstance(layer, nn.Linear):
        inputs, outputs = layer.in_features, layer.out_features
        return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, layer.bias is not None))
    return nn.Sequential(
        nn.Conv2d(
            layer.in_channels,
            rank,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            bias=False,
        ),
        nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None),
    )


def replace(student: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the module with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(student.get_submodule(parent), last, layer)


def fit(student: nn.Module, weights: Mapping[str, Tensor], ranks: Mapping[str, int]) -> None:
    """Give a student in place the shapes of `weights`, which a compressed one of its architecture saved.

    `ranks` are what `factorise` returned. Values are not loaded.
    """
    for name, rank in ranks.items():
        layer = student.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        replace(student, name, thin_pair(layer, rank))
    for name, layer in list(student.named_modules()):
        shape = weights[f"{name}.weight"].shape if f"{name}.weight" in weights else None
        if isinstance(layer, nn.Conv2d) and shape is not None and shape != layer.weight.shape:
            replace(student, name, resized(layer, shape))
        elif isinstance(layer, nn.Linear) and shape is not None and shape != layer.weight.shape:
            replace(student, name, nn.Linear(shape[1], shape[0], bias=layer.bias is not None))
        elif isinstance(layer, nn.BatchNorm2d) and shape is not None and shape[0] != layer.num_features:
            # In place: timm's kind carries an activation too.
            layer.num_features = shape[0]
            for part in ("weight", "bias"):
                setattr(layer, part, nn.Parameter(torch.empty(shape[0])))
            for part in ("running_mean", "running_var"):
                setattr(layer, part, torch.empty(shape[0]))


def resized(layer: nn.Conv2d, shape: torch.Size) -> nn.Conv2d:
    """The same convolution for a weight of this shape; a depthwise one stays depthwise."""
    outputs, inputs = shape[:2]
    groups = outputs if layer.groups > 1 else 1
    return nn.Conv2d(
        inputs * groups,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        groups=groups,
        bias=layer.bias is not None,
    )
