"""Tiny sequence classifiers of transformers with a tokeniser, as folders, without a download."""

from pathlib import Path
from typing import Any

from models.classification.tokens import train_tokens

LINE = "a gripping film beautifully shot the plot is thin and jokes are thinner never dull nor funny"
WORDS = LINE.split()
TEXTS = [" ".join(WORDS[(start * step) % len(WORDS)] for step in range(1, 2 + start)) for start in range(1, 20)]
KINDS = ("bert", "distilbert", "roberta", "electra", "albert")


def tiny_config(kind: str, *, vocabulary: int, classes: int = 3, layers: int = 4, **more: Any) -> Any:
    """A configuration of `kind`, 32 wide."""
    from models.torch_setup import make_torchvision_importable

    make_torchvision_importable()
    from transformers import AutoConfig

    shape: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": 40, "pad_token_id": 0}
    if kind == "distilbert":
        shape |= {"dim": 32, "n_layers": layers, "n_heads": 2, "hidden_dim": 48}
    else:
        shape |= {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 48}
    return AutoConfig.for_model(kind, num_labels=classes, **shape, **more)


def tiny_folder(folder: Path, kind: str = "bert", seed: int = 0, **settings: Any) -> Path:
    """A folder as save_pretrained writes it, random weights and a tokeniser learnt from TEXTS."""
    import torch

    from models.classification.transformer import made

    tokens = train_tokens(TEXTS, by="wordpiece", vocabulary=80, lowercase=True, max_tokens=32, truncate=False)
    torch.manual_seed(seed)
    model = made(tiny_config(kind, vocabulary=tokens.vocabulary, **settings))
    with torch.no_grad():  # as begun they say nearly the same of all texts
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    folder.mkdir(parents=True, exist_ok=True)
    model.model.save_pretrained(folder)  # type: ignore[operator]
    tokens.save(folder)
    return folder
