"""What modules of a network give, in one of three forms: (B,C,h,w) of a convolution, (B,L,C) of tokens, (B,C).

Where two have not the same form, or tokens are of other lengths, they meet as means over their places, (B,C). Of tokens
only those count that a mask (B,L) has, where there is one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import UserError
from models.terms import find_module, inner_outputs

# A batch and what a network takes besides -> what the teacher's modules give, in one of the three forms each.
Inner = Callable[..., list[Tensor]]


def module_features(network: nn.Module, paths: Sequence[str]) -> Inner:
    """What modules of a teacher give in eval mode, without gradient, in the order of `paths`.

    Asked again about the very batch it was asked about last, it says the same, so that several terms cost one pass.
    Raises UserError for unknown paths at once, and for modules without features when it is asked.
    """
    for path in paths:
        find_module(network, path)
    network.eval().requires_grad_(False)
    last: list[tuple[Tensor, list[Tensor]]] = []

    def features(inputs: Tensor, *controls: Tensor) -> list[Tensor]:
        if not (last and last[0][0] is inputs):
            last[:] = [(inputs, probe(network.to(inputs.device), paths, inputs, *controls, who="teacher"))]
        return last[0][1]

    return features


def probe(network: nn.Module, paths: Sequence[str], inputs: Tensor, *controls: Tensor, who: str) -> list[Tensor]:
    """What modules give for a batch, in the order of `paths`; modes and statistics of the network stay as they are."""
    modes = {module: module.training for module in network.modules()}
    with torch.no_grad(), inner_outputs(network, paths) as found:
        network.eval()(inputs, *controls)
    for module, training in modes.items():
        module.training = training
    for path in paths:
        check_features(found.get(path), path, who)
    return [found[path] for path in paths]


def check_features(found: object, path: str, who: str) -> None:
    """Refuse what is none of the three forms, and a module that was not run."""
    if found is None:
        raise UserError(f"train.features: {path!r} of the {who} is not run when it answers: name another module")
    if not (isinstance(found, Tensor) and found.is_floating_point() and 2 <= found.ndim <= 4):
        raise UserError(
            f"train.features: {path!r} of the {who} gives no features (B,C,h,w), (B,L,C) or (B,C): name another module"
        )


def channels(features: Tensor) -> int:
    """How many channels features have."""
    return features.shape[-1 if features.ndim == 3 else 1]


def project(features: Tensor, width: int, *, bias: bool = True) -> nn.Module:
    """A linear map of the channels of such features to `width` others, place by place."""
    if features.ndim == 4:
        return nn.Conv2d(features.shape[1], width, 1, bias=bias)
    return nn.Linear(features.shape[-1], width, bias=bias)


def mask_for(features: Tensor, controls: Sequence[Tensor]) -> Tensor | None:
    """The mask (B,L) among what a student takes besides, where these are tokens and it fits them."""
    fits = features.ndim == 3 and len(controls) > 0 and controls[0].shape == features.shape[:2]
    return controls[0] if fits else None


def pooled(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Means over places, (B,C)."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    if features.ndim == 2:
        return features
    if mask is None:
        return features.mean(dim=1)
    kept = mask[..., None].to(features.dtype)
    return (features * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def masked(features: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens that do not count set to 0; other features as they are."""
    return features if mask is None or features.ndim != 3 else features * mask[..., None].to(features.dtype)


def alike(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both in one form and at the smaller of their sizes: (B,C,h,w) or (B,L,C), else (B,C). C may differ."""
    if ours.ndim == theirs.ndim == 4:
        return same_size(ours, theirs)
    if ours.ndim == theirs.ndim and ours.shape[1:-1] == theirs.shape[1:-1]:
        return ours, theirs
    return pooled(ours, mask), pooled(theirs, mask_for(theirs, [] if mask is None else [mask]))


def same_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller of their sizes, by means over areas."""
    size = [min(pair) for pair in zip(ours.shape[-2:], theirs.shape[-2:], strict=True)]
    return functional.adaptive_avg_pool2d(ours, size), functional.adaptive_avg_pool2d(theirs, size)


def mean_where(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of (B,L,C) over the tokens of the mask; of other forms, or without a mask, over everything."""
    if mask is None or values.ndim != 3:
        return values.mean()
    return masked(values, mask).sum() / (mask.sum() * values.shape[-1]).clamp(min=1)
