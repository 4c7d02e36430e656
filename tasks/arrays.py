"""Array files (.npy) that are written and read a few rows at a time, with plain reads and writes.

Of a memory map, whatever was touched counts as the process's memory.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError

BLOCK = 1024  # rows read at a time


class ArrayFile:
    """A new array file (N,*shape) of one type, as numpy.save would leave it; rows come in any order, N may be open."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, count: int = 0) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._file = path.open("wb")
        self._count = count
        self._write_header()
        self._begin = self._file.tell()
        self._bytes = math.prod(shape) * self._dtype.itemsize
        self._file.truncate(self._begin + count * self._bytes)

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        # numpy leaves room in it for N to grow, so that it can be written over.
        np.lib.format.write_array_header_1_0(self._file, header | {"shape": (self._count, *self._shape)})

    def put(self, row: int, values: npt.NDArray[Any]) -> None:
        """Write one row (*shape); N is at least `row` + 1 from then on."""
        if values.shape != self._shape:
            raise ValueError(f"a row of {values.shape}, expected {self._shape}")
        self._file.seek(self._begin + row * self._bytes)
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self._count = max(self._count, row + 1)

    def append(self, values: npt.NDArray[Any]) -> int:
        """Write one row behind the last; returns its place."""
        self.put(self._count, values)
        return self._count - 1

    def close(self) -> None:
        """Write what is still in memory, and how many rows there are."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def stream(path: Path) -> Iterator[npt.NDArray[Any]]:
    """The rows of an array file, BLOCK in memory at a time; UserError where it is no whole array."""
    with path.open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise UserError(f"{path} is no array ({error}): run dvc repro") from None
        for start in range(0, shape[0], BLOCK):
            wanted = (min(BLOCK, shape[0] - start), *shape[1:])
            block = np.fromfile(file, dtype, math.prod(wanted))
            if block.size < math.prod(wanted):
                raise UserError(f"{path} ends too early: run dvc repro")
            yield from block.reshape(wanted)
