"""A real PostgreSQL and an S3 server that checks signatures, on loopback, gone again when the context ends."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import wait_until
from servers import running

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))  # Debian's
INITIALLY = ["--auth=scram-sha-256", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
QUICKLY = ["-c", "fsync=off", "-c", "unix_socket_directories="]  # nothing here outlives the test
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@contextmanager
def postgres(port: int, *, password: str, script: Path, env: Mapping[str, str]) -> Iterator[None]:
    """An empty cluster in which `script` has run as the superuser `postgres`, with `env` for psql's getenv.

    Where we are root, which PostgreSQL refuses to be, it runs as the account that Debian's package makes.
    """
    if not POSTGRES:
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
    programs = POSTGRES[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="understudy-postgres-"))
    secret = folder / "password"
    secret.write_text(password)
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
        for path in (folder, secret):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    address = ["--host=127.0.0.1", f"--port={port}"]
    server = [str(programs / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), *QUICKLY]
    try:
        made = [str(programs / "initdb"), f"--pgdata={folder / 'data'}", f"--pwfile={secret}", *INITIALLY]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=60, **account)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(server, cwd=folder, stdout=log, stderr=log, **account)
        try:
            ready = [str(programs / "pg_isready"), "--quiet", *address]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
            run = [str(programs / "psql"), *address, "--username=postgres", "--quiet", f"--file={script}"]
            subprocess.run(run, env={**os.environ, **env, "PGPASSWORD": password}, check=True, timeout=60)
            yield
        finally:
            process.send_signal(signal.SIGINT)  # its "fast" end; SIGTERM would wait for the clients
            process.wait(30)
    finally:
        shutil.rmtree(folder)


@contextmanager
def object_store(port: int, *, bucket: str) -> Iterator[tuple[Any, str, str]]:
    """moto's S3 server with one bucket; yields a client, and the only key and secret that it takes."""
    import boto3
    import httpx

    address = f"http://127.0.0.1:{port}"
    here = {"endpoint_url": address, "region_name": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "--host=127.0.0.1", f"--port={port}"]
    with running(command, health=f"{address}/moto-api/data.json"):
        iam = boto3.client("iam", **here, aws_access_key_id="first", aws_secret_access_key="first")
        iam.create_user(UserName="mlflow")
        iam.put_user_policy(UserName="mlflow", PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING))
        made = iam.create_access_key(UserName="mlflow")["AccessKey"]
        key, secret = made["AccessKeyId"], made["SecretAccessKey"]
        httpx.post(f"{address}/moto-api/reset-auth", content=b"0").raise_for_status()  # from here on it asks
        client = boto3.client("s3", **here, aws_access_key_id=key, aws_secret_access_key=secret)
        client.create_bucket(Bucket=bucket)
        yield client, key, secret
