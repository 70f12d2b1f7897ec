"""``jepa_ros up``: the nodes of a launch file, where launch is not installed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import ARGUMENTS, RESPAWN_DELAY, Arguments, NodeSpec, check_inputs, node_list
from jepa_ros.bringup.process_group import Command, ProcessGroup
from jepa_ros.bringup.running_graphs import announce
from jepa_ros.errors import InputError

_COLOURS = (36, 32, 33, 35, 34, 31)  # terminal colours of the nodes' names, in order
ISOLATED = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(kind: str, arguments: Arguments | None = None, out=None) -> int:
    """Run the bring-up ``kind`` ("sim" or "robot") until Ctrl-C, SIGTERM or the end of a node; returns the exit code.

    0 after a stop that was asked for, and at the end of a recording that is replayed; where a node ended by itself, 2
    if it refused its input and else 1. Every line of a node is written to ``out`` (stdout) after its name. Raises
    InputError for arguments that do not fit.
    """
    if kind == "gazebo":
        raise InputError(
            "up gazebo: Gazebo, its bridge and the controllers are started by launch: "
            "ros2 launch jepa_ros gazebo.launch.py"
        )
    arguments = arguments or ARGUMENTS[kind]()
    if getattr(arguments, "bringup", False):
        raise InputError(
            "up robot: the vendor's bring-up is started by launch: ros2 launch jepa_ros robot.launch.py bringup:=true"
        )
    specs = node_list(kind, arguments)
    check_inputs(arguments)
    say = prefixed([spec.name for spec in specs], out or sys.stdout)
    environment, stop = environment_of(kind), threading.Event()
    if not os.environ.get("ROS_DOMAIN_ID") and environment.get("ROS_DOMAIN_ID"):
        say("up", f"to join this graph: {' '.join(f'{n}={environment[n]}' for n in ISOLATED if n in environment)}")
    announced = announce(f"up {kind}", environment, arguments.namespace)
    with on_signals(stop.set), announced, graph(specs, say, environment, respawn=arguments.respawn) as group:
        while not stop.wait(0.2):
            ended = group.poll()
            if ended is not None:
                over = ended.name == "player" and ended.code == 0
                say("up", "end of the recording" if over else f"{ended}; the others are ended too")
                return 0 if over else 2 if ended.code == 2 else 1
        say("up", "ending all nodes")
    return 0


def environment_of(kind: str) -> dict[str, str]:
    """Of the nodes: simulations and replays are alone on this machine unless the user's shell says otherwise; what
    drives or records a robot joins the graph that the shell is in."""
    return process_environment(isolate=kind in ("sim", "replay"))


def run(kind: str, **arguments: Any) -> int:
    """The command: ``arguments`` are those of ``ARGUMENTS[kind]``."""
    return up(kind, ARGUMENTS.get(kind, Arguments)(**arguments))


def graph(
    specs: Sequence[NodeSpec],
    on_line: Callable[[str, str], None],
    environment: dict[str, str] | None = None,
    respawn: bool = False,
) -> ProcessGroup:
    """The nodes as a group of processes, not yet started, in ``environment`` (default: ``process_environment()``)."""
    commands = [Command(spec.name, spec.command(), spec.nice) for spec in specs]
    return ProcessGroup(commands, environment or process_environment(), on_line, respawn, RESPAWN_DELAY)


def prefixed(names: Sequence[str], out) -> Callable[[str, str], None]:
    """A function (name, line) that writes lines to ``out`` after the node's name, in colour on a terminal."""
    width = max(map(len, names), default=0)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    coloured = out.isatty()
    lock = threading.Lock()

    def say(name: str, line: str) -> None:
        label = f"{name:>{width}}"
        if coloured:
            label = f"\033[{colours.get(name, 1)}m{label}\033[0m"
        with lock:
            try:
                out.write(f"{label} | {line}\n")
                out.flush()
            except (BrokenPipeError, ValueError):  # nobody listens any more: that must not hold up the nodes
                pass

    return say


class on_signals:
    """Calls ``action`` on the signals that end a program, as long as the block runs."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._before: dict = {}

    def __enter__(self) -> None:
        for number in _ENDING_SIGNALS:
            self._before[number] = signal.signal(number, lambda *_: self._action())

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
