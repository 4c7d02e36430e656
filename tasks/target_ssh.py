"""Target `ssh:user@host[:port]`: any Linux board, by the plain OpenSSH client.

A temporary folder on the board gets the runner (tasks/board_runner.py and the modules it needs as one file), the model
files and a few input pictures, all as one tar stream; the runner's answer and the outputs come back, and the folder is
removed, also after a failure. The board needs sh, tar, mktemp and Python 3.10; nothing is installed on it.

Nobody is asked for a password (BatchMode): the key is the agent's or that of ~/.ssh/config, or of the file named in
UNDERSTUDY_SSH_CONFIG. A host that is not known is refused: connect once by hand.
"""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from tasks.target import FILE_NAME, SSH, Images, Job, Measured, all_or_reason, file_row, judged_file

ROOT = Path(__file__).parent.parent
RUNNER = "runner.pyz"
# The whole of what runs on the board: no other module may be imported by these at their top.
MODULES = (
    "models/__init__.py",
    "models/errors.py",
    "models/runtimes.py",
    "models/silence.py",
    "models/token_runtimes.py",
    "tasks/__init__.py",
    "tasks/benchmark_model.py",
    "tasks/board_runner.py",
    "tasks/machine_state.py",
    "tasks/timing.py",
)
START = """import sys
if sys.version_info < (3, 10):
    sys.exit("understudy: Python 3.10 is needed, this is " + sys.version.split()[0])
from pathlib import Path
from tasks.board_runner import main
main(Path(sys.argv[0]).resolve().parent)
"""
CONNECT_S = 15
COPY_S = 300
RUN_S = 1200
LIMIT = 256 * 2**20  # bytes that are taken back from a board
REMOTE_FOLDER = re.compile(r"/[A-Za-z0-9._/-]*understudy\.[A-Za-z0-9]+", re.A)


class Board:
    """One host, by ssh. Every word of a remote command is a constant or has been matched against a pattern."""

    def __init__(self, target: str) -> None:
        match = SSH.fullmatch(target)
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UserError("no ssh on this machine: install it (apt-get install openssh-client)")
        assert match is not None  # tasks/target.py's check_target has seen it
        self.target = target
        config = os.environ.get("UNDERSTUDY_SSH_CONFIG")
        self.words = [ssh, *(["-F", config] if config else []), "-T", "-p", match["port"] or "22"]
        for option in (
            "BatchMode=yes",
            f"ConnectTimeout={CONNECT_S}",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
        ):
            self.words += ["-o", option]
        self.words += ["-o", "LogLevel=ERROR", "-l", match["user"], "--", match["host"]]

    def call(self, *words: str, seconds: float, data: bytes = b"") -> bytes:
        """What a command on the board prints; a UserError where it fails or the board is gone."""
        try:
            done = subprocess.run([*self.words, *words], input=data, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"the board did not answer within {seconds:g} s ({words[0]})") from None
        if done.returncode:
            raise UserError(self.reason(done.returncode, done.stderr, words[0]))
        return done.stdout

    def run(self, folder: str, seconds: float) -> bytes:
        """The same of the runner, whose standard input stays open for as long as we live and want it."""
        words = [*self.words, "python3", f"{folder}/{RUNNER}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            kept = process.stdin
            process.stdin = None  # communicate() would close it, which ends the runner
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise UserError(f"the board was not done within {seconds:g} s") from None
            finally:
                if process.poll() is None:
                    process.kill()
                if kept:
                    kept.close()
        if process.returncode:
            raise UserError(self.reason(process.returncode, err, "python3"))
        return out

    def reason(self, code: int, stderr: bytes, word: str) -> str:
        """One line of why a command failed; 255 is ssh's own failure."""
        lines = [" ".join(line.split()) for line in stderr.decode(errors="replace").splitlines() if line.strip()]
        said = f"{lines[-1]:.160}" if lines else "it said nothing"
        if code == 255:
            hint = "connect once by hand" if "erification" in said else "is it on, and is the key known to it?"
            return f"the board cannot be reached, or went away ({said}): {hint}"
        if code < 0:
            return f"ssh was ended by signal {-code}"
        return f"{word} failed on the board ({said})"


def measure_ssh(job: Job, target: str) -> Measured:
    """Every file that the board has a runtime for, and how far its outputs lie from this machine's."""
    named = [one for one in job.files if FILE_NAME.fullmatch(one["file"])]
    judged = judged_file(named, target)["file"]
    board = Board(target)
    folder = (
        board.call("mktemp", "-d", "/tmp/understudy.XXXXXXXXXX", seconds=2 * CONNECT_S).decode(errors="replace").strip()
    )
    if not REMOTE_FOLDER.fullmatch(folder):
        raise UserError(f"mktemp on the board gave {folder!r:.80}, which is no folder of ours")
    try:
        board.call("tar", "-xf", "-", "-C", folder, seconds=COPY_S, data=packed(job, named, judged))
        told = answer(board.run(folder, RUN_S + job.sustained_s))
        files = {one["file"] for one in named}
        outputs = fetch(board, folder, [row["file"] for row in told["rows"] if row["file"] in files])
    finally:
        with suppress(UserError):  # the runner removes it when it sees that we are gone
            board.call("rm", "-rf", "--", folder, seconds=2 * CONNECT_S)
    return found(job, target, told, outputs)


def runner() -> bytes:
    """runner.pyz: the modules as one file that Python runs."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODULES:
            archive.writestr(name, (ROOT / name).read_bytes())
        archive.writestr("__main__.py", START)
    return data.getvalue()


def packed(job: Job, files: list[Any], judged: str) -> bytes:
    """The tar stream of all that goes to the board."""
    asked: dict[str, Any] = {"judged": judged}
    asked["files"] = [{key: one[key] for key in ("file", "runtime", "gives") if key in one} for one in files]
    asked |= {"warmup": job.warmup, "runs": job.runs, "threads": list(job.threads), "sustained_s": job.sustained_s}
    pictures = io.BytesIO()
    np.save(pictures, np.concatenate(job.pictures) if job.pictures else np.zeros((0, 1, 1, 3), np.float32))
    parts = {RUNNER: runner(), "job.json": json.dumps(asked).encode(), "input.npy": pictures.getvalue()}
    parts |= {one["file"]: (job.exported / one["file"]).read_bytes() for one in files}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def answer(out: bytes) -> dict[str, Any]:
    """The runner's JSON; a board is another machine, so nothing of it is taken for granted."""
    try:
        told = json.loads(out.splitlines()[-1])
        for key in ("machine", "before", "after", "failed"):
            dict(told[key])
        for row in told["rows"]:
            numbers = [row[key] for key in ("p50_ms", "p90_ms", "p99_ms", "threads", "runs")]
            if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
                raise ValueError("a time that is none")
        return dict(told)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the board's answer is not the runner's ({error!s:.80})") from None


def fetch(board: Board, folder: str, files: list[str]) -> dict[str, Images]:
    """The outputs by file, as far as they were written; anything else in the stream is passed over."""
    names = [f"{file}.npy" for file in dict.fromkeys(files)]
    if not names:
        return {}
    # Files of benchmark_model have no outputs: tar names what is missing and fails, so ask for what is there.
    there = set(board.call("ls", folder, seconds=2 * CONNECT_S).decode(errors="replace").split())
    wanted = [name for name in names if name in there]
    if not wanted:
        return {}
    data = board.call("tar", "-cf", "-", "-C", folder, *wanted, seconds=COPY_S)
    if len(data) > LIMIT:
        raise UserError(f"the board sent {len(data)} bytes of outputs, more than {LIMIT}")
    outputs: dict[str, Images] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for name in wanted:
                part = archive.extractfile(name)
                if part is not None:
                    outputs[name.removesuffix(".npy")] = np.load(io.BytesIO(part.read()), allow_pickle=False)
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"the board's outputs are not whole ({error!s:.80})") from None
    return outputs


def found(job: Job, target: str, told: dict[str, Any], outputs: dict[str, Images]) -> Measured:
    """What the board told as rows of benchmark.json, each with its parity to this machine."""
    from tasks.target_parity import parity_here

    records = {one["file"]: one for one in job.files}
    failed = {str(file): f"{reason!s:.200}" for file, reason in told["failed"].items() if file in records}
    all_or_reason(failed, told["rows"])
    parities = {file: parity_here(job, records[file], outputs[file]) for file in outputs}
    keys = ("p50_ms", "p90_ms", "p99_ms", "peak_mib", "runs", "measured_by")
    rows = [
        file_row(
            records[row["file"]],
            target,
            int(row["threads"]),
            {key: row[key] for key in keys if key in row} | {"parity": parities.get(row["file"])},
        )
        for row in told["rows"]
        if row["file"] in records
    ]
    about: dict[str, Any] = {key: told[key] for key in ("machine", "before", "after", "sustained") if key in told}
    return Measured(files=rows, about=about, not_measured=failed)
