"""Any picture classifier of timm, by name, without a download."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.classification.classifier import PictureClassifier
from models.errors import UserError
from models.torch_setup import import_timm


class TimmClassifier(PictureClassifier):
    """A model of timm; `mean` and `std` are its own where none are given.

    `size` is the side of the pictures it is for; a model that is built for one size is built for this one.
    """

    def __init__(
        self,
        *,
        classes: int,
        name: str,
        size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        import_timm()
        import timm

        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
            raise UserError(f"architecture.name: timm has no model {name!r}; near: {near}")
        about = timm.get_pretrained_cfg(name)
        own: dict[str, Any] = {"mean": about.mean, "std": about.std} if about else {}
        given = {"mean": mean, "std": std}
        super().__init__(**(own | {key: value for key, value in given.items() if value is not None}))
        fixed = {"img_size": size} if about and about.fixed_input_size else {}
        try:
            self.network = timm.create_model(name, pretrained=False, num_classes=classes, **fixed)
            self.splits = self._splits(size)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"architecture.name: timm's {name} does not take {size} x {size} pixels: {told:.160}"
            ) from None
        self.pool = nn.Identity()  # timm's own head pools; here its features can be asked for by path

    def _splits(self, size: int) -> bool:
        """Whether the logits come from the pooled features by one layer: not where two heads are averaged (DeiT)."""
        picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        was_training = self.network.training
        with torch.inference_mode():
            self.network.eval()
            whole = self.network(picture)
            last = self.network.get_classifier()
            one = isinstance(last, nn.Module) and torch.allclose(last(self.maps(picture)), whole, rtol=1e-4, atol=1e-5)
        self.network.train(was_training)
        return one

    def maps(self, x: Tensor) -> Tensor:
        """Normalised pictures -> pooled features (B,D)."""
        pooled: Tensor = self.network.forward_head(self.network.forward_features(x), pre_logits=True)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,S,S) in [0,1] -> (B,C)."""
        if self.splits:
            return super().forward(x)
        found = self.network.forward_features((x - self.mean) / self.std)
        self.pool(self.network.forward_head(found, pre_logits=True))  # for who asks for it by path
        logits: Tensor = self.network.forward_head(found)
        return logits

    def classifier(self) -> nn.Module:
        """timm's last layer."""
        last: nn.Module = self.network.get_classifier()
        return last

    def uncut(self) -> list[nn.Module]:
        """The last layer, or both."""
        last = self.network.get_classifier()
        return [last] if isinstance(last, nn.Module) else list(last)
