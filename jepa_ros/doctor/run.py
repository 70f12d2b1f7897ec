"""`jepa_ros doctor`: check a running robot, its camera and a model before anything moves."""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bringup.environment import ensure
from jepa_ros.bringup.up import on_signals
from jepa_ros.doctor import overlay
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Finding, Level
from jepa_ros.doctor.observations import Observations, RobotSetup
from jepa_ros.doctor.report import CaptionedImages, verdict, write_files
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import RclpySession
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.result import print_result
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.checkpoint import load_checkpoint
from jepa_ros.world_model.config import read_config

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
    """Observe the graph for `seconds`, print a line for each finding, and write summary.json, report.html and
    overlay.jpg into `out` if it is given.

    Returns 0 if no finding is worse than a warning, else 1; 130 if interrupted. Raises InputError.
    """
    ensure(isolate=False)  # before rclpy is imported: in the domain of the shell, where the robot is
    shown = None if reference is None else overlay.read_image(reference)
    directory = resolve_model(model)
    setup = _make_setup(robot, directory, camera_topic, namespace, robot_namespace, command_interface, use_sim_time)
    if out is not None:
        prepare_out(out)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(directory)
    from jepa_ros.doctor.graph_listener import observe_graph

    stop = threading.Event()
    with on_signals(stop.set), RclpySession("doctor", passive=True) as session:
        observed = observe_graph(session.node, session.executor, setup, seconds, stop.is_set)
    if stop.is_set():
        return 130
    findings = examine(observed, setup, checkpoint)
    _print_findings(findings)
    files = []
    if out is not None:
        files = write_files(out, findings, observed, setup, _collect_images(directory, observed, setup, shown))
    print_result(f"doctor: {verdict(findings)}", paths=files)
    return 1 if any(f.level is Level.ERROR for f in findings) else 0


def _make_setup(
    robot: str,
    model: Path,
    topics: Sequence[str],
    namespace: str,
    robot_namespace: str,
    command_interface: str,
    use_sim_time: bool,
) -> RobotSetup:
    """Raises InputError for an invalid file or name."""
    for topic in topics:
        _check_name("--camera-topic", topic)
    for option, name in (("--namespace", namespace), ("--robot-namespace", robot_namespace)):
        _check_name(option, _with_slash(name) or "/ns")
    return RobotSetup(
        load_robot(robot, command_interface),
        read_config(model),
        _with_slash(namespace),
        tuple(topics),
        use_sim_time,
        _with_slash(robot_namespace) if robot_namespace else None,
    )


def _with_slash(name: str) -> str:
    """Return a namespace with a leading slash; empty for the root."""
    return f"/{name.strip('/')}" if name.strip("/") else ""


def _check_name(option: str, name: str) -> None:
    from rclpy.exceptions import InvalidTopicNameException
    from rclpy.validate_topic_name import validate_topic_name

    try:
        validate_topic_name(name)
    except InvalidTopicNameException as problem:
        raise InputError(f"{option} {name}: not a valid ROS name: {str(problem).splitlines()[0]}") from None


def _collect_images(
    directory: Path, observed: Observations, setup: RobotSetup, shown: np.ndarray | None
) -> CaptionedImages:
    """Return captioned images for the report; the last one is the overlay."""
    found = [(f"live, `{c.topic}`", c.image) for c in observed.cameras if c.image is not None]
    if not found:
        return []
    live = found[0][1]
    reference = overlay.find_reference(directory, observed, setup) if shown is None else (shown, "the image given")
    if reference is not None:
        found.append((f"training camera: {reference[1]}", reference[0]))
    points = overlay.skeleton(observed, setup)
    return [*found, ("overlay", overlay.draw_overlay(live, reference and reference[0], points, setup))]


def _print_findings(findings: Iterable[Finding]) -> None:
    """Print each finding in lines of at most 80 columns, the worst last, where a terminal shows them."""
    is_terminal = sys.stdout.isatty()
    wrap = textwrap.TextWrapper(80, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)
    for finding in sorted(findings, key=lambda f: f.level):
        line = wrap.fill(finding.line())
        print(f"\033[{_COLOURS[finding.level]}m{line[:7]}\033[0m{line[7:]}" if is_terminal else line)
