"""Processes that tests have started and not ended, found by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "JEPA_ROS_TESTS_PID"
"""Environment variable with the pid of the test process; whatever it starts inherits it."""
GRACE_S = 10.0
"""For processes that are about to end."""
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python's own helpers, which live as long as the test process."""


def find(pid: int) -> dict[int, str]:
    """Return pid and command line of every process that test process `pid` started, directly or not."""
    mark, found = f"{MARK}={pid}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or not ours
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            marked = mark in (folder / "environ").read_bytes().split(b"\0")  # not of what was only forked
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            ours = (marked or int(parent) == pid) and int(folder.name) != pid
            if ours and state != "Z" and not any(helper in command for helper in HELPERS):
                found[int(folder.name)] = command
    return found


def wait_until_gone(pid: int) -> dict[int, str]:
    """Return what find() still finds after a while of grace."""
    end = time.monotonic() + GRACE_S
    while (left := find(pid)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def kill(pids) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
