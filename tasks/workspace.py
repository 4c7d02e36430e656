"""A retrain's own checkout: a git worktree in data/.work/workspaces/STUDENT-KEY8 that shares the DVC cache.

Reads the repository in the current folder and never changes its files, index, HEAD or branches, but for the one
branch that `commit` is asked for. What git does not hold (photos, a teacher's file, a start's weights) is brought
over by hard link. STUDENT-KEY8.base beside the folder names the commit of a checkout that is whole.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from models.errors import TryAgain, UserError
from models.files import TEMPORARY
from models.teachers import answers_folder
from tasks.carry import carry
from tasks.files import read_json, write_bytes, write_json, write_text
from tasks.git import commit_id, file_at, git, git_environment
from tasks.params import NAME, Params, parse_params, parse_yaml
from tasks.params_text import with_values
from tasks.pin import FILE, apply_profile
from tasks.pipeline import DATASET, STAGES, StageFailed, cache_folder, stop_group
from tasks.stage import TRY_AGAIN, WORK, die_with_parent, locked
from tasks.starts import RECORD, RECORDS

WORKSPACES = WORK / "workspaces"
LOCK = "dvc.lock"
BRANCHES = "retrain/"  # how the names of all branches begin that are ours to make, move and drop
AUTHOR = ("user.name=Understudy", "user.email=understudy@localhost")  # where git has nobody configured


def prepare(
    *,
    student: str,
    key: str,
    base: str,
    teacher: Mapping[str, Any] | None,
    profile: str | None,
    inputs: Path | None,
    start: Mapping[str, Any] | None,
) -> Path:
    """The workspace for one retrain of one student, made or found as an earlier run left it; an absolute path.

    `key` is a hex digest of what the retrain is about, `base` a commit. `teacher` and `profile` go into the
    workspace's params.yaml; `inputs` is a folder of recent pictures that the student is to learn from too; `start` is
    the record of the weights to begin with instead of those of `init` (tasks/starts.py).
    """
    if not NAME.fullmatch(student) or len(key) < 8 or set(key) - set("0123456789abcdef"):
        raise UserError(f"no workspace for student {student!r} and key {key!r}: names are plain, keys hex digests")
    if git("rev-parse", "--show-prefix"):
        raise UserError("params.yaml is not at the root of its git repository: a retrain needs it there")
    commit = commit_id(base)
    folder = WORKSPACES.absolute() / f"{student}-{key[:8]}"
    with locked(folder.with_suffix(".lock")):
        found = _base_of(folder)
        if found != commit:
            _record(folder).unlink(missing_ok=True)
            if found:  # the branch went on, this job did not change: what a run has begun here is kept
                git("checkout", "--quiet", "--force", "--detach", commit, cwd=folder)
            else:
                remove(folder)
                _check_out(folder, commit)
            write_text(_record(folder), commit)
        _set_start(folder, commit, RECORDS / student / RECORD, start)
        init = (RECORDS / student).as_posix() if start else ""
        params = _set_params(folder, commit, student, teacher, profile, init)
        carry(folder, params, student, inputs)
    return folder


def _record(folder: Path) -> Path:
    return folder.with_suffix(".base")


def _base_of(folder: Path) -> str:
    """The commit of a whole workspace; "" where there is none, or only a part of one."""
    with suppress(FileNotFoundError):
        return _record(folder).read_text() if folder.is_dir() else ""
    return ""


def _check_out(folder: Path, commit: str) -> None:
    """Git's part of a workspace, and its way to DVC's cache; at its place only when it is whole.

    Under another name until then, because git goes on for a while when we are killed.
    """
    temporary = folder.with_name(f"{TEMPORARY}{os.getpid()}-{folder.name}")
    git("worktree", "add", "--quiet", "--detach", "--force", "--force", str(temporary), commit)
    if Path(LOCK).is_file() and not (temporary / LOCK).exists():
        shutil.copyfile(LOCK, temporary / LOCK)  # no link: DVC writes into it
    write_text(temporary / ".dvc" / "config.local", f'[cache]\n    dir = "{cache_folder()}"\n')
    git("worktree", "move", str(temporary), str(folder))


def _set_start(folder: Path, commit: str, path: Path, start: Mapping[str, Any] | None) -> None:
    """Write the record of the start's weights, or put what the commit has in its place."""
    if start:
        if not (folder / path).is_file() or read_json(folder / path) != start:
            write_json(folder / path, start)
        return
    (folder / path).unlink(missing_ok=True)
    with suppress(UserError):  # the commit has none
        write_text(folder / path, file_at(commit, path.as_posix()))


def _set_params(
    folder: Path, commit: str, student: str, teacher: Mapping[str, Any] | None, profile: str | None, init: str
) -> Params:
    """Write params.yaml as it is at the commit, with pin, init and profile; the same bytes are not written again."""
    values = ({} if teacher is None else {"teacher": dict(teacher)}) | ({"init": init} if init else {})
    text = with_values(file_at(commit, FILE), student, values)
    raw = parse_yaml(text)
    if profile is not None:
        raw = apply_profile(raw, student, profile)
        text = f"# The profile {profile} of {commit}.\n{yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)}"
    params = parse_params(raw)
    params.block(student)
    if (folder / FILE).read_bytes() != text.encode():
        write_bytes(folder / FILE, text.encode())
    return params


def environment(folder: Path, main: Path = Path()) -> dict[str, str]:
    """What a process in the workspace needs: its own code first, and the main checkout's MLflow and paid answers."""
    main = main.absolute()
    path = os.pathsep.join(filter(None, [str(folder.absolute()), os.environ.get("PYTHONPATH")]))
    mlflow = main / (os.environ.get("UNDERSTUDY_MLFLOW") or "mlflow")
    more = {"PYTHONPATH": path, "UNDERSTUDY_MLFLOW": str(mlflow), "PYTHONUNBUFFERED": "1"}
    more["UNDERSTUDY_ANSWERS"] = str(main / answers_folder())  # what was paid for outlives the workspace
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):  # relative: it means another file there
        more["MLFLOW_TRACKING_URI"] = f"sqlite:///{main / uri.removeprefix('sqlite:///')}"
    return git_environment() | more


def understudy(folder: Path, *args: str) -> None:
    """Run a command of the workspace's own `understudy` in it."""
    run(folder, "flows.cli", *args)


def run(folder: Path, module: str, *args: str) -> None:
    """Run `python -m MODULE ARGS` in the workspace with its lines on our stdout; it ends when we do, however we end.

    Raises StageFailed or UserError with the line the process ended with, TryAgain where it says that helps.
    """
    command = [sys.executable, "-m", "tasks.workspace", str(os.getpid()), module, *args]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us, who then stop the group
        text=True,
        errors="replace",
    )
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        code = process.wait()
    except BaseException:  # Ctrl-C, or an exception of whoever runs us: leave nothing behind
        stop_group(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if code:
        raise _failure(code, last.removeprefix("understudy: "))


def _failure(code: int, last: str) -> UserError:
    """What the end of the process means to whoever started it."""
    if code < 0:
        return UserError(f"the process was ended by {signal.Signals(-code).name}: run again to go on from there")
    reason = last or f"the process ended with exit code {code} and no word"
    if code == TRY_AGAIN:
        return TryAgain(reason)
    stage, _, rest = reason.partition(": ")
    return (
        StageFailed(stage, rest, shown=True, code=code) if stage in (*STAGES, DATASET) and rest else UserError(reason)
    )


def commit(folder: Path, *, branch: str, message: str) -> str:
    """Commit the workspace's params.yaml, dvc.lock and start on top of its base, as `branch`; returns the commit's id.

    The start is what lies in models/start/champions. Nothing else goes in, and the same content makes no second
    commit. The workspace's own HEAD stays at the base.
    """
    _check_branch(branch)
    base = commit_id("HEAD", folder)
    tree = _tree(folder, base)
    made = _commit_of(folder, branch, base, tree)
    if made is None:
        named = all(_configured(key, folder) for key in ("user.name", "user.email"))
        words = ("commit-tree", "--no-gpg-sign", "-p", base, "-F", "-", tree)
        made = git(*words, cwd=folder, stdin=message, config=() if named else AUTHOR)
        git("branch", "--quiet", "--no-track", "--force", branch, made, cwd=folder)
    return made


def drop_branch(branch: str) -> None:
    """Delete a branch that `commit` made, if it is there and checked out nowhere."""
    _check_branch(branch)
    with suppress(UserError):
        git("branch", "--quiet", "--delete", "--force", branch)


def _check_branch(branch: str) -> None:
    git("check-ref-format", "--branch", branch)
    if not branch.startswith(BRANCHES):
        raise UserError(f"{branch} is not ours: a retrain's branches begin with {BRANCHES}")


def _tree(folder: Path, base: str) -> str:
    """The id of the base's tree with this workspace's own files in it; no index is touched."""
    for name in (FILE, LOCK):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: nothing to commit before the stages have run")
    starts = [path.relative_to(folder) for path in sorted((folder / RECORDS).glob(f"*/{RECORD}"))]
    tree = base
    for path in (Path(FILE), Path(LOCK), *starts):
        tree = _with_file(folder, tree, path.parts, git("hash-object", "-w", "--", path.as_posix(), cwd=folder))
    return tree


def _with_file(folder: Path, tree: str, parts: Sequence[str], blob: str) -> str:
    """The id of a tree ("" is an empty one) with a file at this path in it."""
    listed = git("ls-tree", "-z", tree, cwd=folder) if tree else ""
    entries = {line.partition("\t")[2]: line for line in listed.split("\0") if line}
    name, *below = parts
    if below:
        known = entries[name].split()[2] if name in entries else ""
        entries[name] = f"040000 tree {_with_file(folder, known, below, blob)}\t{name}"
    else:
        entries[name] = f"100644 blob {blob}\t{name}"
    return git("mktree", "-z", cwd=folder, stdin="".join(f"{entry}\0" for entry in entries.values()))


def _commit_of(folder: Path, branch: str, base: str, tree: str) -> str | None:
    """The commit of this very tree on this base that the branch holds already, also below commits of others."""
    with suppress(UserError):  # no such branch
        for line in git("log", "--format=%H %T %P", f"{base}..refs/heads/{branch}", "--", cwd=folder).splitlines():
            made, of, *parents = line.split()
            if (of, parents) == (tree, [base]):
                return made
    return None


def _configured(key: str, folder: Path) -> bool:
    with suppress(UserError):
        return bool(git("config", "--get", key, cwd=folder))
    return False


def remove(folder: Path) -> None:
    """Take a workspace away, whole or half made, and what git remembers of it."""
    if folder.resolve().parent != WORKSPACES.resolve():
        raise UserError(f"{folder} is no workspace: nothing is removed")
    _record(folder).unlink(missing_ok=True)
    for path in [*folder.parent.glob(f"{TEMPORARY}*-{folder.name}"), folder]:
        with suppress(UserError):  # git may not know it
            git("worktree", "remove", "--force", "--force", str(path.absolute()))
        if path.exists():
            shutil.rmtree(path, ignore_errors=path != folder)  # the git of a run that was killed may write there yet


def main() -> None:
    """The child of `run`: arguments are the parent's pid, a module and what that is given."""
    parent, module, *args = sys.argv[1:]
    die_with_parent(int(parent))  # holds for the program that takes our place too
    os.execv(sys.executable, [sys.executable, "-m", module, *args])


if __name__ == "__main__":
    main()
