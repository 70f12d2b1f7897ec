"""``jepa_ros demo``: the whole graph in simulation, one goal image after the other, and what came of it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import Arguments, check_inputs, node_list
from jepa_ros.bringup.process_group import Ended, ProcessGroup
from jepa_ros.bringup.up import graph, on_signals
from jepa_ros.demo.record import DemoRecord, GoalRun, summarise
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import GraphEnded, NodeLog, RclpySession, Stopped, wait_until
from jepa_ros.planning.codes import PlannerCode
from jepa_ros.resources import resolve_model
from jepa_ros.sim.tasks.reach import GoalSet, make_goal_set

TOLERANCE, HOLD, LIMIT = 0.03, 1.0, 15.0  # m, s, s
READY_WITHIN = 90.0  # s, for all nodes to come up on a busy machine
SETTLE = 1.0  # s of frames seen at the start before the first goal
LOOK_EVERY = 0.04  # s
LEAST_SUCCESS = 0.8  # share of goals below which the command's exit code is 1


def run(
    goals: int = 20,
    seed: int = 0,
    out: str | os.PathLike = "runs/demo",
    model: str = "openarm_reach",
    headless: bool = False,
    robot: str = "openarm",
) -> int:
    """Start the graph, send ``goals`` goal images, write summary.json, report.html and demo.mp4 to ``out``.

    headless: plain lines in place of the live display. Returns 0; 1 where under 80 % of the goals were reached or the
    graph did not hold; 130 where it was interrupted, with everything written that there is. Raises InputError.
    """
    if goals < 1:
        raise InputError(f"goals: expected at least 1, found {goals}")
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, found {seed}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out {out}: expected a directory, found a file")
    arguments = Arguments(robot=robot, model=model)
    specs = node_list("sim", arguments)
    check_inputs(arguments)
    began = time.monotonic()
    record = DemoRecord(goals, seed, resolve_model(model).name, robot, TOLERANCE, HOLD, LIMIT)
    log = NodeLog(out / "nodes.log")
    from jepa_ros.demo.display import make_display

    code = 0
    with make_display(headless) as display:
        stop = threading.Event()
        with on_signals(stop.set):
            try:
                display.say("drawing goal images")
                plan = make_goal_set(robot, goals, seed)
                record.goal_set_hash = plan.hash
                environment = process_environment()
                os.environ.update(environment)  # before rclpy is imported
                with graph(specs, log.write, environment) as group:
                    record.processes = [{"name": name, "pid": pid} for name, pid in group.pids.items()]
                    Session(record, plan, group, display, stop).run()
            except Stopped:
                record.ended, code = "interrupted", 130
            except GraphEnded as reason:
                record.ended, code = str(reason), 1
        record.wall_s = time.monotonic() - began
        display.say("writing report and video")
        try:
            summary = write_results(record, out)
        except (OSError, RuntimeError) as error:  # RuntimeError: ffmpeg's words; what was written before stays
            raise InputError(f"out {out}: expected room for report and video, found {error}") from None
        finally:
            log.close()
    display.result(record, summary, out)
    if not code and record.reached < LEAST_SUCCESS * goals:
        code = 1
    return code


def write_results(record: DemoRecord, out: Path) -> dict:
    """Write summary.json, report.html and, if there are frames, demo.mp4; return the summary."""
    from jepa_ros.demo.report import write_demo_video, write_report
    from jepa_ros.reporting.summary import write_summary

    summary = summarise(record)
    write_summary(out / "summary.json", summary)
    has_video = write_demo_video(record, out / "demo.mp4") > 0
    if not has_video:
        (out / "demo.mp4").unlink(missing_ok=True)  # one of an earlier run would be taken for this one's
    write_report(record, summary, out / "report.html", "demo.mp4" if has_video else "")
    return summary


def last_words(ended: Ended) -> str:
    """The last line that a node wrote, without the log's own fields."""
    line = next((line for line in reversed(ended.last_lines) if line.strip()), "it said nothing")
    return re.sub(r"^(\[[^]]*\] ?)+: ", "", line.strip())


class Session:
    """The time in which the graph is up. ``record`` is filled as it goes, so that it holds whatever happened."""

    def __init__(self, record: DemoRecord, plan: GoalSet, group: ProcessGroup, display, stop: threading.Event) -> None:
        self._record, self._plan, self._group = record, plan, group
        self._display, self._stop = display, stop
        self._busy_since: tuple[float, float] | None = None

    def run(self) -> None:
        """Raises GraphEnded or Stopped where it ends early."""
        from jepa_ros.demo.listener import Recorder
        from jepa_ros.graph_clients.goal_client import GoalClient
        from jepa_ros.graph_clients.graph_listener import distribution, middleware
        from jepa_ros.robot.config import load_robot

        with RclpySession("demo") as self._session:
            try:
                self._record.rmw, self._record.distro = middleware(), distribution()
                self._recorder = Recorder(self._session.node, load_robot(self._record.robot), list(self._group.pids))
                self._client = GoalClient(self._session.node)
                self._share_lists()
                self._get_ready()
                self._busy_since = time.process_time(), time.monotonic()
                for index in range(self._record.wanted):
                    self._go(index)
            finally:
                self._note_cost()

    def _note_cost(self) -> None:
        """What looking on cost while goals were under way, as a share of one core."""
        if self._busy_since is not None:
            cpu, wall = self._busy_since
            self._record.own_cpu = (time.process_time() - cpu) / max(time.monotonic() - wall, 1e-3)

    def _share_lists(self) -> None:
        """What the recorder collects is the record's own, however the run ends."""
        for name in (
            "frames",
            "images",
            "latents",
            "plans",
            "plan_goals",
            "statuses",
            "windows",
            "iterations",
            "plan_ms",
        ):
            setattr(self._record, name, getattr(self._recorder, name))

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _get_ready(self) -> None:
        """All nodes active, a first latent, the gate holding, the planner answering; the arm at its first start."""
        recorder = self._recorder
        self._display.say("waiting for the nodes")
        self._until(
            lambda: recorder.all_active() and recorder.latents and self._holding() and self._client.is_ready(),
            READY_WITHIN,
            self._not_ready,
        )
        recorder.hear_controllers()
        self._put(0)
        self._record.topics = recorder.list_topics()

    def _put(self, index: int) -> None:
        """The simulated arm at the start of a goal, at once, and the graph used to it."""
        goal = self._plan.goals[index]
        future = self._recorder.set_state(self._plan.joints, goal.start_q)
        self._until(future.done, 10.0, lambda: "the simulator does not answer set_state")
        answer = future.result()
        if not answer.success:
            raise GraphEnded(f"the simulator refused the arm's start: {answer.message}")
        seen = self._recorder.latents[-1][0] if self._recorder.latents else 0
        self._until(
            lambda: (
                self._holding()
                and self._distance(self._plan.start(index)) < TOLERANCE
                and self._recorder.latents[-1][0] > seen + SETTLE * 1e9
            ),
            15.0,
            lambda: f"the arm is not held at its start ({self._gate_text()})",
        )

    def _go(self, index: int) -> None:
        """One goal, from sending it to the arm at rest again."""
        goal, place, recorder = self._plan.goals[index], self._plan.place(index), self._recorder
        attempt = GoalRun(index, goal.image, place)
        self._record.goals.append(attempt)
        recorder.goal, recorder.distance = index, self._distance(place)
        request = self._client.send_image(goal.image, timeout=LIMIT + 5.0)
        try:
            self._follow(attempt, request)
        finally:
            attempt.final_frame = recorder.frames[-1].jpeg if recorder.frames else None
            self._record.deadline_ms = recorder.deadline_ms
            self._record.gate_own_ms = recorder.gate_own_ms
        self._finish(request)
        attempt.reason = self._reason(attempt, request)
        recorder.goal = -1
        self._display.goal_done(self._record, attempt)
        if not attempt.reached and index + 1 < self._record.wanted:
            self._put(index + 1)  # the chain goes on from where this goal would have ended

    def _follow(self, attempt: GoalRun, request) -> None:
        """Watch the distance until the goal is held or given up."""
        from jepa_ros.sim.tasks.reach import Reached

        recorder, reached = self._recorder, Reached(TOLERANCE, HOLD)
        began, last, answered = recorder.tool_stamp, -1.0, None
        while not attempt.reached:
            self._spin()
            t = recorder.tool_stamp - began
            if t > last:
                last, recorder.distance = t, self._distance(attempt.place)
                attempt.times.append(t)
                attempt.distances.append(recorder.distance)
                attempt.reached = reached.update(t, recorder.distance) and t <= LIMIT
                self._display.progress(self._record, attempt, recorder)
            if request.outcome is not None and answered is None:
                answered = t
            # A planner that has given up, or holds what it takes for the goal, gets the time to hold it, no more.
            if t >= LIMIT or (answered is not None and t > answered + HOLD + 1.0):
                return

    def _finish(self, request) -> None:
        if request.outcome is None:
            request.cancel()
        self._until(lambda: request.outcome, 5.0, lambda: "the planner does not answer a cancel")
        self._until(self._holding, 10.0, lambda: f"the gate does not come to hold ({self._gate_text()})")

    @staticmethod
    def _reason(attempt: GoalRun, request) -> str:
        if attempt.reached:
            return f"held for {HOLD:g} s"
        if request.outcome.code == PlannerCode.CANCELLED:
            return f"not held within {LIMIT:g} s"
        return f"{request.outcome.status}: {request.outcome.reason}"

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _spin(self) -> None:
        """Handle what has come since the last time: one wait for many messages is what makes looking on cheap."""
        if self._stop.wait(LOOK_EVERY):
            raise Stopped
        self._session.handle_pending()
        ended = self._group.poll()
        if ended is not None:
            raise GraphEnded(f"{ended}: {last_words(ended)}")

    def _until(self, condition: Callable[[], object], timeout: float, problem: Callable[[], str]) -> None:
        wait_until(condition, timeout, problem, self._spin)

    def _holding(self) -> bool:
        gate = self._recorder.gate
        return gate is not None and gate.state == gate.HOLDING

    def _gate_text(self) -> str:
        return self._recorder.gate.text if self._recorder.gate is not None else "the gate says nothing"

    def _not_ready(self) -> str:
        missing = self._recorder.describe_inactive()
        if not self._recorder.latents:
            missing.append("no latent has come")
        if not self._holding():
            missing.append(self._gate_text())
        return "not ready: " + "; ".join(missing or ["the planner does not answer"])

    def _distance(self, place: np.ndarray) -> float:
        tool = self._recorder.tool_xyz
        return float("inf") if tool is None else float(np.linalg.norm(tool - place))
