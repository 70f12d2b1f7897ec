"""A command's session with a running graph: rclpy with one node, waiting, and the log of the nodes' output.

rclpy is imported when a session begins, so that a command can set environment variables before.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_ros.bringup.environment import log_directory
from jepa_ros.errors import InputError

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node


PASSIVE = {"enable_rosout": False, "start_parameter_services": False}  # options of a node that publishes nothing


class GraphEnded(Exception):
    """The run cannot continue; the text is one sentence."""


class Stopped(Exception):
    """The user asked for the end."""


class RclpySession:
    """One node with its executor; a context manager. Signals stay with the command.

    passive: the node publishes nothing: it has no log topic and no parameter services.
    """

    node: Node
    executor: SingleThreadedExecutor

    def __init__(self, name: str, namespace: str = "", use_sim_time: bool = False, passive: bool = False) -> None:
        self._name, self._use_sim_time = name, use_sim_time
        self._options = {"namespace": namespace, **(PASSIVE if passive else {})}

    def __enter__(self) -> RclpySession:
        os.environ.update(log_directory(os.environ))
        import rclpy
        from rclpy.parameter import Parameter
        from rclpy.signals import SignalHandlerOptions

        from jepa_ros.nodes.common.executor import make_executor

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        clock = [Parameter("use_sim_time", value=self._use_sim_time)]
        self.node = rclpy.create_node(self._name, parameter_overrides=clock, **self._options)
        self.executor = make_executor()
        self.executor.add_node(self.node)
        return self

    def __exit__(self, *exception) -> None:
        import rclpy

        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()

    def handle_pending(self) -> None:
        """Run all callbacks that are due. One call for many messages costs less than one wait for each."""
        from rclpy.executors import TimeoutException

        while True:
            try:
                handler, _, _ = self.executor.wait_for_ready_callbacks(timeout_sec=0.0)
            except TimeoutException:
                return
            handler()
            if handler.exception() is not None:
                raise handler.exception()

    def wait_for(self, condition: Callable[[], object], timeout: float, stop: Callable[[], bool] | None = None) -> bool:
        """Handle callbacks until the condition holds; return whether it does within `timeout` s.

        Raises Stopped as soon as `stop` returns True.
        """
        end = time.monotonic() + timeout
        while not condition():
            if stop is not None and stop():
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.executor.spin_once(timeout_sec=min(left, 0.05))
        return True


def wait_until(
    condition: Callable[[], object], timeout: float, problem: Callable[[], str], spin: Callable[[], None]
) -> None:
    """Call `spin` until the condition holds; raise GraphEnded with the problem where it does not within `timeout` s."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise GraphEnded(f"{problem()} after {timeout:g} s")
        spin()


class NodeLog:
    """The output of all nodes in one file, while the terminal shows the progress.

    Until it is closed it keeps other runs out of its directory: two at once would overwrite each other's results.
    Raises InputError if another run is there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            text = f"--out {path.parent}: another run is writing there; give another directory, or wait for its end"
            raise InputError(text) from None
        self._file.truncate(0)

    def write(self, name: str, line: str) -> None:
        with suppress(ValueError, OSError):  # a last line after the end; a full disk must not block the nodes' output
            self._file.write(f"{name} | {line}\n")

    def close(self) -> None:
        with suppress(OSError):  # the disk is full
            self._file.close()
