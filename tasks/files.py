"""Files that are whole or not there: temp -> fsync -> rename, and digests of what was written.

Every stage writes through here, on models/files.py.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.files import TEMPORARY, replacing, sync_folder


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def sha256_folder(folder: Path) -> str:
    """Hex sha256 over the names and bytes of all files below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Refuse a file that is missing or whose bytes are not the expected ones."""
    if not path.is_file():
        raise UserError(f"{what}: no file at {path}")
    found = sha256_file(path)
    if found != expected:
        raise UserError(f"{what}: {path} has sha256 {found}, expected {expected}: restore the file or change the pin")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys (so equal values give equal bytes); NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value a line; NaN is refused."""
    write_text(path, "".join(json.dumps(value, sort_keys=True, allow_nan=False) + "\n" for value in values))


def read_json(path: Path) -> Any:
    """Read a JSON file, or say in one line which file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"missing {path}: run the stage that writes it (dvc repro)") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and run the stage that writes it") from None


def read_jsonl(path: Path) -> list[Any]:
    """Read a JSON-lines file, or say in one line which file is missing or which line is broken."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise UserError(f"missing {path}: run the stage that writes it (dvc repro)") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON lines ({error}): delete it and run the stage that writes it") from None


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes the place of `folder` by a rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stray in folder.parent.glob(f"{TEMPORARY}*-{folder.name}"):
        shutil.rmtree(stray, ignore_errors=True)
    temporary = folder.with_name(f"{TEMPORARY}{os.getpid()}-{folder.name}")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
