"""What a command needs that looks on while a graph works: how it waits, how it ends, where the nodes' output goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


class GraphEnded(Exception):
    """The run cannot go on; the text is one sentence."""


class Stopped(Exception):
    """Somebody asked for the end."""


class NodeLog:
    """All nodes' output in one file; the terminal belongs to the progress."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def write(self, name: str, line: str) -> None:
        try:
            self._file.write(f"{name} | {line}\n")
        except (ValueError, OSError):  # a last line after the end; a full disk, which must not block the nodes' output
            pass

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:  # what it still held has no room
            pass


def handle_all(executor) -> None:
    """Run every callback that is due. spin_once does not tell whether there was one."""
    from rclpy.executors import TimeoutException

    while True:
        try:
            handler, _, _ = executor.wait_for_ready_callbacks(timeout_sec=0.0)
        except TimeoutException:
            return
        handler()
        if handler.exception() is not None:
            raise handler.exception()


def wait_until(
    condition: Callable[[], object], timeout: float, problem: Callable[[], str], spin: Callable[[], None]
) -> None:
    """Call `spin` until the condition holds. Raises GraphEnded with the problem where it does not within timeout s."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise GraphEnded(f"{problem()} after {timeout:g} s")
        spin()
