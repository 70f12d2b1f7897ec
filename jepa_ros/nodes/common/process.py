"""One node in one process: executor, signals, exit code."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.executor import make_executor
from jepa_ros.nodes.common.shared_memory import Ports
from jepa_ros.nodes.common.signals import StopSignal

if TYPE_CHECKING:
    from jepa_ros.nodes.common.lifecycle import JepaNode

END_WITHIN = 10.0
"""Seconds after a stop request after which the process ends even if a hook hangs."""


def run_node(node_class: Callable[[], JepaNode], argv: Sequence[str] | None = None) -> int:
    """Runs one node in this process until SIGINT, SIGTERM or request_exit; returns the exit code.

    0 after an orderly end, 2 where parameters or ROS arguments do not fit (one line on stderr), 1 after a failure that
    is a bug (traceback logged, motion stopped first).
    """
    stop = StopSignal()
    ports = Ports()
    name = getattr(node_class, "__name__", "node")
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
        ports.give_up_replaced()
    except Exception as error:
        if not isinstance(error, InputError) and not _about_arguments(error):
            raise
        sys.stderr.write(f"{name}: {' '.join(str(error).split())}\n")
        rclpy.try_shutdown()
        return 2
    executor = make_executor()
    executor.add_node(node)
    stop.wakes(lambda: executor.create_task(lambda: None))
    code = 0
    try:
        while not stop.requested and node.exit_code is None:
            executor.spin_once()
    except Exception:
        node.get_logger().fatal(traceback.format_exc())
        code = 1
    finally:
        stop.wakes(None)
        _end(node, executor)
        stop.ignore_from_now_on()
    return code or node.exit_code or 0


def _end(node: JepaNode, executor: SingleThreadedExecutor) -> None:
    deadline = threading.Timer(END_WITHIN, _give_up, [node.get_name()])
    deadline.daemon = True
    deadline.start()
    node.finish()
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown(timeout_sec=1.0)
    rclpy.try_shutdown()
    deadline.cancel()


def _give_up(name: str) -> None:
    sys.stderr.write(f"{name}: did not come to an orderly end within {END_WITHIN:g} s\n")
    os._exit(1)


def _about_arguments(error: Exception) -> bool:
    """Whether it comes from the ROS arguments of the command line: a malformed remap, a parameters file not there."""
    return type(error).__name__ in ("RCLError", "UnknownROSArgsError", "RCLInvalidROSArgsError")
