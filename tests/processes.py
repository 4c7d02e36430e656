"""Waiting for real processes and servers, without a fixed sleep."""

import time
import urllib.request
from collections.abc import Callable

import psutil


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Poll until `true()`; the test fails when it never is."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if true():
            return
        time.sleep(0.02)
    raise AssertionError(f"not true within {timeout_s:g} s")


def gone(pid: int) -> bool:
    """No such process, or only its exit code is left."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def answers(url: str) -> bool:
    """A server gives 200 at this address."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
