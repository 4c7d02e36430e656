"""A small diffusion model of our own that repaints a photograph in one of several styles, as a pipeline of diffusers.

It works on pixels, folded 2x2 into channels (pixel unshuffle, Shi et al. 2016), and diffuses what the style changes
(style minus photo) rather than the picture, so that what a style leaves alone needs no learning; the photo is a
condition beside it. Flow matching (Lipman et al. 2023): a straight path between noise and the change, walked back in
a few Euler steps. The network says the change itself, from which the flow follows (Li & He 2025): a small network that
has to say the noise leaves grain. The style is a class label, the strength a further channel: 0 is the photo, 1 the
whole style. Trained by tasks/train_restyler.py; the weights in models/teachers/weights/restyler/ are of licence-clean
pictures alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.torch_setup import make_torchvision_importable

make_torchvision_importable()  # diffusers imports it by way of transformers
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UNet2DModel  # noqa: E402
from diffusers.image_processor import VaeImageProcessor  # noqa: E402
from diffusers.utils import BaseOutput  # noqa: E402
from diffusers.utils.torch_utils import randn_tensor  # noqa: E402

FOLD = 2  # pixels on each side of what becomes one position
CHANGE_SCALE = 2.5  # brings the changes of values in [-1,1] to about the noise's size


@dataclass
class RestyleOutput(BaseOutput):
    """What the pipeline returns: PIL pictures, or an array (B,H,W,3) or tensor (B,3,H,W) in [0,1]."""

    images: Any


def network_input(noisy: torch.Tensor, photo: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Noisy change (B,3,H,W), photo (B,3,H,W) in [-1,1] and strength (B,) as the network takes them, (B,25,H/2,W/2)."""
    folded = [functional.pixel_unshuffle(each, FOLD) for each in (noisy, photo)]
    plane = strength.to(noisy.dtype).reshape(-1, 1, 1, 1).expand(-1, 1, *folded[0].shape[2:])
    return torch.cat([*folded, plane], dim=1)


def new_unet(styles: int, widths: tuple[int, ...] = (32, 64, 128, 128)) -> UNet2DModel:
    """The network, untrained: convolutions only, so that it works at any size of whole multiples."""
    channels = 3 * FOLD * FOLD
    return UNet2DModel(
        in_channels=2 * channels + 1,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=styles,
    )


class RestylePipeline(DiffusionPipeline):
    """Photos in, the same photos in a style out; `styles` are the names of the class labels, with blanks between."""

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: UNet2DModel, scheduler: FlowMatchEulerDiscreteScheduler, styles: str = "") -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(styles=styles)
        self.image_processor = VaeImageProcessor(do_resize=False)

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        style: str,
        strength: float = 1.0,
        num_inference_steps: int = 4,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> RestyleOutput | tuple[Any]:
        """Repaint photos (PIL, array (B,H,W,3) or tensor (B,3,H,W) in [0,1]), at the size they have.

        Raises ValueError for a style that there is not, a strength outside [0,1], or no steps.
        """
        styles = self.config.styles.split()
        if style not in styles:
            raise ValueError(f"no style {style!r}; there are: {', '.join(styles)}")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength} is not between 0 and 1")
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps {num_inference_steps} is below 1")
        whole = self.image_processor.preprocess(image).to(self._execution_device, self.unet.dtype)
        height, width = whole.shape[2:]
        several = FOLD * 2 ** (len(self.unet.config.block_out_channels) - 1)
        photo = functional.pad(whole, (0, -width % several, 0, -height % several), mode="replicate")
        count = len(photo)
        change = randn_tensor(photo.shape, generator=generator, device=photo.device, dtype=photo.dtype)
        label = torch.full((count,), styles.index(style), device=photo.device)
        amount = torch.full((count,), float(strength), device=photo.device)
        sigmas = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
        self.scheduler.set_timesteps(sigmas=sigmas, device=photo.device)
        for time in self.progress_bar(self.scheduler.timesteps):
            said = network_input(change, photo, amount)
            clean = functional.pixel_shuffle(self.unet(said, time, class_labels=label).sample, FOLD)
            flow = (change - clean) / (time / self.scheduler.config.num_train_timesteps)
            change = self.scheduler.step(flow, time, change).prev_sample
        made = (photo + change / CHANGE_SCALE)[:, :, :height, :width].clamp(-1, 1)
        pictures = self.image_processor.postprocess(made.float(), output_type=output_type)
        return RestyleOutput(images=pictures) if return_dict else (pictures,)


def new_pipeline(unet: UNet2DModel, styles: Sequence[str]) -> RestylePipeline:
    """The pipeline around a network."""
    return RestylePipeline(unet, FlowMatchEulerDiscreteScheduler(), " ".join(styles))
