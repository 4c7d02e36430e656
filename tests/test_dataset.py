"""Labelled examples come whole from folders, archives, tables and lines, each once and on one side."""

import io
import json
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from models.errors import UserError
from tasks.arrays import stream
from tasks.dataset import CONTRADICTION, DATASETS, DUPLICATE, LEAK, Example, dataset
from tasks.dataset_params import Dataset
from tasks.files import read_json, read_jsonl, sha256_file
from tasks.pictures import pixel_digest
from tasks.records import SPLITS, read_records

SHARES = {"split": {"val": 0.2, "test": 0.2}, "seed": 0, "source": "."}
SIZE = 12


def settings(**block: Any) -> Any:
    return TypeAdapter(Dataset).validate_python(SHARES | block)


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str = "set") -> tuple[dict[str, Any], list[Example], dict[str, str]]:
    """dataset.json, the examples, and what was set aside by origin; the files are what they are said to be."""
    folder = DATASETS / name
    record = read_json(folder / "dataset.json")
    assert {path.name for path in folder.iterdir()} == {
        *record["files"],
        "dataset.json",
        "examples.jsonl",
        "set_aside.jsonl",
    }
    for file, digest in record["files"].items():
        assert sha256_file(folder / file) == digest
    aside = {one["origin"]: one["reason"] for one in read_jsonl(folder / "set_aside.jsonl")}
    return record, read_records(folder / "examples.jsonl", Example), aside


def write_folders(root: Path, count: int = 12) -> None:
    for label in ("cat", "dog"):
        for number in range(count):
            path = root / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(picture(number + (100 if label == "dog" else 0))))


def test_the_digits_of_scikit_learn() -> None:
    dataset("digits", settings(kind="digits", size=32))
    record, examples, aside = made("digits")
    assert record["classes"] == [str(digit) for digit in range(10)] and record["size"] == 32
    assert sum(record["counts"].values()) + len(aside) == 1797 and min(record["counts"].values()) > 200
    inputs = np.load(DATASETS / "digits/train.inputs.npy")
    assert inputs.shape[1:] == (32, 32, 3) and inputs.max() == 255
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    one = examples[0]
    number = int(one.origin.rpartition("/")[2])
    assert one.label == labels[number]
    coarse = inputs[one.row].reshape(8, 4, 8, 4, 3).mean(axis=(1, 3, 4)) / 255 * 16
    assert np.corrcoef(coarse.ravel(), pictures[number])[0, 1] > 0.9


def test_class_folders_are_taken_in_with_rows_labels_and_digests(tmp_path: Path) -> None:
    write_folders(tmp_path / "photos")
    (tmp_path / "photos/cat/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "photos/loose.png").write_bytes(png(picture(999)))
    (tmp_path / "photos/cat/notes.txt").write_text("not a picture")
    Image.fromarray(picture(5)[..., 0]).save(tmp_path / "photos/dog/grey.png")
    dataset("set", settings(kind="folders", source="photos", size=SIZE))
    record, examples, aside = made()
    assert record["classes"] == ["cat", "dog"] and sum(record["counts"].values()) == 25
    assert aside.keys() == {"cat/broken.jpg", "loose.png"} and "not an image" in aside["cat/broken.jpg"]
    for split in SPLITS:
        inputs = list(stream(DATASETS / f"set/{split}.inputs.npy"))
        labels = np.load(DATASETS / f"set/{split}.labels.npy")
        for one in (one for one in examples if one.split == split):
            assert pixel_digest(inputs[one.row]) == one.digest
            assert record["classes"][labels[one.row]] == record["classes"][one.label] == one.origin.split("/")[0]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_archives_are_read_without_being_unpacked_to_the_same_bytes(tmp_path: Path, kind: str) -> None:
    write_folders(tmp_path / "photos")
    dataset("plain", settings(kind="folders", source="photos", size=SIZE))
    path = tmp_path / f"photos.{kind}"
    files = sorted((tmp_path / "photos").rglob("*.png"))
    outside = "../../escaped/cat/evil.png"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in files:
                zipped.write(file, file.relative_to(tmp_path / "photos"))
            zipped.writestr(outside, png(picture(0)))  # the bytes of a picture that is there: a duplicate
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as tarred:
            for file in files:
                tarred.add(file, file.relative_to(tmp_path / "photos"))
            info = tarfile.TarInfo(outside)
            data = png(picture(0))
            info.size = len(data)
            tarred.addfile(info, io.BytesIO(data))
    dataset("set", settings(kind="folders", source=str(path), size=SIZE, sha256=sha256_file(path)))
    record, _, aside = made()
    assert record["digest"] == made("plain")[0]["digest"] and aside == {"cat/0.png": DUPLICATE}
    assert not list(tmp_path.parent.rglob("evil.png"))
    with pytest.raises(UserError, match="has sha256"):
        dataset("set", settings(kind="folders", source=str(path), size=SIZE, sha256="0" * 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="is no whole zip or tar archive"):
        dataset("set", settings(kind="folders", source=str(path), size=SIZE))
    assert made()[0] == record  # what was there stays


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


ROWS = [
    {"words": f'line {number}, with "quotes", commas and é', "class": "good" if number % 3 else "bad", "part": part}
    for number, part in enumerate(["train"] * 12 + ["dev"] * 4 + ["test"] * 4)
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_of_texts(tmp_path: Path, suffix: str) -> None:
    write_rows(tmp_path / f"rows.{suffix}", ROWS)
    block = {"kind": "table", "files": {"all": f"rows.{suffix}"}, "text": "words", "label": "class", "side": "part"}
    dataset("set", settings(**block))
    record, examples, aside = made()
    assert record["kind"] == "texts" and record["size"] is None and record["classes"] == ["bad", "good"]
    assert record["counts"] == {"train": 12, "val": 4, "test": 4} and not aside
    texts = {split: [one["text"] for one in read_jsonl(DATASETS / f"set/{split}.texts.jsonl")] for split in SPLITS}
    for one in examples:
        row = ROWS[int(one.origin.rpartition(":")[2]) - 1]
        assert texts[one.split][one.row] == row["words"] and record["classes"][one.label] == row["class"]
    with pytest.raises(UserError, match="has no column 'sentence'; there are: words, class, part"):
        dataset("set", settings(**(block | {"text": "sentence"})))


def test_tables_of_pictures_by_path_and_by_bytes(tmp_path: Path) -> None:
    write_folders(tmp_path / "photos")
    files = sorted((tmp_path / "photos").rglob("*.png"))
    by_path = [{"image": one.relative_to(tmp_path).as_posix(), "label": one.parent.name} for one in files]
    by_path += [{"image": "../outside.png", "label": "cat"}, {"image": "photos/none.png", "label": "cat"}]
    write_rows(tmp_path / "rows.csv", by_path)
    block = {"kind": "table", "image": "image", "label": "label", "size": SIZE}
    dataset("paths", settings(files={"all": "rows.csv"}, **block))
    record, _, aside = made("paths")
    assert ["outside" in aside["rows.csv:25"], "missing" in aside["rows.csv:26"]] == [True, True]
    as_bytes = [{"image": {"bytes": one.read_bytes(), "path": None}, "label": one.parent.name} for one in files]
    write_rows(tmp_path / "rows.parquet", as_bytes)
    dataset("bytes", settings(files={"all": "rows.parquet"}, **block))
    assert made("bytes")[0]["digest"] == record["digest"]


def test_lines_with_a_label_each_and_a_side_that_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"{number % 2} text {number}\n" for number in range(60)) + "1 \n")
    (tmp_path / "test.txt").write_bytes("0 caf\xe9 one\n1 other two\n".encode("latin-1"))
    dataset("set", settings(kind="lines", files={"train": "train.txt", "test": "test.txt"}))
    record, _, aside = made()
    assert record["counts"]["test"] == 2 and record["counts"]["val"] > 3 and record["counts"]["train"] > 30
    assert aside == {"train.txt:61": "its text is empty"}
    assert {one["text"] for one in read_jsonl(DATASETS / "set/test.texts.jsonl")} == {"café one", "other two"}


def test_an_example_is_once_on_one_side_with_one_label(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(
        "0 a film\n0 A  FILM\n1 well made\n0 both\n1 both\n0 other\n1 more\n" + "".join(f"0 x{n}\n" for n in range(20))
    )
    (tmp_path / "test.txt").write_text("1 Well made\n1 fine\n0 dull\n")
    dataset("set", settings(kind="lines", files={"train": "train.txt", "test": "test.txt", "val": "test.txt"}))
    record, examples, aside = made()
    assert aside["train.txt:2"] == DUPLICATE and aside["test.txt:1"] == LEAK
    assert aside["train.txt:4"] == aside["train.txt:5"] == CONTRADICTION
    digests = [one.digest for one in examples]
    assert len(set(digests)) == len(digests)
    # Named for two sides, the validation side keeps what both have; a test set of nothing is refused below.
    assert record["counts"]["val"] == 2


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"classes": ["0"]}, r"has the label '1', which is none of `classes` \(0\)"),
        ({"classes": ["0", "1", "2"]}, "class '2' has no training example"),
        ({"files": {"all": "gone.txt"}}, "cannot read gone.txt"),
        ({"files": {"all": "empty.txt"}}, "datasets.set holds no example that can be used"),
        ({"files": {"all": "one.txt"}}, "1 classes were found"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, block: dict[str, Any], says: str) -> None:
    (tmp_path / "all.txt").write_text("".join(f"{number % 2} text {number}\n" for number in range(60)))
    (tmp_path / "one.txt").write_text("".join(f"0 text {number}\n" for number in range(60)))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match=says):
        dataset("set", settings(**({"kind": "lines", "files": {"all": "all.txt"}} | block)))
    assert not (DATASETS / "set").exists() and not list(DATASETS.glob(".tmp*"))


def test_a_side_without_an_example_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 a\n1 b\n")
    with pytest.raises(UserError, match="no train examples: give the source more"):
        dataset("set", settings(kind="lines", files={"test": "train.txt"}))


def test_the_first_by_digest_are_enough_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("".join(f"{number % 2} text {number}\n" for number in range(60)))
    dataset("set", settings(kind="lines", files={"all": "all.txt"}, most=5))
    record, examples, _ = made()
    assert record["counts"] == {"train": 5, "val": 5, "test": 5}
    assert all(a.digest < b.digest for a, b in pairwise(examples[:5]))


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"kind": "table", "files": {"all": "x.csv"}, "label": "l"}, "name a column of texts"),
        ({"kind": "table", "files": {"all": "x.csv"}, "label": "l", "image": "i"}, "size is that of pictures"),
        ({"kind": "lines", "files": {"all": "x"}, "classes": ["a", "a"]}, "one is named twice"),
        ({"kind": "digits", "size": 30}, "multiple of 8"),
    ],
)
def test_blocks_that_make_no_sense(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        settings(**block)
