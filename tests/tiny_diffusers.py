"""Real pipelines of diffusers on small networks of random weights, saved as a hub would hold them."""

import json
from pathlib import Path
from typing import Any

import torch

from models.torch_setup import make_torchvision_importable

make_torchvision_importable()
from diffusers import (  # noqa: E402
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker  # noqa: E402
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

WIDTHS = (8, 16)
TEXT = 16


def unet(channels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=TEXT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def controlnet() -> ControlNetModel:
    torch.manual_seed(1)
    found = ControlNetModel.from_unet(unet(), conditioning_embedding_out_channels=(4, 8))
    for parameter in found.parameters():  # a fresh one is all zeros where it ends, and would change nothing
        torch.nn.init.normal_(parameter, std=0.1)
    return found


def autoencoder() -> AutoencoderKL:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )


def text_encoder() -> CLIPTextModel:
    torch.manual_seed(3)
    sizes = {"hidden_size": TEXT, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=100, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, **sizes)
    )


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters for words."""
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def safety_checker(threshold: float) -> StableDiffusionSafetyChecker:
    """A picture is refused where its likeness to a concept, -1 to 1, is above the threshold."""
    torch.manual_seed(4)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(threshold)
    return checker


def components(scratch: Path, channels: int = 4) -> dict[str, Any]:
    return {
        "unet": unet(channels),
        "vae": autoencoder(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(scratch / "tokenizer"),
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def save(folder: Path, kind: str) -> Path:
    """A folder with a pipeline (`img2img`, `text`, `instruct`; `prude` refuses all pictures) or a `controlnet`."""
    if kind == "controlnet":
        controlnet().save_pretrained(folder)
        return folder
    classes = {
        "img2img": StableDiffusionImg2ImgPipeline,
        "text": StableDiffusionPipeline,
        "instruct": StableDiffusionInstructPix2PixPipeline,
        "prude": StableDiffusionImg2ImgPipeline,
    }
    made = components(folder.parent / "scratch", 8 if kind == "instruct" else 4)
    if kind == "prude":
        size = {"height": 32, "width": 32}
        made |= {"safety_checker": safety_checker(-1.1), "requires_safety_checker": True}
        made["feature_extractor"] = CLIPImageProcessor(size=size, crop_size=size)
    classes[kind](**made).save_pretrained(folder)
    return folder
