"""Text classifiers of transformers: from a folder, of fewer layers than a teacher's, or small ones from nothing.

A student of fewer layers begins as some of its teacher's, evenly chosen, the first and the last among them; of twelve,
six are layers 0, 2, 4, 7, 9 and 11 (Sanh et al. 2019, DistilBERT). The layers are found by what they are, a list as
long as the model is deep, so any encoder of transformers will do that keeps its layers in one.

Folders are read without the hub, without code of their own, and without pickle.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.classification.tokens import Tokens
from models.errors import UserError
from models.silence import silence
from models.teachers.pinned import Place
from models.torch_setup import make_torchvision_importable

# What of a configuration says where it came from, and not what it is.
ORIGINS = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
# Plain attention: its operations are those that the converters know, in an order that no kernel chooses.
ATTENTION = "eager"


class TextClassifier(nn.Module):
    """(B,L) int64 token ids and (B,L) int64 mask, 1 where there is a token -> logits (B,C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B,L), (B,L) -> (B,C)."""
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits

    def base(self) -> str:
        """The dotted path of what gives the last layer's states, (B,L,D)."""
        return f"model.{self.model.base_model_prefix}"

    def layers(self) -> list[str]:
        """Dotted paths of the layers, the first one first; each gives (B,L,D)."""
        path = layer_list(self.model)
        return [f"model.{path}.{number}" for number in range(depth(self.model))]

    def config(self) -> dict[str, Any]:
        """What the model is, as JSON."""
        told: dict[str, Any] = self.model.config.to_dict()  # type: ignore[operator,union-attr]
        return {key: value for key, value in told.items() if key not in ORIGINS}

    def labels(self) -> tuple[str, ...]:
        """The names of its classes in order; none where they are transformers' own LABEL_0, LABEL_1 ..."""
        named = self.model.config.id2label  # type: ignore[union-attr]
        told = tuple(str(named[number]) for number in sorted(named))  # type: ignore[index,arg-type]
        return () if all(name == f"LABEL_{number}" for number, name in enumerate(told)) else told

    def longest(self) -> int:
        """The most tokens it takes."""
        config: Any = self.model.config
        most = int(getattr(config, "max_position_embeddings", 1 << 20))
        # Positions begin behind the one that fills, in the models that have one there (RoBERTa's).
        before = [
            layer.padding_idx + 1
            for name, layer in self.model.named_modules()
            if name.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None
        ]
        return most - max(before, default=0)


def check_tokens(network: TextClassifier, tokens: Tokens, what: str) -> None:
    """Refuse, in one line as `what`, a tokeniser whose rows or ids are more than the network takes."""
    if tokens.max_tokens > network.longest():
        raise UserError(f"{what}: max_tokens is {tokens.max_tokens}, and it takes {network.longest()}: lower it")
    known = network.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if tokens.vocabulary > known:
        raise UserError(
            f"{what}: its tokeniser has {tokens.vocabulary} tokens, and its network knows {known}: they are of two "
            "models; take the tokenizer.json that belongs to the weights"
        )


def depth(model: nn.Module) -> int:
    """How many layers its configuration says it has."""
    return int(model.config.num_hidden_layers)  # type: ignore[union-attr,arg-type]


def layer_list(model: nn.Module) -> str:
    """The dotted path of the list of layers: as many modules of one class as the model is deep."""
    found = [
        path
        for path, layers in model.named_modules()
        if isinstance(layers, nn.ModuleList) and len(layers) == depth(model) and len({type(one) for one in layers}) == 1
    ]
    if len(found) != 1:
        raise UserError(
            f"{type(model).__name__} does not keep its {depth(model)} layers in one list: a student of some of them "
            "cannot be made; take a fresh transformer"
        )
    return found[0]


@cache
def import_transformers() -> Any:
    """The library, without the lines that torchao, which it imports, writes on machines without a GPU."""
    make_torchvision_importable()
    with silence():
        import transformers
        import transformers.modeling_utils
    return transformers


def load_folder(folder: Path, what: str) -> TextClassifier:
    """The sequence classifier that transformers saved to a folder, in eval mode, in float32."""
    library = import_transformers()
    for name in ("config.json", "*.safetensors"):
        if not list(folder.glob(name)):
            raise UserError(f"{what}: no {name} in {folder}: give a folder that save_pretrained wrote, no pickle")
    failed = ""
    with silence():  # it tells of every weight it reads
        try:
            model, about = library.AutoModelForSequenceClassification.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=ATTENTION,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001 - transformers answers a broken folder in many ways
            failed = " ".join(str(error).split()) or type(error).__name__
    if failed:
        raise UserError(f"{what}: transformers cannot load {folder}: {failed:.200}")
    if about["missing_keys"]:
        raise UserError(
            f"{what}: {folder} lacks weights ({sorted(about['missing_keys'])[0]}), which would be random: it is no "
            "trained sequence classifier; fine-tune it first"
        )
    return TextClassifier(model).eval()


def made(config: Any) -> TextClassifier:
    """An untrained one of a configuration of transformers."""
    try:
        return TextClassifier(
            import_transformers().AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=False, attn_implementation=ATTENTION, dtype=torch.float32
            )
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"architecture: transformers makes no classifier of it: {' '.join(str(error).split()):.200}"
        ) from None


def fresh(
    *,
    classes: int,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
    max_tokens: int,
    dropout: float,
    vocabulary: int,
    pad: int,
) -> TextClassifier:
    """A small BERT (Devlin et al. 2019) from nothing, by torch's global generator."""
    if hidden % heads:
        raise UserError(f"architecture.hidden {hidden} is no multiple of architecture.heads {heads}")
    return made(
        import_transformers().BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            max_position_embeddings=max_tokens,
            type_vocab_size=1,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            pad_token_id=pad,
            num_labels=classes,
        )
    )


def from_config(*, classes: int, config: Mapping[str, Any]) -> TextClassifier:
    """An untrained one of what `TextClassifier.config` told."""
    own = dict(config)
    model = made(import_transformers().AutoConfig.for_model(own.pop("model_type"), **own))
    if model.model.num_labels != classes:
        raise UserError(f"architecture.config is of {model.model.num_labels} classes, and {classes} are wanted")
    return model


def from_layers(
    *, classes: int, path: str, sha256: str, layers: int, max_tokens: int, keep: Sequence[int] | None = None
) -> TextClassifier:
    """A student that begins as `layers` of the layers of the model in a folder, all else being the model's.

    `keep` says which, where they are not to be evenly chosen. The last layer begins anew where there are other classes.
    """
    folder = Place(key="path", where=path, sha256=sha256).check("of architecture.path")
    teacher = load_folder(folder, "architecture.path")
    if max_tokens > teacher.longest():
        raise UserError(f"architecture.max_tokens is {max_tokens}, and {path} takes {teacher.longest()}: lower it")
    return fewer(teacher, list(keep) if keep else evenly(depth(teacher.model), layers), classes)


def evenly(count: int, kept: int) -> list[int]:
    """Which `kept` of `count` layers: the first, the last, and what lies evenly between."""
    if not 1 <= kept <= count:
        raise UserError(f"architecture.layers {kept}: the teacher has {count}, take 1 to {count} of them")
    return [round(number * (count - 1) / max(1, kept - 1)) for number in range(kept)]


def fewer(teacher: TextClassifier, keep: Sequence[int], classes: int) -> TextClassifier:
    """A copy of a text classifier with the layers `keep` alone, in their order."""
    path, count = layer_list(teacher.model), depth(teacher.model)
    if sorted(set(keep)) != list(keep) or keep[-1] >= count or keep[0] < 0:
        raise UserError(f"architecture.keep {list(keep)}: name layers of 0 to {count - 1}, each once, in order")
    config = copy.deepcopy(teacher.model.config)
    config.num_hidden_layers = len(keep)  # type: ignore[union-attr]
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in keep]  # type: ignore[union-attr]
    same = teacher.model.config.num_labels == classes  # type: ignore[union-attr]
    if not same:
        config.num_labels = classes  # type: ignore[union-attr]
    student = made(config)
    wanted = student.model.state_dict()
    values = {renamed(name, path, keep): value for name, value in teacher.model.state_dict().items()}
    values.pop("", None)
    if not same:
        values |= {name: wanted[name] for name in wanted if values[name].shape != wanted[name].shape}
    try:
        student.model.load_state_dict(values)
    except RuntimeError:
        raise UserError(
            f"the layers of {type(teacher.model).__name__} are not alike, so {list(keep)} do not fit together"
        ) from None
    return student


def renamed(name: str, path: str, keep: Sequence[int]) -> str:
    """What a weight of the teacher is called in the student; "" for one of a layer that is left out."""
    if not name.startswith(f"{path}."):
        return name
    number, _, rest = name[len(path) + 1 :].partition(".")
    return f"{path}.{keep.index(int(number))}.{rest}" if int(number) in keep else ""
