"""``jepa_ros up``: run the nodes of a launch file without launch."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import (
    ARGUMENTS,
    RESPAWN_DELAY,
    Arguments,
    NodeSpec,
    check_inputs,
    check_model_fits,
    node_list,
)
from jepa_ros.bringup.process_group import Command, ProcessGroup
from jepa_ros.bringup.running_graphs import announce
from jepa_ros.errors import InputError

_COLOURS = (36, 32, 33, 35, 34, 31)  # terminal colours of the nodes' names, in order
ISOLATED = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(kind: str, **arguments: Any) -> int:
    """The command. arguments: those of ``ARGUMENTS[kind]``."""
    return up(kind, ARGUMENTS.get(kind, Arguments)(**arguments))


def up(kind: str, arguments: Arguments | None = None, out=None) -> int:
    """Run the bring-up ``kind`` ("sim" or "robot") until Ctrl-C, SIGTERM or the end of a node; return the exit code.

    0 after a requested stop and at the end of a replayed recording; if a node ended by itself, 2 if it refused its
    input, else 1. The nodes' output goes to ``out`` (default: stdout), each line after the node's name. Raises
    InputError for invalid arguments.
    """
    if kind == "gazebo":
        raise InputError(
            "up gazebo: launch must start Gazebo, its bridge and the controllers: use "
            "ros2 launch jepa_ros gazebo.launch.py"
        )
    arguments = arguments or ARGUMENTS[kind]()
    if getattr(arguments, "bringup", False):
        raise InputError(
            "up robot: launch must start the vendor's bring-up: use ros2 launch jepa_ros robot.launch.py bringup:=true"
        )
    specs = node_list(kind, arguments)
    check_inputs(arguments)
    check_model_fits(kind, arguments)
    write = make_line_writer([spec.name for spec in specs], out or sys.stdout)
    environment, stop = environment_of(kind), threading.Event()
    if not os.environ.get("ROS_DOMAIN_ID") and environment.get("ROS_DOMAIN_ID"):
        write("up", f"to join this graph: {' '.join(f'{n}={environment[n]}' for n in ISOLATED if n in environment)}")
    announced = announce(f"up {kind}", environment, arguments.namespace)
    with on_signals(stop.set), announced, graph(specs, write, environment, respawn=arguments.respawn) as group:
        while not stop.wait(0.2):
            ended = group.poll()
            if ended is not None:
                complete = ended.name == "player" and ended.code == 0
                write("up", "end of the recording" if complete else f"{ended}; ending the other nodes")
                return 0 if complete else 2 if ended.code == 2 else 1
        write("up", "ending all nodes")
    return 0


def environment_of(kind: str) -> dict[str, str]:
    """Return the nodes' environment. Simulations and replays are isolated unless the user's shell says otherwise; nodes
    that command or record a robot join the shell's graph."""
    return process_environment(isolate=kind in ("sim", "replay"))


def graph(
    specs: Sequence[NodeSpec], on_line: Callable[[str, str], None], environment: dict[str, str], respawn: bool = False
) -> ProcessGroup:
    """Return the nodes as a group of processes that has not been started yet."""
    commands = [Command(spec.name, spec.command(), spec.nice) for spec in specs]
    return ProcessGroup(commands, environment, on_line, respawn, RESPAWN_DELAY)


def make_line_writer(names: Sequence[str], out) -> Callable[[str, str], None]:
    """Return a function (name, line) that writes a line to ``out`` after the node's name, coloured on a terminal."""
    width = max(map(len, names), default=0)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    coloured = out.isatty()
    lock = threading.Lock()

    def write(name: str, line: str) -> None:
        label = f"{name:>{width}}"
        if coloured:
            label = f"\033[{colours.get(name, 1)}m{label}\033[0m"
        with lock, suppress(BrokenPipeError, ValueError):  # a closed output must not block the nodes
            out.write(f"{label} | {line}\n")
            out.flush()

    return write


@contextmanager
def on_signals(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` on the signals that end a program, while the block runs."""
    before = {number: signal.signal(number, lambda *_: action()) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
