"""`jepa_ros doctor`: looks at a running robot before anything moves, and says what does not fit."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_ros.bringup.environment import ensure
from jepa_ros.bringup.up import on_signals
from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_model

_COLOURS = (32, 33, 31)  # terminal colours of the levels


def run_doctor(
    robot: str,
    model: str,
    camera_topic: Sequence[str],
    namespace: str,
    seconds: float,
    out: Path | None,
    use_sim_time: bool = False,
    reference: Path | None = None,
    robot_namespace: str = "",
    command_interface: str = "",
) -> int:
    """Look, print a line a finding, write summary.json, report.html and overlay.jpg into `out` where one is given.

    Returns 0 where nothing is worse than a warning, else 1; 130 where it was interrupted. Raises InputError.
    """
    ensure(isolate=False)  # before rclpy is imported: the robot is in the graph that the shell is in
    from jepa_ros.doctor import overlay
    from jepa_ros.doctor.examine import examine
    from jepa_ros.doctor.finding import Level
    from jepa_ros.doctor.report import verdict, write

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"out {out}: expected a directory, found a file")
    shown = None if reference is None else overlay.read_picture(reference)
    directory = resolve_model(model)
    job = _job(robot, directory, camera_topic, namespace, robot_namespace, command_interface, use_sim_time)
    checkpoint = _load(directory)
    stop = threading.Event()
    with on_signals(stop.set):
        seen = _watch(job, seconds, stop)
    if stop.is_set():
        return 130
    findings = examine(seen, job, checkpoint)
    tell(findings)
    if out is not None:
        write(out, findings, seen, job, _pictures(directory, seen, job, shown))
        print(f"{verdict(findings)}; report: {out / 'report.html'}")
    else:
        print(verdict(findings))
    return 1 if any(f.level is Level.ERROR for f in findings) else 0


def _job(
    robot: str,
    model: Path,
    topics: Sequence[str],
    namespace: str,
    robot_namespace: str,
    command_interface: str,
    use_sim_time: bool,
):
    """Raises InputError where a file or a name is none."""
    from jepa_ros.doctor.observations import Job
    from jepa_ros.robot.config import load_robot
    from jepa_ros.world_model.config import read_config

    for topic in topics:
        _check_name("camera topic", topic)
    for what, name in (("namespace", namespace), ("robot namespace", robot_namespace)):
        _check_name(what, f"/{name.strip('/')}" if name.strip("/") else "/ns")
    return Job(
        load_robot(robot, command_interface),
        read_config(model),
        _space(namespace),
        tuple(topics),
        use_sim_time,
        _space(robot_namespace) if robot_namespace else None,
    )


def _space(name: str) -> str:
    """Empty for the root, else with its leading slash."""
    return f"/{name.strip('/')}" if name.strip("/") else ""


def _check_name(what: str, name: str) -> None:
    from rclpy.exceptions import InvalidTopicNameException
    from rclpy.validate_topic_name import validate_topic_name

    try:
        validate_topic_name(name)
    except InvalidTopicNameException as problem:
        reason = str(problem).splitlines()[0]
        raise InputError(f"{what} '{name}': expected a ROS name, found {reason}") from None


def _load(directory: Path):
    import torch

    from jepa_ros.world_model.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    return load_checkpoint(directory)


def _watch(job, seconds: float, stop: threading.Event):
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from jepa_ros.doctor.graph_listener import quiet_node, watch
    from jepa_ros.nodes.common.executor import executor_of

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = quiet_node()
        with executor_of(node) as executor:
            return watch(node, executor, job, seconds, stop.is_set)
    finally:
        rclpy.try_shutdown()


def _pictures(directory: Path, seen, job, shown) -> list[tuple[str, Any]]:
    """For the report; the last one is the overlay."""
    from jepa_ros.doctor import overlay

    found = [(f"live, `{c.topic}`", c.picture) for c in seen.cameras if c.picture is not None]
    if not found:
        return []
    known = (shown, "the picture given") if shown is not None else overlay.reference(directory, seen, job)
    if known is not None:
        found.append((f"training camera: {known[1]}", known[0]))
    points = overlay.skeleton(seen, job)
    drawn = overlay.draw(found[0][1], known and known[0], points, job)
    return [*found, ("overlay", drawn)]


def tell(findings) -> None:
    """A line each, the worst last, where a terminal shows them."""
    coloured = sys.stdout.isatty()
    for finding in sorted(findings, key=lambda f: f.level):
        line = finding.line()
        print(f"\033[{_COLOURS[finding.level]}m{line[:7]}\033[0m{line[7:]}" if coloured else line)
