"""Run one node in one process: executor, signals, exit code."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.executor import make_executor
from jepa_ros.nodes.common.shared_memory import StalePorts

if TYPE_CHECKING:
    from jepa_ros.nodes.common.lifecycle import JepaNode

END_TIMEOUT = 10.0  # s after a stop request after which the process ends even if a hook hangs


class StopSignal:
    """SIGINT and SIGTERM as a request to stop that a spinning executor notices at once.

    Python runs signal handlers between bytecodes of the main thread, which is blocked in the middleware's wait. So
    another thread reads the interpreter's wake-up socket and wakes the executor. Later signals have no effect.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in self.SIGNALS:
            signal.signal(number, lambda *_: self._stop.set())
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="stop-signal", daemon=True).start()

    @property
    def requested(self) -> bool:
        return self._stop.is_set()

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Set the function that another thread calls on a signal, or None; when this returns no call is running."""
        with self._lock:
            self._wake = wake

    def ignore(self) -> None:
        """Ignore further signals: a second Ctrl-C must not turn an orderly end into an error."""
        signal.set_wakeup_fd(-1)
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _listen(self) -> None:
        while self._reader.recv(64):
            with self._lock:
                self._stop.set()
                if self._wake is not None:
                    self._wake()


def run_node(node_class: Callable[[], JepaNode]) -> int:
    """Run one node in this process until SIGINT, SIGTERM or request_exit, and return the exit code.

    0 after an orderly end, 2 for invalid parameters or ROS arguments (one line on stderr), 1 after a bug (traceback
    logged, motion stopped first).
    """
    stop = StopSignal()
    ports = StalePorts()
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
        ports.mark_replaced()
    except Exception as error:
        if not isinstance(error, InputError) and not _is_about_arguments(error):
            raise
        name = getattr(node_class, "__name__", "node")
        sys.stderr.write(f"{name}: {' '.join(str(error).split())}\n")
        rclpy.try_shutdown()
        return 2
    executor = make_executor()
    executor.add_node(node)
    stop.set_wake(lambda: executor.create_task(lambda: None))
    code = 0
    try:
        while not stop.requested and node.exit_code is None:
            executor.spin_once()
    except Exception:
        node.get_logger().fatal(traceback.format_exc())
        code = 1
    finally:
        stop.set_wake(None)
        _end(node, executor)
        stop.ignore()
    return code or node.exit_code or 0


def _end(node: JepaNode, executor: SingleThreadedExecutor) -> None:
    deadline = threading.Timer(END_TIMEOUT, _give_up, [node.get_name()])
    deadline.daemon = True
    deadline.start()
    node.finish()
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown(timeout_sec=1.0)
    rclpy.try_shutdown()
    deadline.cancel()


def _give_up(name: str) -> None:
    sys.stderr.write(f"{name}: did not end within {END_TIMEOUT:g} s\n")
    os._exit(1)


def _is_about_arguments(error: Exception) -> bool:
    """Return whether an error comes from the ROS arguments: a malformed remapping, a missing parameter file."""
    return type(error).__name__ in ("RCLError", "UnknownROSArgsError", "RCLInvalidROSArgsError")
