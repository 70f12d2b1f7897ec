"""Operating a running graph from a terminal: `jepa_ros goal` and `jepa_ros stop`."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_ros.bringup.running_graphs import RunningGraph, join_graph
from jepa_ros.bringup.up import on_signals
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import RclpySession, Stopped

if TYPE_CHECKING:
    import numpy as np
    from jepa_msgs.msg import GoalTerm

    from jepa_ros.graph_clients.goal_client import Outcome, Request
    from jepa_ros.graph_clients.graph_listener import GraphListener

DISCOVERY_TIMEOUT = 5.0  # s; Fast DDS repeats lost announcements after 3 s
ANSWER_TIMEOUT = 3.0  # s; an answer sent before discovery has matched both ends is lost, so it is asked again
ATTEMPTS = 3
PLANNER_SILENT_AFTER = 5.0  # s without planner_status after which the planner counts as gone
PRINT_PERIOD = 1.0  # s between two lines of progress where stderr is no terminal
_UNITS = {"pose": "m", "object": "m", "joints": "rad"}


def send_goal(
    kind: str, value: Any, tolerance: float = 0.0, timeout: float = 0.0, namespace: str = "", domain: int | None = None
) -> int:
    """`jepa_ros goal`: send a goal of one term to the planner and show its progress until it has ended.

    kind and value: "image" and paths, one for each camera of the model; "pose" and xyz (3,) m; "joints" and positions
    in rad by name; "object" and (name, xyz). tolerance: in the unit of the kind, 0 for its default. timeout: s, 0 for
    the planner's. Returns 0 where the goal was reached, 1 where not, 130 where it was interrupted, which cancels it.
    Raises InputError where the goal is invalid or there is no planner.
    """
    if kind == "image":
        value = [_read_image(path) for path in value]
    graph, stop = join_graph(domain, namespace), threading.Event()
    with on_signals(stop.set), RclpySession("goal_client", graph.namespace, passive=True) as session:
        from jepa_msgs.action import ReachGoal

        from jepa_ros.graph_clients.goal_client import GoalClient
        from jepa_ros.graph_clients.graph_listener import GraphListener

        listener, client = GraphListener(session.node), GoalClient(session.node)
        goal = ReachGoal.Goal(terms=[_make_term(kind, value, tolerance)], timeout=timeout)
        progress, request = _Progress(_UNITS.get(kind, ""), listener), None
        try:
            if not session.wait_for(client.is_ready, DISCOVERY_TIMEOUT, stop.is_set):
                raise graph.not_found("planner (action reach_goal)")
            request = _send(session, client, goal, stop.is_set)
            _follow(session, request, listener, progress, stop.is_set)
        except Stopped:
            if request is not None and request.outcome is None:
                request.cancel()
                session.wait_for(lambda: request.outcome, ANSWER_TIMEOUT)
            return 130
        finally:
            progress.close()
        return _report(request.outcome, progress)


def cancel_goals(namespace: str = "", domain: int | None = None) -> int:
    """`jepa_ros goal cancel`: cancel the goal under way. Returns 0. Raises InputError where there is no planner."""
    graph = join_graph(domain, namespace)
    with RclpySession("goal_client", graph.namespace, passive=True) as session:
        from action_msgs.srv import CancelGoal

        client = session.node.create_client(CancelGoal, "reach_goal/_action/cancel_goal")
        request = CancelGoal.Request()  # no id and no time: all goals
        response = _call(session, client, request, "planner (action reach_goal)", graph)
        count = len(response.goals_canceling)
        print("cancelled; the arm comes to rest" if count else "no goal is under way")
    return 0


def stop_arm(release: bool = False, namespace: str = "", domain: int | None = None) -> int:
    """`jepa_ros stop`: stop the arm and latch the gate, or undo that. Returns 0, or 1 where the gate refuses.

    Raises InputError where there is no gate.
    """
    graph = join_graph(domain, namespace)
    with RclpySession("stop_client", graph.namespace, passive=True) as session:
        from std_srvs.srv import Trigger

        name = "release" if release else "stop"
        client = session.node.create_client(Trigger, name)
        response = _call(session, client, Trigger.Request(), f"arm_gate (service {name})", graph)
        print(f"arm_gate: {response.message}")
        return 0 if response.success else 1


def _read_image(path: Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"image {path}: expected a PNG or JPEG image, found a file that cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _make_term(kind: str, value: Any, tolerance: float) -> GoalTerm:
    from jepa_ros.graph_clients.goal_client import image_term, joints_term, object_term, pose_term

    if kind == "image":
        return image_term(*value, tolerance=tolerance)
    if kind == "pose":
        return pose_term(value, tolerance=tolerance)
    if kind == "joints":
        return joints_term(value, tolerance)
    name, xyz = value
    return object_term(name, xyz, tolerance=tolerance)


def _send(session: RclpySession, client, goal, stop: Callable[[], bool]) -> Request:
    """Send a goal until the planner answers: a goal that is sent again replaces the first."""
    for _ in range(ATTEMPTS):
        request = client.send(goal)
        if session.wait_for(lambda r=request: r.accepted or r.outcome, ANSWER_TIMEOUT, stop):
            return request
    raise InputError(f"goal: the planner does not answer within {ATTEMPTS * ANSWER_TIMEOUT:g} s")


def _follow(session, request: Request, listener: GraphListener, progress: _Progress, stop: Callable[[], bool]) -> None:
    """Show the progress until the goal has ended. Raises Stopped, InputError where the planner has gone."""
    began = time.time()
    while not session.wait_for(lambda: request.outcome, 0.2, stop):
        progress.show(request)
        if time.time() - max(listener.planner_at, began) > PLANNER_SILENT_AFTER:
            raise InputError(f"goal: no planner_status for {PLANNER_SILENT_AFTER:g} s: the planner has ended")


class _Progress:
    """One line on a terminal that is written over; otherwise a line every PRINT_PERIOD."""

    def __init__(self, unit: str, listener: GraphListener) -> None:
        self.unit, self._listener = unit, listener
        self.start = math.nan
        self._live, self._began, self._printed = sys.stderr.isatty(), time.monotonic(), -math.inf

    def show(self, request: Request) -> None:
        now = time.monotonic()
        if not self._live and now - self._printed < PRINT_PERIOD:
            return
        self._printed = now
        text = f"{now - self._began:5.1f} s  {self._describe(request)}"
        sys.stderr.write(f"\r\033[K{text}"[:200] if self._live else f"goal: {text.strip()}\n")
        sys.stderr.flush()

    def _describe(self, request: Request) -> str:
        planner, feedback = self._listener.planner, request.feedback
        if planner is not None and planner.state == planner.WAITING:
            return f"waiting: {planner.text}"
        if feedback is None:
            return "waiting for the first plan"
        if math.isnan(self.start):
            self.start = feedback.distance
        return f"distance {self.format(feedback.distance)}, at first {self.format(self.start)}; plan {feedback.plan_id}"

    def format(self, distance: float) -> str:
        return f"{distance:.4g} {self.unit}".strip()

    def close(self) -> None:
        if self._live:
            sys.stderr.write("\r\033[K")


def _report(outcome: Outcome, progress: _Progress) -> int:
    """Print the result in a few lines and return the exit code."""
    from jepa_ros.planning.codes import PlannerCode

    if outcome.reached:
        print(f"reached, final distance {progress.format(outcome.final_distance)}")
        return 0
    if outcome.code // 100 == PlannerCode.GOAL_INVALID // 100:
        raise InputError(f"goal: {outcome.reason}")
    known = outcome.code in PlannerCode._value2member_map_
    print(f"NOT reached: {outcome.reason} ({PlannerCode(outcome.code).name if known else outcome.code})")
    if not math.isnan(outcome.final_distance):
        print(f"final distance {progress.format(outcome.final_distance)}")
    if outcome.code == PlannerCode.GATE_LATCHED:
        print("when the arm may move again: jepa_ros stop --release")
    return 1


def _call(session: RclpySession, client, request, what: str, graph: RunningGraph):
    """Call a service and return its response. Raises InputError where it is not there or does not answer."""
    if not session.wait_for(client.service_is_ready, DISCOVERY_TIMEOUT):
        raise graph.not_found(what)
    for _ in range(ATTEMPTS):
        future = client.call_async(request)
        if session.wait_for(future.done, ANSWER_TIMEOUT):
            return future.result()
    raise InputError(f"{what}: no answer within {ATTEMPTS * ANSWER_TIMEOUT:g} s")
