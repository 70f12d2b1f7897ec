"""`jepa_ros collect live`: random play or teleoperation on the arm of a running graph, through the gate.

The recorder node writes the bag; collecting marks the starts of episodes. Nothing here can override the gate: it
publishes plans and heartbeats like the planner, and the gate decides what is executed.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from jepa_ros.bringup.environment import ensure
from jepa_ros.bringup.up import on_signals
from jepa_ros.collecting.live_report import LiveOptions, LiveRecord, write_results
from jepa_ros.collecting.plan_driver import restrict_workspace
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import RclpySession
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.robot.config import RobotConfig, load_robot, require_velocity_space

MODES = ("play", "joy", "twist")
PLAY_EPISODES, PLAY_TICKS = 20, 60  # defaults of random play
DEFAULT_AXES = (1, 0, 4, 3)  # of a game pad: left stick for x and y, right stick for z and yaw


def collect_live(
    *,
    out: Path,
    mode: str = "play",
    episodes: int | None = None,
    seed: int = 0,
    robot: str = "openarm",
    ticks: int | None = None,
    seconds: float | None = None,
    box: str = "",
    reset: str = "",
    topic: str = "",
    axes: str | None = None,
    hold_button: int = 4,
    end_button: int = 1,
    namespace: str = "",
    use_sim_time: bool = False,
) -> int:
    """Collect and show progress; write summary.json and report.html to `out`.

    box, reset, axes: comma-separated numbers.

    Returns 0; 1 where collecting ended early; 130 where it was interrupted before all episodes were done, with the
    results so far written. Raises InputError.
    """
    if mode not in MODES:
        raise InputError(f"mode '{mode}': expected one of {', '.join(MODES)}")
    if ticks is not None and seconds is not None:
        raise InputError("collect live: give --ticks or --seconds, not both")
    if mode == "play":
        episodes = PLAY_EPISODES if episodes is None else episodes
        ticks = PLAY_TICKS if ticks is None and seconds is None else ticks
    topic = topic or ("" if mode == "play" else mode)
    arm = load_robot(robot)
    count = require_velocity_space(arm).dimension
    limits = _parse_numbers("--box", box, (4,) if count == 2 else (4, 6))
    start = _parse_numbers("--reset", reset, (min(count, 3),))
    teleop = (topic, _parse_axes(axes, count), hold_button, end_button)
    options = LiveOptions(mode, robot, seed, episodes, ticks, seconds, limits, start, namespace, use_sim_time, *teleop)
    restricted = restrict_workspace(arm, options.box)
    prepare_out(out)
    stop = threading.Event()
    with on_signals(stop.set), ProgressDisplay() as bar:
        ensure(isolate=False)  # before rclpy is imported: a live robot's graph is the one of the shell's environment
        return _collect(options, restricted, Path(out), bar, stop)


def _parse_axes(text: str | None, count: int) -> tuple[int, ...]:
    """Return the indices of `count` axes of a game pad; None: DEFAULT_AXES. Raises InputError."""
    if text is None:
        return DEFAULT_AXES[:count]
    if not re.fullmatch(r" *\d+ *(, *\d+ *)*", text) or text.count(",") != count - 1:
        raise InputError(f"--axes '{text}': expected {count} comma-separated whole numbers")
    return tuple(map(int, text.split(",")))


def _parse_numbers(name: str, text: str, counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return comma-separated numbers, as many as one of `counts`; None for an empty text. Raises InputError."""
    if not text:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in counts:
        raise InputError(f"{name} '{text}': expected {' or '.join(map(str, counts))} comma-separated numbers")
    return found


def _collect(options: LiveOptions, robot: RobotConfig, out: Path, bar: ProgressDisplay, stop: threading.Event) -> int:
    from jepa_ros.collecting.session import CollectingStopped, Session

    record = LiveRecord(options)
    started, code = time.monotonic(), 0
    with RclpySession("collect", options.namespace, options.use_sim_time) as ros:
        session = Session(robot, ros.node, ros.executor, record, bar, stop)
        try:
            code = session.run()
        except CollectingStopped:  # without a number of episodes this is the usual end
            code = 0 if options.episodes is None else 130
    record.wall_s = time.monotonic() - started
    if session.space is None:  # stopped before the graph was found
        return code
    try:
        paths = write_results(record, session.space, out)
    except OSError as error:
        raise InputError(f"--out {out}: expected room for summary and report, found {error}") from None
    lines = list(record.figures().items()) + [("ended early", record.ended)] * bool(record.ended)
    print_result(f"collect live: {options.mode}, robot {robot.name}", lines, paths)
    return code
