"""A StyleGAN2 generator and a CLIP of small random weights, saved as teachers are read."""

from pathlib import Path
from typing import Any

import torch
from tiny_diffusers import tokenizer
from transformers import CLIPConfig, CLIPModel

from models.teachers.stylegan2.network import Generator, save

CHANNELS = [16, 16, 16, 12]  # 32x32
MAPPING = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2}


def generator(seed: int = 0, channels: list[int] | None = None) -> Generator:
    """Random weights; noise has some strength and the mean latent is that of samples, as after a training."""
    torch.manual_seed(seed)
    made = Generator(**MAPPING, channels=channels or CHANNELS)  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in made.synthesis.convolutions():
            layer.noise_strength.fill_(0.1)
            layer.bias.normal_(std=0.1)
        for block in made.synthesis.blocks():
            block.torgb.weight.mul_(0.3)
        made.mapping.w_avg.copy_(made.mapping(torch.randn(1000, 8)).mean(dim=0))
    return made.eval().requires_grad_(False)


def save_generator(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    save(generator(seed), folder)
    return folder


def save_clip(folder: Path) -> Path:
    """Random weights; texts of letters."""
    torch.manual_seed(4)
    small: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**small, "vocab_size": 100, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    with torch.no_grad():  # fresh ones are so small that all pictures look alike
        for parameter in model.vision_model.parameters():
            parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer(folder / "letters").save_pretrained(folder)
    return folder
