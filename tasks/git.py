"""The only module that calls git: one command, no shell, a time-out, an error in one line.

No hook of the user's runs, nothing is asked on the terminal, and looking never refreshes the index of the checkout.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from models.errors import TryAgain, UserError

TIMEOUT_S = 300.0  # a worktree of a big repository on a slow disk
# What a hook that started us has set: it would lead every command to the hook's own tree and index.
OF_A_HOOK = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
)
QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def git(*args: str, cwd: Path = Path(), stdin: str = "", config: Sequence[str] = ()) -> str:
    """The output of `git ARGS` in `cwd` without the newline at its end; raises UserError with git's own first line.

    `config` holds KEY=VALUE settings for this one command. Paths among the arguments are taken literally.
    """
    return os.fsdecode(_output(args, cwd, stdin, config)).removesuffix("\n")


def file_at(commit: str, name: str, cwd: Path = Path()) -> str:
    """The text of a file beside `cwd` as it is in a commit, to the last byte."""
    return os.fsdecode(_output(("show", f"{commit}:./{name}"), cwd))


def _output(args: Sequence[str], cwd: Path, stdin: str = "", config: Sequence[str] = ()) -> bytes:
    settings = [word for setting in ("core.hooksPath=/dev/null", *config) for word in ("-c", setting)]
    command = ["git", "--literal-pathspecs", *settings, *args]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=git_environment(), input=os.fsencode(stdin), capture_output=True, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        raise UserError(f"no git on the PATH, or no folder {cwd}: install git") from None
    except subprocess.TimeoutExpired:
        raise TryAgain(f"git {args[0]} took longer than {TIMEOUT_S:.0f} s: see what keeps the disk busy") from None
    if done.returncode:
        raise UserError(_reason(args[0], cwd, os.fsdecode(done.stderr)))
    return done.stdout


def git_environment() -> dict[str, str]:
    """Ours, without what a hook left in it, for git and for whatever calls git."""
    return {key: value for key, value in os.environ.items() if key not in OF_A_HOOK} | QUIET


def commit_id(ref: str, cwd: Path = Path()) -> str:
    """The id of the commit a branch, tag or abbreviation stands for; UserError if there is none."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", cwd=cwd)
    except UserError as error:
        if "no git repository" in str(error):
            raise
        raise UserError(f"git knows no commit {ref!r}: commit first, or fetch it") from None


def _reason(command: str, cwd: Path, told: str) -> str:
    """One line from what git said on stderr."""
    if "not a git repository" in told:
        return f"this is no git repository: {cwd.absolute()}; run git init and commit, a retrain works on commits"
    lines = [line for line in told.splitlines() if line.startswith(("fatal: ", "error: "))] or told.splitlines()
    line = lines[0].removeprefix("fatal: ").removeprefix("error: ") if lines else "it said nothing"
    return f"git {command}: {line}"
