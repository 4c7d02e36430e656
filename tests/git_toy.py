"""The toy repository as git holds it: everything committed that is source, everything ignored that is made."""

import os
import subprocess
from pathlib import Path
from typing import Any

IGNORED = "/data/inputs\n/data/students\n/data/.work\n/data/sources/*\n/mode\n/hanging*\n/mlflow/mlflow.db*\n"
IGNORED += "/.dvc/cache\n/.dvc/tmp\n/.dvc/config.local\n__pycache__/\n"


def git(*args: str, cwd: Path | None = None) -> str:
    command = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", *args]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def commit_toy(toy: Path) -> str:
    """Make the toy in `toy` a git repository with one commit; returns its id."""
    config = toy / ".dvc" / "config"
    config.write_text(config.read_text().replace("    no_scm = true\n", ""))
    (toy / ".gitignore").write_text(IGNORED)
    git("init", "--quiet", "--initial-branch=main", cwd=toy)
    for folder in ("data/sources", "start"):  # git keeps no empty folder
        (toy / folder / ".keep").touch()
    git("add", "--force", ".gitignore", ".dvc/config", "data/sources/.keep", "start", cwd=toy)
    git("add", "params.yaml", "dvc.yaml", "seed", "toy_pipeline.py", cwd=toy)
    if (toy / "dvc.lock").exists():
        git("add", "dvc.lock", cwd=toy)
    git("commit", "--quiet", "-m", "toy", cwd=toy)
    return git("rev-parse", "HEAD", cwd=toy)


def state_of(toy: Path) -> dict[str, Any]:
    """Everything of the user's that a workspace must leave as it is: status, HEAD, refs, index and every file."""
    files = {}
    for folder, folders, names in os.walk(toy):
        below = Path(folder).relative_to(toy).as_posix()
        folders[:] = [] if below == "data/.work" else [name for name in folders if name != ".git"]
        if below not in (".dvc/tmp", "data/.work"):
            files |= {f"{below}/{name}": (Path(folder) / name).stat().st_mtime_ns for name in names}
    git_folder = toy / ".git"
    index = (git_folder / "index").read_bytes() if (git_folder / "index").exists() else b""
    told = {name: git(*name.split(), cwd=toy) for name in ("--no-optional-locks status --porcelain", "branch --list")}
    return {"files": files, "index": index, "head": (git_folder / "HEAD").read_text(), **told}
