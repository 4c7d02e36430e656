"""A board for tests: a real sshd on loopback, with keys of its own, that knows one user and one key."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SSHD = next((path for path in (shutil.which("sshd"), "/usr/sbin/sshd") if path and Path(path).exists()), None)


def make_key(path: Path) -> None:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, timeout=30)


@contextmanager
def board(folder: Path, port: int, bin_folder: Path) -> Iterator[str]:
    """The target's name of a board whose PATH begins with `bin_folder`; the client's settings are `folder`/config."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd on this machine: apt-get install openssh-server")
    folder.chmod(0o700)
    for name in ("host", "user"):
        make_key(folder / name)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "authorized").chmod(0o600)
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\n"
        # After the login shell's own start-up files, which may set another PATH.
        f'ForceCommand PATH={bin_folder}:/usr/bin:/bin exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        "  GlobalKnownHostsFile none\n  IdentityAgent none\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # its privileged part wants an empty folder
    log = folder / "sshd.log"
    words = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as server:
        try:
            ends = time.monotonic() + 20
            while b"listening" not in log.read_bytes():
                assert server.poll() is None and time.monotonic() < ends, log.read_text()
                time.sleep(0.05)
            yield f"ssh:{getpass.getuser()}@127.0.0.1:{port}"
        finally:
            server.terminate()
