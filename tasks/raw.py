"""Reads data/students/NAME/raw: shards of pairs, each checked against manifest.jsonl before it is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from models.errors import UserError
from tasks.files import check_sha256, read_jsonl, sha256_bytes
from tasks.pictures import Pixels
from tasks.records import Pair, read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Pairs with their pixels, in one order."""

    pairs: list[Pair]
    inputs: Pixels  # (n,S,S,3)
    targets: Pixels  # (n,S,S,3)


def _again(raw: Path) -> str:
    return f"delete {raw} and run dvc repro generate@{raw.parent.name}"


def read_manifest(raw: Path) -> list[dict[str, Any]]:
    """The lines of manifest.jsonl, one per shard."""
    lines = read_jsonl(raw / "manifest.jsonl")
    keys = {"shard", "sha256", "records_sha256", "pairs"}
    if not lines or not all(isinstance(line, dict) and keys <= line.keys() for line in lines):
        raise UserError(f"{raw / 'manifest.jsonl'} is empty or of another version: {_again(raw)}")
    return lines


def read_shard(raw: Path, line: dict[str, Any], size: int, teacher: str) -> Shard:
    """The shard of one manifest line; a UserError unless its files are those that were written.

    size: S, what the student's block asks for; teacher: the digest every pair must name.
    """
    path = raw / f"{line['shard']}.safetensors"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"missing {path}, which the manifest lists: {_again(raw)}") from None
    # The bytes that are checked are the bytes that are used: the file is read once.
    if sha256_bytes(data) != line["sha256"]:
        raise UserError(f"{path} is damaged, its sha256 is not the manifest's: {_again(raw)}")
    records = raw / f"{line['shard']}.jsonl"
    check_sha256(records, line["records_sha256"], "records of a shard")
    pairs = read_records(records, Pair)
    try:
        tensors = load(data)
        inputs, targets = tensors["inputs"], tensors["targets"]
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is no shard of this version ({error}): {_again(raw)}") from None
    shape = (line["pairs"], size, size, 3)
    if inputs.shape != shape or targets.shape != shape or {inputs.dtype, targets.dtype} != {np.dtype(np.uint8)}:
        raise UserError(f"{path} does not hold {line['pairs']} pairs of {size} pixels as uint8: {_again(raw)}")
    if len(pairs) != len(inputs) or any(pair.teacher != teacher for pair in pairs):
        raise UserError(f"{records} does not fit {path.name} and teacher.json: {_again(raw)}")
    return Shard(pairs=pairs, inputs=inputs, targets=targets)
