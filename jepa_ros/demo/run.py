"""`jepa_ros demo`: the whole graph in simulation, one goal image after the other, with summary, report and video."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import SimArguments, check_inputs, node_list
from jepa_ros.bringup.process_group import Ended, ProcessGroup
from jepa_ros.bringup.up import graph, on_signals
from jepa_ros.demo.record import DemoRecord, GoalRun, summarise
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import GraphEnded, NodeLog, RclpySession, Stopped, wait_until
from jepa_ros.planning.codes import PlannerCode
from jepa_ros.reporting.output import after_summary
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.task import GoalHold, TaskGoal
from jepa_ros.sim.tasks import DEFAULT_TASK, GoalSet, make_goal_set, make_task
from jepa_ros.world_model.config import read_config

LIMIT_S = 15.0  # for a goal
START_TOLERANCE_M = 0.03
READY_TIMEOUT_S = 90.0  # for all nodes to become active on a busy machine
SETTLE_S = 1.0  # of frames at a start position before a goal is sent
POLL_PERIOD_S = 0.04
MIN_SUCCESS_RATE = 0.8  # exit code 1 below it


def run(
    goals: int = 20,
    seed: int = 0,
    out: str | os.PathLike = "runs/demo",
    model: str = "openarm_reach",
    headless: bool = False,
    robot: str | None = None,
    task: str = DEFAULT_TASK,
) -> int:
    """Start the graph, send `goals` goal images, write summary.json, report.html and demo.mp4 to `out`.

    headless: print plain lines in place of the live display. robot: default: the first that the model was trained for.
    Returns 0; 1 where less than MIN_SUCCESS_RATE of the goals
    were reached or the graph failed; 130 where it was interrupted, with everything recorded so far written. Raises
    InputError.
    """
    if goals < 1:
        raise InputError(f"goals: expected at least 1, found {goals}")
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, found {seed}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: expected a directory, found a file")
    robot = robot or choose_robot(model)
    arguments = SimArguments(robot=robot, model=model, task=task)
    specs = node_list("sim", arguments)
    check_inputs(arguments)
    began = time.monotonic()
    simulated = make_task(task, load_robot(robot))
    record = DemoRecord(goals, seed, resolve_model(model).name, robot, simulated.tolerance_m, simulated.hold_s, LIMIT_S)
    log = NodeLog(out / "nodes.log")
    from jepa_ros.demo.display import make_display

    code = 0
    with make_display(headless) as display:
        stop = threading.Event()
        with on_signals(stop.set):
            try:
                display.show_step("drawing goal images")
                goal_set = make_goal_set(robot, goals, seed, task)
                record.goal_set_hash = goal_set.hash
                environment = process_environment()
                os.environ.update(environment)  # before rclpy is imported
                with graph(specs, log.write, environment) as group:
                    record.processes = [{"name": name, "pid": pid} for name, pid in group.pids.items()]
                    Session(record, goal_set, group, display, stop).run()
            except Stopped:
                record.ended, code = "interrupted", 130
            except GraphEnded as reason:
                record.ended, code = str(reason), 1
        record.wall_s = time.monotonic() - began
        display.show_step("writing report and video")
        try:
            summary, paths = write_results(record, out)
        except (OSError, RuntimeError) as error:  # RuntimeError: from FFmpeg; files already written stay
            raise InputError(f"--out {out}: expected room for report and video, found {error}") from None
        finally:
            log.close()
    _print_summary(record, summary, [*paths, out / "nodes.log"])
    return 1 if not code and record.reached < MIN_SUCCESS_RATE * goals else code


def choose_robot(model: str) -> str:
    """Return the first robot that a model was trained for. Raises InputError where there is no such model."""
    return next(iter(read_config(resolve_model(model)).robots), "openarm")


def write_results(record: DemoRecord, out: Path) -> tuple[dict[str, Any], list[Path]]:
    """Write summary.json, report.html and, if there are frames, demo.mp4; return the summary and the paths."""
    from jepa_ros.demo.report import write_demo_video, write_report

    summary, video = summarise(record), out / "demo.mp4"
    paths = [write_summary(out / "summary.json", summary)]
    with after_summary(paths[0]):
        has_video = write_demo_video(record, video) > 0
        if not has_video:
            video.unlink(missing_ok=True)  # it would be of an earlier run
        paths.append(write_report(record, summary, out / "report.html", video.name if has_video else ""))
    return summary, paths + [video] * has_video


def _print_summary(record: DemoRecord, summary: dict[str, Any], paths: list[Path]) -> None:
    def milliseconds(values: dict[str, float | None]) -> str:
        return "– ms" if values["p50"] is None else f"{values['p50']:.0f} ms, 99th percentile {values['p99']:.0f} ms"

    frames = summary["frames"]
    lines = [
        ("frame to controller, median", milliseconds(summary["latency_ms"])),
        ("search, median", milliseconds(summary["plan_ms"])),
        ("deadline misses", f"{summary['deadline_misses']} of {summary['plans']} plans"),
        ("frames encoded", f"{frames['encoded']} of {frames['sent']}"),
        ("duration", f"{record.wall_s:.0f} s"),
    ]
    if record.ended:
        lines.append(("ended early", f"{record.ended}, {len(record.goals)} of {record.wanted} goals started"))
    print_result(f"demo: {record.reached} of {len(record.goals)} goals reached", lines, paths)


def last_output(ended: Ended) -> str:
    """Return the last line that a node wrote, without the log's own fields."""
    line = next((line for line in reversed(ended.last_lines) if line.strip()), "no output")
    return re.sub(r"^(\[[^]]*\] ?)+: ", "", line.strip())


class Session:
    """The time in which the graph is up. `record` is filled continuously, so that nothing is lost however it ends."""

    def __init__(self, record: DemoRecord, goals: GoalSet, group: ProcessGroup, display, stop: threading.Event) -> None:
        self._record, self._goals, self._group = record, goals, group
        self._display, self._stop = display, stop

    def run(self) -> None:
        """Run all goals. Raises GraphEnded or Stopped where it ends early."""
        from jepa_ros.demo.listener import Recorder
        from jepa_ros.graph_clients.goal_client import GoalClient
        from jepa_ros.graph_clients.graph_listener import distribution, middleware

        record = self._record
        with RclpySession("demo") as self._session:
            record.rmw, record.distro = middleware(), distribution()
            node, robot = self._session.node, load_robot(record.robot)
            self._recorder = Recorder(node, robot, list(self._group.pids), record)
            self._client = GoalClient(node)
            self._wait_until_ready()
            cpu, wall = time.process_time(), time.monotonic()
            try:
                for index in range(record.wanted):
                    self._run_goal(index)
            finally:
                record.own_cpu = (time.process_time() - cpu) / max(time.monotonic() - wall, 1e-3)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _wait_until_ready(self) -> None:
        """Wait until all nodes are active, a latent was received, the gate holds and the planner answers; then move the
        arm to its first start."""
        recorder = self._recorder
        self._display.show_step("waiting for the nodes")
        self._wait_until(
            lambda: recorder.all_active() and self._record.latents and self._is_holding() and self._client.is_ready(),
            READY_TIMEOUT_S,
            self._describe_missing,
        )
        recorder.subscribe_to_commands()
        self._place_arm(0)
        self._record.topics = recorder.list_topics()

    def _place_arm(self, index: int) -> None:
        """Set the simulated arm to the start of a goal at once, and wait until the graph has received frames of it."""
        future = self._recorder.set_state(self._goals.joints, self._goals.goals[index].start_q)
        self._wait_until(future.done, 10.0, lambda: "no answer from the simulator to set_state")
        answer = future.result()
        if not answer.success:
            raise GraphEnded(f"the simulator refused the arm's start: {answer.message}")
        latents = self._record.latents
        last = latents[-1][0] if latents else 0
        self._wait_until(
            lambda: (
                self._is_holding()
                and self._start_distance(index) < START_TOLERANCE_M
                and latents[-1][0] > last + SETTLE_S * 1e9
            ),
            15.0,
            lambda: f"the arm is not held at its start ({self._gate_text()})",
        )

    def _run_goal(self, index: int) -> None:
        """Run one goal, from sending it until the arm is at rest again."""
        goal, recorder = self._goals.goals[index], self._recorder
        run = GoalRun(index, goal.image, self._goals.place(index))
        self._record.goals.append(run)
        recorder.goal, recorder.distance = index, self._distance(goal)
        request = self._client.send_image(goal.image, timeout=LIMIT_S + 5.0)
        try:
            self._follow(goal, run, request)
        finally:
            run.final_frame = self._record.frames[-1].jpeg if self._record.frames else None
        if request.outcome is None:
            request.cancel()
        self._wait_until(lambda: request.outcome, 5.0, lambda: "no answer from the planner to a cancel")
        self._wait_until(self._is_holding, 10.0, lambda: f"the gate does not hold ({self._gate_text()})")
        if run.reached:
            run.reason = f"held for {self._record.hold_s:g} s"
        elif request.outcome.code == PlannerCode.CANCELLED:
            run.reason = f"not held within {LIMIT_S:g} s"
        else:
            run.reason = f"{request.outcome.status}: {request.outcome.reason}"
        recorder.goal = -1
        self._display.show_goal(self._record, run)
        if not run.reached and index + 1 < self._record.wanted:
            self._place_arm(index + 1)  # each goal starts where the one before would have ended

    def _follow(self, goal: TaskGoal, run: GoalRun, request) -> None:
        """Record the distance until the goal is held or has failed."""
        recorder, hold = self._recorder, GoalHold(self._record.tolerance_m, self._record.hold_s)
        began, last, answered = recorder.tool_stamp, -1.0, None
        while not run.reached:
            self._spin()
            t = recorder.tool_stamp - began
            if t > last:
                last, recorder.distance = t, self._distance(goal)
                run.times.append(t)
                run.distances.append(recorder.distance)
                run.reached = hold.update(t, recorder.distance) and t <= LIMIT_S
                self._display.show_distance(self._record, run, recorder)
            if request.outcome is not None and answered is None:
                answered = t
            # When the planner reports an end, the arm gets just enough time to hold the goal.
            if t >= LIMIT_S or (answered is not None and t > answered + hold.hold_s + 1.0):
                return

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _spin(self) -> None:
        """Handle the messages of a poll period at once, which costs less than a wait for each."""
        if self._stop.wait(POLL_PERIOD_S):
            raise Stopped
        self._session.handle_pending()
        ended = self._group.poll()
        if ended is not None:
            raise GraphEnded(f"{ended}: {last_output(ended)}")

    def _wait_until(self, condition: Callable[[], object], timeout: float, problem: Callable[[], str]) -> None:
        wait_until(condition, timeout, problem, self._spin)

    def _is_holding(self) -> bool:
        gate = self._recorder.gate
        return gate is not None and gate.state == gate.HOLDING

    def _gate_text(self) -> str:
        return self._recorder.gate.text if self._recorder.gate is not None else "no gate_status received"

    def _describe_missing(self) -> str:
        missing = self._recorder.describe_inactive()
        if not self._record.latents:
            missing.append("no latent received")
        if not self._is_holding():
            missing.append(self._gate_text())
        return "not ready: " + "; ".join(missing or ["no answer from the planner"])

    def _start_distance(self, index: int) -> float:
        """Return how far the tool is from the start of a goal, in m."""
        tool = self._recorder.tool_xyz
        return float("inf") if tool is None else float(np.linalg.norm(tool - self._goals.tool_start(index)))

    def _distance(self, goal: TaskGoal) -> float:
        recorder = self._recorder
        return float("inf") if recorder.tool_xyz is None else self._goals.task.measure_distance(recorder.pose, goal)
