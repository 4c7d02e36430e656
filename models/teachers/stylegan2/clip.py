"""CLIP (Radford et al. 2021) for edits by text: pictures that gradients flow through, texts over templates.

Any CLIPModel folder of transformers; its own tokenizer and picture sizes are used.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional

from models.errors import UserError

# What OpenAI's models were trained with, for folders without a preprocessor_config.json.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# A text alone is a noisy point; its mean over ways of saying it is steadier (Radford et al. 2021, section 3.1.4).
TEMPLATES = (
    "{}",
    "a photo of {}",
    "a good photo of {}",
    "a bad photo of {}",
    "a close-up photo of {}",
    "a cropped photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a blurry photo of {}",
    "a black and white photo of {}",
    "a low resolution photo of {}",
    "a rendering of {}",
    "a painting of {}",
)


class Clip:
    """Embeds pictures and texts as unit vectors of one space."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from models.torch_setup import make_torchvision_importable

        make_torchvision_importable()
        from transformers import AutoTokenizer, CLIPModel

        try:
            options = {"local_files_only": True, "use_safetensors": True}
            self.model = CLIPModel.from_pretrained(folder, **options).eval().requires_grad_(False).to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{folder} holds no CLIP model of transformers: {why}") from None
        mean, std = _normalisation(folder)
        self.mean = torch.tensor(mean, device=device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).reshape(1, 3, 1, 1)
        self.size = self.model.config.vision_config.image_size

    def pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in [-1,1] -> (B,D), each of length 1; differentiable."""
        resized = functional.interpolate(
            pictures, size=(self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        )
        values = ((resized + 1) / 2 - self.mean) / self.std
        return functional.normalize(self.model.visual_projection(self.model.vision_model(values).pooler_output), dim=-1)

    def text(self, text: str) -> torch.Tensor:
        """(D,) of length 1: the mean over TEMPLATES."""
        said = [template.format(text) for template in TEMPLATES]
        tokens = self.tokenizer(said, padding=True, truncation=True, return_tensors="pt").to(self.mean.device)
        with torch.no_grad():
            found = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
        return functional.normalize(functional.normalize(found, dim=-1).mean(dim=0), dim=-1)


def _normalisation(folder: Path) -> tuple[list[float], list[float]]:
    try:
        found = json.loads((folder / "preprocessor_config.json").read_text())
        return list(found["image_mean"]), list(found["image_std"])
    except (OSError, ValueError, KeyError, TypeError):
        return list(MEAN), list(STD)
