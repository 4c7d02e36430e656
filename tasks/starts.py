"""What a training begins with: start weights that are kept elsewhere than beside their record, and the champion's.

An `init` folder may hold student.json alone: a record of weights, which are then data/.work/starts/SHA256.safetensors,
or a registered student's in MLflow (each version's run keeps its student folder), fetched from there once. Nothing is
believed but by its sha256, so wherever the weights come from, the training is the same.

A retrain begins with the champion's weights unless `retrain.start` says init: their record is
models/start/champions/NAME in its workspace, and in the branch that it leaves.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.files import check_sha256, read_json, sha256_file, write_bytes
from tasks.git import file_at
from tasks.params_text import with_values
from tasks.pin import FILE, params_at
from tasks.stage import WORK
from tasks.student_params import Student

RECORDS = Path("models/start/champions")
RECORD, WEIGHTS = "student.json", "weights.safetensors"
KEPT = WORK / "starts"
# What begins with weights asks of their record.
FIELDS = ("architecture", "control", "size", "compress", "ranks", "weights_sha256")


def kept_weights(sha256: str) -> Path:
    """Where weights lie that are not beside their record."""
    return KEPT / f"{sha256}.safetensors"


def find_weights(folder: Path, sha256: str) -> Path:
    """The file with a start's weights, checked: beside its record, kept here, or fetched from the registry."""
    own = folder / WEIGHTS
    if own.exists():
        check_sha256(own, sha256, "init")
        return own
    if not _is_kept(sha256) and not _fetch(sha256):
        raise UserError(
            f"init: {folder} is a record of weights that lie neither at {kept_weights(sha256)} nor in a registry here: "
            "put them there, have MLFLOW_TRACKING_URI name the MLflow that has them, or give another init"
        )
    return kept_weights(sha256)


def _is_kept(sha256: str) -> bool:
    return kept_weights(sha256).is_file() and sha256_file(kept_weights(sha256)) == sha256


def _keep(weights: Path, sha256: str) -> None:
    """Take verified weights over, unless they are here: a workspace has them by hard link."""
    if not _is_kept(sha256):
        write_bytes(kept_weights(sha256), weights.read_bytes())


def _fetch(sha256: str) -> bool:
    """Fetch weights from any registered student that has them; whether there is one."""
    from tasks.mlflow_client import connected, is_configured
    from tasks.registry import fetch_student, with_weights

    if not is_configured():
        return False
    with connected() as client, tempfile.TemporaryDirectory() as temporary:
        for found in with_weights(client, sha256):
            got = fetch_student(client, found, Path(temporary) / f"{found.student}-{found.version}")
            if got:
                print(f"train: the start's weights are those of {found.student} version {found.version}, from MLflow")
                _keep(got / WEIGHTS, sha256)
                return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a retrain begins with, in words; and the record of the champion's weights, if it is those."""

    told: str
    record: dict[str, Any] | None = None


def champion_start(student: str, commit: str) -> Start:
    """The start of a retrain from `commit`: the champion's weights, fetched and verified, or else the block's init."""
    from tasks.mlflow_client import connected
    from tasks.registry import fetch_student, read_state, version

    params = params_at(commit)
    block = params.block(student)
    by_init = f"it begins with its init, {block.init}" if block.init else "it begins from scratch"
    if not isinstance(block, Student):
        return Start(told=f"{by_init}, as its block says")
    if params.retrain.start == "init":
        return Start(told=f"{by_init}, as retrain.start says")
    with connected() as client, tempfile.TemporaryDirectory() as temporary:
        state = read_state(client, student)
        if not state.champion:
            return Start(told=f"{by_init}, as it has no champion")
        title = f"the champion, version {state.champion}"
        got = fetch_student(client, version(client, student, state.champion), Path(temporary))
        if got is None:
            return Start(told=f"{by_init}: {title}, was registered without its weights")
        record = read_json(got / RECORD)
        hindrance = _hindrance(record, student, block, commit)
        if hindrance:
            return Start(told=f"{by_init}: {title}, {hindrance}")
        _keep(got / WEIGHTS, record["weights_sha256"])
    return Start(told=f"it begins with {title}", record={field: record[field] for field in FIELDS if field in record})


def _hindrance(record: Mapping[str, Any], student: str, block: Student, commit: str) -> str:
    """Why a champion's weights are no start for a student of this block, or nothing."""
    if record.get("architecture") != block.architecture.model_dump():
        return "has another architecture"
    if record.get("control", "none") != block.control.by:
        return "has another control"
    if record.get("ranks") or record.get("compress", {}).get("prune"):
        return "was cut after its training (compress)"
    try:
        with_values(file_at(commit, FILE), student, {"init": (RECORDS / student).as_posix()})
    except UserError as error:
        return f"cannot be named in {error}"
    return ""
