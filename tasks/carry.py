"""What git does not hold and a workspace needs: photos, recent pictures, a teacher's file, a start's weights.

Hard links where the file system allows it, else copies; a file that is there already stays untouched, so that
DVC need not read it again.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import UserError
from models.files import replacing
from models.teachers.pinned import Place, places
from tasks.files import read_json, sha256_file, sha256_json
from tasks.git import git
from tasks.params import ClassifierBlock, Params
from tasks.sources import walk
from tasks.starts import RECORD, RECORDS, kept_weights
from tasks.student_params import Student
from tasks.target import BROWSER

BROWSER_RUNTIME = "tasks/browser/node_modules/onnxruntime-web/dist"


def carry(folder: Path, params: Params, student: str, inputs: Path | None) -> None:
    """Bring into the workspace `folder` what lies here beside git, and take from it what has gone here.

    Files below ingest.folder, video.clips, the student's init and the pairs it replays, weights that init's record
    names and that are kept elsewhere, and what the teacher is read from, checked against its sha256.
    `inputs` are recent pictures: they come to lie in a folder of their own below ingest.folder.
    """
    block = params.block(student)
    if not isinstance(block, Student):
        carry_labels(folder, params, student, block)
        return
    wanted: dict[str, Path] = {}
    below_students = {"init": block.init, "train.replay.pairs": block.train.replay.pairs}
    folders = {"ingest.folder": params.ingest.folder, "video.clips": params.video.clips}
    folders |= {f"students.{student}.{key}": place for key, place in below_students.items()}
    for key, place in folders.items():
        # A champion's record is git's, or the retrain's own.
        if not (Path(place).is_absolute() or Path(place).is_relative_to(RECORDS)):
            below = _plain(key, place)
            wanted |= _beside_git(below)
            if key == "ingest.folder" and inputs is not None:
                wanted |= _recent(below, inputs)
            _clear(folder, below, wanted)
    if inputs is not None and Path(params.ingest.folder).is_absolute():
        raise UserError(
            "ingest.folder is an absolute path, so recent pictures cannot be added to it for a retrain alone: "
            "move it into the repository"
        )
    if BROWSER in params.benchmark.targets:
        wanted |= _beside_git(BROWSER_RUNTIME)  # what `make browser` has installed
    if params.benchmark.benchmark_model and not Path(params.benchmark.benchmark_model).is_absolute():
        tool = _plain("benchmark.benchmark_model", params.benchmark.benchmark_model)
        wanted |= {tool: Path(tool)} if Path(tool).is_file() else {}
    pinned = places(block.teacher.model_dump())
    wanted |= _pinned(folder, f"students.{student}.teacher", _told(block.teacher), pinned)
    for path, source in wanted.items():
        _bring(source, folder, path)
    _bring_weights(folder, folder / block.init / RECORD)


def carry_labels(folder: Path, params: Params, student: str, block: ClassifierBlock) -> None:
    """The same for a classifier: its dataset's source, the student it begins with, what its teacher is read from."""
    source = params.datasets[block.dataset].source
    ours = {f"datasets.{block.dataset}.source": source} | (
        {f"classifiers.{student}.init": block.init} if block.init else {}
    )
    wanted: dict[str, Path] = {}
    for key, place in ours.items():
        if Path(place).is_absolute():
            continue
        below = _plain(key, place)
        if Path(below).is_dir():
            wanted |= _beside_git(below)
            _clear(folder, below, wanted)
        elif not (folder / below).exists() and Path(below).is_file():
            wanted[below] = Path(below)
    teacher, layers = block.teacher.model_dump(), block.architecture.model_dump()
    pinned = [replace(one, key=f"teacher.{one.key}") for one in places(teacher)]
    if layers["kind"] == "transformer-layers":
        pinned.append(Place(key="architecture.path", where=layers["path"], sha256=layers["sha256"]))
    wanted |= _pinned(folder, f"classifiers.{student}", _told(block.teacher), pinned)
    for path, file in wanted.items():
        _bring(file, folder, path)


def _bring_weights(folder: Path, record: Path) -> None:
    """The start's weights, if they are kept here; the training verifies them, and fetches those that are not."""
    if record.is_file():
        kept = kept_weights(read_json(record).get("weights_sha256", "scratch"))
        if kept.is_file():
            _bring(kept, folder, kept.as_posix())


def _pinned(folder: Path, key: str, who: str, places: Sequence[Place]) -> dict[str, Path]:
    """The files of what is pinned, a teacher's, by path, that neither git nor the hub holds and that are not there."""
    wanted: dict[str, Path] = {}
    for pinned in places:
        if Path(pinned.where).is_absolute() or (pinned.revision and not pinned.is_here):
            continue
        _plain(f"{key}.{pinned.key}", pinned.where)
        if not pinned.is_here:
            if not (folder / pinned.where).exists():
                raise UserError(f"params.yaml: {key}.{pinned.key}: nothing lies at {pinned.where}: put it there")
            continue
        missing = [file for file in pinned.files() if not (folder / file).exists()]
        if missing:
            pinned.check(who)
            wanted |= {file.as_posix(): file for file in missing}
    return wanted


def _told(teacher: Any) -> str:
    return f"{teacher.name} v{teacher.version}"


def _plain(key: str, path: str) -> str:
    """A relative path in its shortest form; UserError if it leads out of the repository."""
    plain = PurePosixPath(path)
    if ".." in plain.parts or not plain.parts:
        raise UserError(f"params.yaml: {key}: {path} leads out of the repository: give an absolute path for a retrain")
    return str(plain)


def _beside_git(below: str) -> dict[str, Path]:
    """The files below a folder of this checkout that git does not hold, by path."""
    held = set(git("ls-files", "-z", "--", below).split("\0"))
    files = walk(Path(below)) if Path(below).is_dir() else ()
    return {path.as_posix(): path for path in files if path.as_posix() not in held}


def _recent(below: str, inputs: Path) -> dict[str, Path]:
    """The recent pictures at their places in the workspace: in a folder named by their names and bytes."""
    if not inputs.is_dir():
        raise UserError(f"there is no folder {inputs} of recent pictures")
    files = {path.relative_to(inputs).as_posix(): path for path in walk(inputs)}
    digest = sha256_json([[name, sha256_file(path)] for name, path in files.items()])
    return {f"{below}/recent-{digest[:8]}/{name}": path for name, path in files.items()}


def _clear(folder: Path, below: str, wanted: dict[str, Path]) -> None:
    """Remove what an earlier run brought and is wanted no more, and what a kill left half copied."""
    for path in filter(None, git("ls-files", "-z", "--others", "--", below, cwd=folder).split("\0")):
        if path not in wanted and (folder / path).is_file():
            (folder / path).unlink()


def _bring(source: Path, folder: Path, path: str) -> None:
    target = folder / path
    real = source.resolve()
    if target.exists():
        here, there = target.stat(), real.stat()
        if (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns):
            return
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} would lead out of the workspace by a link that git holds: make the link absolute")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without links
        with replacing(target) as temporary:
            shutil.copy2(real, temporary)
