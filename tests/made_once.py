"""What takes long to make is made once, also by the processes that run tests side by side."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
    """The folder that `make` filled, and the text it returned; whoever comes first calls it, the others wait.

    Nobody may change the folder.
    """
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    folder, told = session / name / "folder", session / name / "told"
    with FileLock(session / f"{name}.lock"):
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            text = make(folder)
            told.write_text(text)
    return folder, told.read_text()
