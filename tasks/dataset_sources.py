"""Labelled examples as their sources hold them: the digits of scikit-learn, class folders, archives, tables, lines.

Each source is a generator of `Found`, in an order that hangs on names alone. Archives are read, never unpacked. What
cannot be used is given with the reason and stops nothing.
"""

import csv
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.errors import UserError
from tasks.dataset_params import Dataset, DigitsDataset, FoldersDataset, LinesDataset, TableDataset
from tasks.files import check_sha256
from tasks.pictures import Unfit, decode_picture

Pixels = npt.NDArray[np.uint8]

# What folders and columns may call the sides.
SIDES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SIDES |= {"test": "test", "testing": "test"}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST = 64 * 2**20  # bytes of one picture in an archive
TABLES: dict[str, str] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One example; `reason` says why it cannot be used, where it cannot."""

    origin: str
    label: str = ""  # "" is unlabelled
    side: str = ""  # one of the splits; "" is not said
    picture: Pixels | None = None  # (S,S,3)
    text: str | None = None
    reason: str = ""


def read_source(settings: Dataset) -> Iterator[Found]:
    """The examples of a source; UserError where there is no such file or column."""
    if isinstance(settings, DigitsDataset):
        return digits(settings)
    if isinstance(settings, FoldersDataset):
        return folders(settings)
    if isinstance(settings, LinesDataset):
        return lines(settings)
    return table(settings)


def digits(settings: DigitsDataset) -> Iterator[Found]:
    """The digits, each pixel a square, in grey."""
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    times = settings.size // 8
    for number, (picture, label) in enumerate(zip(pictures.reshape(-1, 8, 8), labels, strict=True)):
        grey = np.clip(np.rint(picture * 255 / 16), 0, 255).astype(np.uint8)
        large = Image.fromarray(grey).resize((8 * times, 8 * times), Image.Resampling.BICUBIC)
        rgb = np.repeat(np.asarray(large)[..., None], 3, axis=2)
        yield Found(origin=f"library:scikit-learn/digits/{number}", label=str(label), picture=rgb)


def folders(settings: FoldersDataset) -> Iterator[Found]:
    """Pictures by CLASS/FILE or SPLIT/CLASS/FILE, below a folder or in an archive."""
    path = Path(settings.source)
    if settings.sha256 and not path.is_dir():
        check_sha256(path, settings.sha256, "datasets")
    if settings.sha256 and path.is_dir():
        raise UserError(f"datasets: {path} is a folder, and sha256 is of an archive: leave it out")
    if not path.exists():
        raise UserError(f"datasets: nothing lies at {path}: put the pictures there or change the key `source`")
    for name, data in _files_below(path) if path.is_dir() else archive(path):
        parts = PurePosixPath(name).parts
        if len(parts) < 2:
            yield Found(origin=name, reason="it lies in no class's folder")
            continue
        side = next((SIDES[part.lower()] for part in parts[:-2] if part.lower() in SIDES), "")
        yield picture_of(data, settings.size, origin=name, label=parts[-2], side=side)


def _files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the pictures below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.lower().endswith(PICTURES) and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of an archive's pictures, in its own order; nothing is written anywhere."""
    try:
        yield from _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"datasets: {path} is no whole zip or tar archive ({error}): get it again") from None


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.lower().endswith(PICTURES) and info.file_size <= LARGEST:
                yield info.filename, archive.read(info)


def _tarred(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.lower().endswith(PICTURES) and member.size <= LARGEST:
                file = archive.extractfile(member)
                assert file is not None  # it is a file
                yield member.name, file.read()


def picture_of(data: bytes, size: int, **about: Any) -> Found:
    """A picture's middle square at `size`; with the reason where it is none."""
    try:
        return Found(picture=square(decode_picture(data, grey=True), size), **about)
    except Unfit as unfit:
        return Found(reason=str(unfit), **about)


def square(pixels: Pixels, size: int) -> Pixels:
    """The middle square of (H,W,3), scaled to (size,size,3); one that fits already stays as it is."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = pixels[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(middle)
    return np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.LANCZOS))


def lines(settings: LinesDataset) -> Iterator[Found]:
    """Texts from files with a line an example: the label, a space, the text."""
    for side, path in files_of(settings):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            label, _, text = line.strip().partition(" ")
            if label:
                told = Found(origin=f"{path.name}:{number}", label=label, side="" if side == "all" else side)
                yield _with_text(told, text)


def _with_text(found: Found, text: str) -> Found:
    return replace(found, text=text.strip()) if text.strip() else replace(found, reason="its text is empty")


def files_of(settings: TableDataset | LinesDataset) -> list[tuple[str, Path]]:
    """The files to read, each with its side or "all"."""
    source = Path(settings.source)
    return [(side, source / name) for side, name in settings.files.items()] or [("all", source)]


def read_text(path: Path) -> str:
    """A text file's content, UTF-8 or, as some old sets are, Latin-1; UserError where it is missing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"datasets: cannot read {path} ({error.strerror}): put the file there") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def table(settings: TableDataset) -> Iterator[Found]:
    """Examples from the rows of tables."""
    wanted = [one for one in (settings.text or settings.image, settings.label, settings.side) if one]
    for side, path in files_of(settings):
        for number, row in enumerate(rows_of(path), start=1):
            missing = [name for name in wanted if name not in row]
            if missing:
                there = ", ".join(map(str, row)) or "none"
                raise UserError(f"datasets: {path} has no column {missing[0]!r}; there are: {there}")
            where = str(row[settings.side] or "").lower() if settings.side else ""
            told = Found(
                origin=f"{path.name}:{number}",
                label="" if row[settings.label] is None else str(row[settings.label]).strip(),
                side=SIDES.get(where, "") if settings.side else ("" if side == "all" else side),
            )
            if settings.text:
                yield _with_text(told, str(row[settings.text] or ""))
            else:
                yield _with_picture(told, row[settings.image], path.parent, settings.size)


def _with_picture(found: Found, value: Any, folder: Path, size: int) -> Found:
    """A picture that a cell names or holds."""
    about: dict[str, Any] = {"origin": found.origin, "label": found.label, "side": found.side}
    if isinstance(value, Mapping):  # as Hugging Face's datasets store pictures
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return picture_of(value, size, **about)
    path = (folder / str(value)).resolve()
    if not path.is_relative_to(folder.resolve()):
        return Found(reason=f"its picture lies outside the table's folder ({value})", **about)
    if not path.is_file():
        return Found(reason=f"its picture is missing ({value})", **about)
    return picture_of(path.read_bytes(), size, **about)


def rows_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a CSV, JSON-lines or Parquet file as mappings, a few in memory at a time."""
    kind = TABLES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"datasets: {path} is no table that is known; there are: {', '.join(TABLES)}")
    if not path.is_file():
        raise UserError(f"datasets: cannot read {path}: put the file there")
    if kind == "parquet":
        yield from parquet_rows(path)
    elif kind == "csv":
        text = read_text(path)
        yield from csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    else:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise UserError(f"datasets: {path}:{number} is not JSON ({error}): mend the line") from None
            if isinstance(row, dict):
                yield row
            elif row is not None:
                raise UserError(f"datasets: {path}:{number} is no JSON object: mend the line")


def parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """A Parquet file's rows."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        told = str(error).splitlines()[0]
        raise UserError(f"datasets: {path} is no Parquet file ({told}): get it again") from None
