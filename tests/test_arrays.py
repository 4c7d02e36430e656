"""Array files that grow, and that are read a few rows at a time, are numpy's own."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import UserError
from tasks import arrays
from tasks.arrays import ArrayFile, stream


@pytest.mark.parametrize(("count", "dtype"), [(0, "uint8"), (1, "float32"), (12, "int64"), (2500, "float16")])
def test_a_file_that_grew_has_the_bytes_that_numpy_saves(tmp_path: Path, count: int, dtype: str) -> None:
    rows = (np.random.default_rng(0).random((count, 3, 2)) * 100).astype(dtype)
    np.save(tmp_path / "expected.npy", rows)
    file = ArrayFile(tmp_path / "grown.npy", (3, 2), dtype)
    assert [file.append(row) for row in rows] == list(range(count))
    file.close()
    assert (tmp_path / "grown.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    read = list(stream(tmp_path / "grown.npy"))
    assert len(read) == count
    assert not count or (np.stack(read) == rows).all()


def test_rows_come_in_any_order(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "rows.npy", (2,), np.uint8, 3)
    for row in (2, 0):
        file.put(row, np.array([row, row + 1], np.uint8))
    with pytest.raises(ValueError, match="expected"):
        file.put(1, np.zeros(3, np.uint8))
    file.close()
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), [[0, 1], [0, 0], [2, 3]])


def test_what_is_no_whole_array_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 4)
    np.save(tmp_path / "rows.npy", np.arange(30, dtype=np.uint8).reshape(10, 3))
    with (tmp_path / "rows.npy").open("r+b") as file:
        file.truncate(128 + 20)
    with pytest.raises(UserError, match="ends too early"):
        list(stream(tmp_path / "rows.npy"))
    (tmp_path / "rows.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is no array"):
        list(stream(tmp_path / "rows.npy"))
