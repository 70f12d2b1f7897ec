"""One session of `collect live`: to the reset pose, then an episode, and again.

`Drive` executes motions with plans for the gate, through pauses, stops and rejected plans; `Session` runs the episodes.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import TwistStamped
from jepa_msgs.msg import GateStatus
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from jepa_ros.collecting.graph_client import GraphClient
from jepa_ros.collecting.live_report import LiveEpisode, LiveRecord
from jepa_ros.collecting.plan_driver import (
    TELEOP_PLANS,
    Approach,
    DrivenPlan,
    GamePad,
    Motion,
    PlanDriver,
    ScriptedMotion,
    TeleopMotion,
    choose_reset_position,
    sample_play_episode,
)
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.nodes.common.diagnostics import Throttle
from jepa_ros.nodes.common.qos import SENSOR
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.velocity_space import VelocitySpace, make_velocity_space

STATUS_PERIOD_S = 0.08  # time between two planner_status; the gate stops after 0.25 s without one
RESUME_AFTER_S = 0.6  # inputs must have been healthy this long; the gate itself waits a little less
RESUME_ANYWAY_S = 5.0  # time at rest after which plans are tried again: the gate may be set to accept older inputs
GATE_LOST_S = 30.0  # time without gate_status after which collecting ends
REST_TIMEOUT_S = 3.0
RETRY_S = 0.5  # time after a rejected plan until the next one
MAX_RETRIES = 10
"""Rejections in a row for which the same part of a motion is tried again while the arm is held for a cause."""
PLAN_TIMEOUT_S = 0.3  # the gate must follow a plan this long after it was sent
AFTER_RELEASE = "; it resumes after the service release was called"
DISCOVERY_TIMEOUT_S = 10.0
DISCOVERY_PERIOD_S = 3.2  # participants of Fast DDS announce themselves every 3 s; the first packets may be lost
REST_BEFORE_S = 0.5  # rest before an episode; half as long after it
RECORDER_TIMEOUT_S = 5.0
MAX_REJECTIONS = 60  # rejected plans on the way to the reset pose after which it counts as out of reach
WARN_EVERY_S = 5.0


class CollectingStopped(Exception):
    """Collecting was interrupted by a signal."""


class CollectingEnded(Exception):
    """Collecting cannot continue; the text is one sentence."""


class Drive:
    """Executes motions of a PlanDriver on the live arm.

    paused: while it is True the arm rests. activity: text for planner_status. on_pause(why) and on_resume() report
    events. driver: None until `begin`.
    """

    def __init__(
        self,
        graph: GraphClient,
        executor,
        record: LiveRecord,
        stop: threading.Event,
        on_pause: Callable[[str], None],
        on_resume: Callable[[], None],
        warn: Callable[..., None],
    ) -> None:
        self._graph, self._executor, self._record, self._stop = graph, executor, record, stop
        self._on_pause, self._on_resume, self._warn = on_pause, on_resume, warn
        self.driver: PlanDriver | None = None
        self.paused, self.activity = False, ""
        self._ending = self._plan_failed = False
        self._status_at = self._sent_at = 0.0
        self._healthy_since: float | None = None
        self._rejection, self._retries = "", 0

    def begin(self, driver: PlanDriver) -> None:
        """Use this driver from now on, and publish planner_status for it."""
        self._counted, self._rejection, self.driver = self._gate_counts(), self._graph.rejection, driver

    def is_settled(self) -> bool:
        """Check whether the gate has held with healthy inputs for RESUME_AFTER_S."""
        return self._healthy_since is not None and time.monotonic() - self._healthy_since > RESUME_AFTER_S

    def end(self) -> None:
        """Bring the arm to rest, also after an interruption or error."""
        self._ending = True
        self.come_to_rest()

    def drive(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Hand over plans of a motion until it is over.

        Raises CollectingStopped and CollectingEnded, as all methods that wait do.
        """
        graph, driver = self._graph, self.driver
        driver.begin_motion()
        self._plan_failed = False
        while not is_over():
            self._spin()
            now = graph.now()
            if self.paused:
                self._wait_paused(motion, is_over)
            elif self._plan_failed:  # the committed reference is not what the gate follows: restart from rest
                self._restart(motion, is_over)
            elif why := graph.fault() or self._not_followed(now):
                self._wait_for_gate(why, motion, is_over)
            elif not motion.fully_planned and (start := driver.next_start(now)) is not None:
                speed = min(1.0, max(0.01, graph.gate.speed_scale))
                self._send(driver.make_plan(now, start, motion, graph.joints, speed))

    def come_to_rest(self) -> None:
        """Stop the arm if it follows our plans, and wait until it is at rest."""
        graph, driver = self._graph, self.driver
        if graph.planner_goal:  # the arm is the planner's now
            return
        if not graph.fault() and (plan := driver.make_stop(graph.now())) is not None:
            self._send(plan)
        self.wait_until(lambda: driver.at_rest(graph.now()) and (graph.at_rest or graph.fault()), REST_TIMEOUT_S)

    # -- interruptions of a motion -------------------------------------------------------------------------------------

    def _not_followed(self, now: float) -> str:
        """Return the gate's text if it holds although a plan was sent; otherwise an empty text."""
        gate = self._graph.gate
        if gate.state != GateStatus.HOLDING or self.driver.at_rest(now + 0.1):
            return ""
        return gate.text if time.monotonic() - self._sent_at > PLAN_TIMEOUT_S else ""

    def _wait_paused(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        self._on_pause("the service pause was called")
        self.come_to_rest()
        self.wait_until(lambda: not self.paused or is_over())
        self._resume(motion)

    def _wait_for_gate(self, why: str, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Wait until the gate may accept plans again."""
        graph, alive_at, held_since = self._graph, time.monotonic(), None
        self.driver.forget_plans()
        self.wait_until(lambda: graph.gate.state != GateStatus.STOPPING or not graph.gate_is_alive, REST_TIMEOUT_S)
        latched = graph.gate.state == GateStatus.LATCHED
        self._on_pause(_without_state(why) + AFTER_RELEASE * latched)

        def recovered() -> bool:
            nonlocal held_since, alive_at, latched
            now = time.monotonic()
            if graph.gate.state == GateStatus.LATCHED and not latched:
                latched = True
                self._on_pause(_without_state(graph.gate.text) + AFTER_RELEASE)
            alive_at = now if graph.gate_is_alive else alive_at
            if now - alive_at > GATE_LOST_S:
                raise CollectingEnded(f"no gate_status for {GATE_LOST_S:g} s")
            held_since = (held_since or now) if graph.is_open else None
            return self.is_settled() or now - (held_since or now) > RESUME_ANYWAY_S

        self.wait_until(lambda: recovered() or is_over())
        self._resume(motion)

    def _restart(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Restart after a plan was rejected or cut, once the rest of the last plan has brought the arm to rest.

        The rejected part is skipped, since it would be rejected again. If the gate holds the arm for a cause, which may
        disappear, it is tried again.
        """
        graph, again = self._graph, time.monotonic() + RETRY_S
        self._retries += 1
        held_for_cause = graph.is_open and graph.gate.code != GateStatus.NONE
        motion.interrupt(0 if held_for_cause and self._retries < MAX_RETRIES else self.driver.every)
        self.driver.forget_plans()
        self.wait_until(
            lambda: (graph.at_rest and time.monotonic() > again) or graph.fault() or self.paused or is_over()
        )
        self._plan_failed = False

    def _resume(self, motion: Motion) -> None:
        motion.interrupt()
        self.driver.begin_motion()
        self._plan_failed = False
        self._on_resume()

    def _send(self, plan: DrivenPlan) -> None:
        self._graph.publish_plan(plan)
        self._record.plans += 1
        self._sent_at = time.monotonic()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], object], timeout: float = float("inf")) -> bool:
        """Wait until the condition is true, at most timeout s; return whether it is."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            self._spin()
        return True

    def wait(self, seconds: float) -> None:
        self.wait_until(lambda: False, seconds)

    def _spin(self) -> None:
        """Run callbacks, publish planner_status when it is due, and raise where collecting is over."""
        if self._stop.is_set() and not self._ending:
            raise CollectingStopped
        self._executor.spin_once(timeout_sec=0.02)
        self._healthy_since = (self._healthy_since or time.monotonic()) if self._graph.is_healthy else None
        if self.driver is None:
            return
        if time.monotonic() - self._status_at >= STATUS_PERIOD_S:
            self._status_at = time.monotonic()
            self._graph.publish_status(self.activity, self.driver.plan_id)
        self._update_counts()
        if not self._ending and (why := self._graph.end_reason()):
            raise CollectingEnded(why)

    def _gate_counts(self) -> dict[str, int]:
        gate = self._graph.gate
        return {"clipped": gate.clipped, "rejected": gate.rejected, "stops": gate.stops}

    def _update_counts(self) -> None:
        """Add up the gate's counters, which restart at zero with each activation of the gate."""
        now, before = self._gate_counts(), self._counted
        self._counted = now
        for name, n in now.items():
            more = n - before[name] if n >= before[name] else n
            self._record.gate[name] += more
            self._plan_failed |= bool(more) and name != "stops"
        if self._graph.gate.state == GateStatus.TRACKING and self._graph.gate.plan_id == self.driver.plan_id:
            self._retries = 0
        if self._graph.rejection != self._rejection:
            self._rejection = self._graph.rejection
            self._record.refusals.append(self._rejection)
            self._warn(f"the gate rejected a plan: {self._rejection}", "rejected")


def _without_state(text: str) -> str:
    """Return the gate's text without the state before its colon."""
    state, colon, cause = text.partition(": ")
    return cause if colon and state in ("stopping", "holding", "latched", "waiting") else text


class Session:
    """Runs all episodes. record: filled during the session, so that it is complete however it ends. space: the
    robot's action space; None until the graph was found."""

    def __init__(
        self, robot: RobotConfig, node: Node, executor, record: LiveRecord, bar: ProgressDisplay, stop: threading.Event
    ) -> None:
        self._options, self._robot, self._record, self._bar = record.options, robot, record, bar
        self.space: VelocitySpace | None = None
        self._graph = GraphClient(node, robot, self._on_executed)
        self._drive = Drive(self._graph, executor, record, stop, self._note_pause, self._note_resume, self._warn)
        self._warnings = Throttle()
        self._episode: LiveEpisode | None = None  # in progress
        self._counting = False  # executed actions belong to the episode
        self._finish = False  # the episode is to end
        services = {"pause": self._on_pause, "resume": self._on_resume, "end_episode": self._on_end_episode}
        for name, callback in services.items():
            node.create_service(Trigger, f"~/{name}", callback)

    def run(self) -> int:
        """Run all episodes; return 0, or 1 where collecting ended early.

        Raises InputError before the arm moves, and CollectingStopped where it is interrupted.
        """
        wanted = self._options.episodes
        self._task = self._bar.add("episodes", wanted)
        self._prepare()
        try:
            for number in itertools.count() if wanted is None else range(wanted):
                self._run_episode(number)
            return 0
        except CollectingEnded as reason:
            self._record.ended = str(reason)
            return 1
        finally:
            self._drive.end()

    def _prepare(self) -> None:
        """Find all parts of the graph and check them, before the arm moves."""
        graph, options, robot, wait_until = self._graph, self._options, self._robot, self._drive.wait_until
        started = time.monotonic()
        if not wait_until(lambda: not graph.missing(), DISCOVERY_TIMEOUT_S):
            missing = ", ".join(graph.missing())
            where = f"in ROS domain {os.environ.get('ROS_DOMAIN_ID') or 0}"
            raise InputError(f"collect: expected {missing}; found none within {DISCOVERY_TIMEOUT_S:g} s {where}")
        wait_until(lambda: graph.gate.state == GateStatus.HOLDING, 2.0)
        graph.expect_idle()
        kinematics = Kinematics(graph.urdf, robot.joints, robot.tool_frame, robot.base_frame)
        self.space = space = make_velocity_space(robot, kinematics, graph.period)
        self._home = choose_reset_position(space, options.reset)
        self._ticks = options.ticks or (max(1, round(options.seconds / space.period)) if options.seconds else None)
        teleoperated = options.mode != "play"
        if teleoperated:
            self._teleop = TeleopMotion(space)
            self._pad = GamePad(options.axes, options.hold_button, options.end_button)
            kind, callback = (Joy, self._on_joy) if options.mode == "joy" else (TwistStamped, self._on_twist)
            graph.node.create_subscription(kind, options.topic, callback, SENSOR)
        graph.create_publishers()
        if not wait_until(graph.is_matched, DISCOVERY_TIMEOUT_S):
            raise InputError("arm_gate: expected subscriptions to plan and planner_status, found none")
        wait_until(self._drive.is_settled, DISCOVERY_TIMEOUT_S)
        # A planner may be discovered up to one announcement period after the gate: wait for it, and check again.
        wait_until(lambda: time.monotonic() - started > DISCOVERY_PERIOD_S)
        graph.expect_idle()
        settings = TELEOP_PLANS if teleoperated else {}
        # The first plan is slow (imports, caches), and the gate does not wait: make one that is thrown away.
        warm_up = PlanDriver(space, **settings)
        warm_up.make_plan(graph.now(), graph.now() + 1.0, Approach(space, self._home), graph.joints)
        self._drive.begin(PlanDriver(space, **settings))

    # -- episodes ------------------------------------------------------------------------------------------------------

    def _run_episode(self, number: int) -> None:
        """Approach the start, rest, mark the episode in the recording, move, rest."""
        start, script = self._home, None
        if self._options.mode == "play":
            start, knots = sample_play_episode(self.space, self._home, self._ticks, self._options.seed, number)
            script = ScriptedMotion(knots)
        self._show("to the reset pose")
        self._reset(start)
        self._mark_episode()
        self._episode = episode = LiveEpisode(number)
        self._record.episodes.append(episode)
        self._finish, self._counting = False, True
        self._log("started")
        self._show("driving")
        try:
            self._drive.drive(script or self._teleop, lambda: self._is_over(script))
            self._counting = False
            self._drive.come_to_rest()
        except CollectingStopped:  # without a number of episodes this is the usual end of the last one
            episode.ended = "interrupted" if self._options.episodes else "Ctrl-C"
            raise
        finally:
            self._counting, self._episode = False, None
        episode.ended = "requested" if self._finish else "complete"
        self._show("done")
        self._drive.wait(0.5 * REST_BEFORE_S)

    def _is_over(self, script: ScriptedMotion | None) -> bool:
        if self._finish:
            return True
        if script is not None:
            return script.fully_planned and self._drive.driver.at_rest(self._graph.now())
        return self._ticks is not None and len(self._episode.actions) >= self._ticks

    def _reset(self, x: np.ndarray) -> None:
        """Move the tool to coordinates x (D,) m, and rest."""
        graph, approach, rejected = self._graph, Approach(self.space, x), self._record.gate["rejected"]

        def arrived() -> bool:
            if self._record.gate["rejected"] > rejected + MAX_REJECTIONS:
                raise CollectingEnded(f"the gate rejects every plan to the reset pose: {graph.rejection}")
            return approach.arrived(self._drive.driver.tool(graph.now(), graph.joints))

        self._drive.drive(approach, arrived)
        self._drive.come_to_rest()
        self._drive.wait(REST_BEFORE_S)

    def _mark_episode(self) -> None:
        """Let the recorder mark the start of an episode."""
        future = self._graph.recorder.call_async(Trigger.Request())
        if not self._drive.wait_until(future.done, RECORDER_TIMEOUT_S):
            raise CollectingEnded(f"the recorder did not answer within {RECORDER_TIMEOUT_S:g} s")
        if not future.result().success:
            raise CollectingEnded(f"the recorder reports: {future.result().message}")

    # -- progress and log ----------------------------------------------------------------------------------------------

    def _note_pause(self, why: str) -> None:
        self._counting = False
        self._log(f"paused: {why}")
        self._show(f"paused: {why}")
        if self._episode is not None:
            self._episode.pauses.append(why)

    def _note_resume(self) -> None:
        self._counting = self._episode is not None
        self._log("resumed")
        self._show("driving")

    def _log(self, text: str) -> None:
        number = "" if self._episode is None else f"episode {self._episode.number}: "
        sys.stderr.write(f"collect: {number}{text}\n")
        sys.stderr.flush()

    def _warn(self, text: str, key: str = "") -> None:
        if self._warnings.passes(key or text[:30], WARN_EVERY_S) is not None:
            self._log(text)

    def _show(self, activity: str) -> None:
        self._drive.activity = activity if self._episode is None else f"episode {self._episode.number}, {activity}"
        self._bar.update(self._task, self._record.done, activity)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def _on_executed(self, values: np.ndarray) -> None:
        if self._counting and self._graph.joints is not None:
            self._episode.actions.append(values)
            self._episode.tool.append(self.space.tool_coordinates(self._graph.joints))

    def _on_joy(self, message: Joy) -> None:
        if self._pad.end_was_pressed(message.buttons):
            self._end()
        velocity = self._pad.velocity(message.axes, message.buttons)
        if len(velocity) < self.space.axes:
            self._warn(f"{self._options.topic}: expected more axes, found {len(message.axes)}")
        else:
            self._command(velocity, message)

    def _on_twist(self, message: TwistStamped) -> None:
        found, wanted = message.header.frame_id, self._robot.base_frame
        if found not in ("", wanted):
            self._warn(f"{self._options.topic}: expected velocities in the frame {wanted}, found {found}")
        else:
            linear, angular = message.twist.linear, message.twist.angular
            commanded = np.array([linear.x, linear.y, linear.z, angular.z])[: self.space.axes]
            self._command(tuple((commanded / self.space.full_speeds).tolist()), message)

    def _command(self, velocity: tuple[float, ...], message: Joy | TwistStamped) -> None:
        """Pass a velocity, over full speed, on to the motion."""
        self._teleop.command(velocity, to_seconds(message.header.stamp), self._graph.now())
        if self._teleop.problem:
            self._warn(f"{self._options.topic}: {self._teleop.problem}")

    def _on_pause(self, request, response) -> Trigger.Response:
        response.success, response.message = True, "already paused" if self._drive.paused else "pausing"
        self._drive.paused = True
        return response

    def _on_resume(self, request, response) -> Trigger.Response:
        response.success, response.message = True, "resuming" if self._drive.paused else "not paused"
        self._drive.paused = False
        return response

    def _on_end_episode(self, request, response) -> Trigger.Response:
        response.success = self._episode is not None
        response.message = "the episode ends" if response.success else "no episode in progress"
        self._end()
        return response

    def _end(self) -> None:
        self._finish = self._episode is not None
