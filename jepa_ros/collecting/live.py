"""`jepa_ros collect live`: play or teleoperation on the arm of a running graph, through the gate.

The recording is the recorder's; it is told where episodes begin. Nothing here is trusted with the arm: plans and signs
of life come from here, and what is let through the gate decides.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jepa_ros.bringup.environment import ensure
from jepa_ros.bringup.up import on_signals
from jepa_ros.collecting.options import Options
from jepa_ros.collecting.plan_driver import boxed
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay

MODES = ("play", "joy", "twist")
PLAY_EPISODES, PLAY_TICKS = 20, 60


def run(out: Path, box: str, reset: str, axes: str, episodes: int | None, topic: str, **options: Any) -> int:
    """Collect, showing progress; writes summary.json and report.html to `out`. box, reset, axes: numbers with commas.

    Returns 0; 1 where collecting ended early; 130 where it was interrupted before the episodes asked for were done,
    with everything written that there is. Raises InputError.
    """
    mode = options["mode"]
    if mode not in MODES:
        raise InputError(f"mode '{mode}': expected one of {', '.join(MODES)}")
    if episodes is None and mode == "play":
        episodes = PLAY_EPISODES
    settings = Options(
        episodes=episodes,
        box=numbers("box", box, 4),
        reset=numbers("reset", reset, 2),
        axes=whole("axes", axes, 2),
        topic=topic or ("" if mode == "play" else mode),
        **options,
    )
    if settings.ticks is not None and settings.seconds is not None:
        raise InputError("collect: expected --ticks or --seconds, found both")
    if mode == "play" and settings.ticks is None and settings.seconds is None:
        settings = replace(settings, ticks=PLAY_TICKS)
    if out.exists() and not out.is_dir():
        raise InputError(f"out {out}: expected a directory, found a file")
    from jepa_ros.robot.config import load_robot

    robot = boxed(load_robot(settings.robot), settings.box)
    stop = threading.Event()
    with on_signals(stop.set), ProgressDisplay() as bar:
        ensure(isolate=False)  # before rclpy is imported: a live robot's graph is the one that the shell is in
        return _collect(settings, robot, out, bar, stop)


def numbers(name: str, text: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers with commas between; None for no text. Raises InputError."""
    if not text:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise InputError(f"{name} '{text}': expected {count} numbers with commas between")
    return found


def whole(name: str, text: str, count: int) -> tuple[int, ...]:
    """`count` whole numbers from 0 on with commas between. Raises InputError."""
    found = numbers(name, text, count) or ()
    if len(found) != count or any(k < 0 or k != int(k) for k in found):
        raise InputError(f"{name} '{text}': expected {count} whole numbers with commas between")
    return tuple(int(k) for k in found)


def _collect(settings: Options, robot, out: Path, bar: ProgressDisplay, stop: threading.Event) -> int:
    import rclpy
    from rclpy.parameter import Parameter
    from rclpy.signals import SignalHandlerOptions

    from jepa_ros.collecting.drive import Stopped
    from jepa_ros.collecting.live_report import LiveRecord, write_results
    from jepa_ros.collecting.session import Session
    from jepa_ros.nodes.common.executor import executor_of

    record = LiveRecord(asdict(settings), settings.episodes)
    began, code = time.monotonic(), 0
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        clock = [Parameter("use_sim_time", value=settings.use_sim_time)]
        node = rclpy.create_node("collect", namespace=settings.namespace, parameter_overrides=clock)
        with executor_of(node) as executor:
            session = Session(settings, robot, node, executor, record, bar, stop)
            try:
                code = session.run()
            except Stopped:  # without a number of episodes this is how it is meant to end
                code = 0 if settings.episodes is None else 130
    finally:
        rclpy.try_shutdown()
    record.wall_s = time.monotonic() - began
    if session.space is None:  # stopped before anything was found
        return code
    try:
        write_results(record, session.space, out)
    except OSError as error:
        raise InputError(f"out {out}: expected room for summary and report, found {error}") from None
    if record.ended:
        sys.stderr.write(f"collecting ended early: {record.ended}\n")
    print(f"{record.done} episodes; report: {out / 'report.html'}")
    return code
