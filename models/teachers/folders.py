"""A model as diffusers and transformers save it: a folder, pinned by the digest of the files that are loaded from it.

Only safetensors, JSON and a tokenizer's text files count and are loaded. A pickle runs code when it is read: where
there is nothing else to load, the folder is refused with the way to convert it.
"""

import hashlib
from pathlib import Path

from models.errors import TryAgain, UserError

LOADED = (".json", ".safetensors", ".txt", ".model", ".jinja")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CHUNK = 1 << 22


def folder_sha256(folder: Path) -> str:
    """Hex sha256 over the names and the bytes of the files that are loaded; other files change nothing."""
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in loaded_files(folder)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def fetch(model: str, revision: str) -> Path:
    """The folder of a model: a local one, or a snapshot of the hub's at a revision, kept in the hub's own cache.

    Raises a UserError where there is neither, TryAgain where the hub does not answer.
    """
    if Path(model).is_dir():
        return Path(model)
    if not revision:
        raise UserError(
            f"no folder at {model}; of a model on the hub, name the revision (a commit's 40 hex digits) too"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[f"*{end}" for end in LOADED]))
    except (HfHubHTTPError, HFValidationError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{model} at {revision:.12} cannot be had from the hub: {told}") from None
    except (LocalEntryNotFoundError, OSError):
        raise TryAgain(
            f"{model} is no folder here, and the hub does not answer: put it in place, or try again"
        ) from None


def loaded_files(folder: Path) -> list[Path]:
    """The files below a folder that are loaded and pinned."""
    files = [path for path in folder.rglob("*") if path.suffix in LOADED and path.is_file()]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, however many."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def refuse_pickles(folder: Path, name: str) -> None:
    """Raise a UserError for a part of the model whose weights are there as a pickle only."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    for path in sorted(files):
        if path.suffix in PICKLES and path.parent not in safe:
            told = (
                f"teacher {name}: {path.relative_to(folder)} is a pickle, which runs code when it is read: where you "
            )
            told += "trust it, DiffusionPipeline.from_pretrained(OLD, use_safetensors=False).save_pretrained(NEW) "
            raise UserError(told + "makes it safe")
