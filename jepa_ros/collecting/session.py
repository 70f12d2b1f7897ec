"""One session of `collect live`: to the reset pose, then an episode, and again."""

from __future__ import annotations

import itertools
import sys
import threading
import time

import numpy as np
from jepa_msgs.msg import GateStatus
from rclpy.node import Node
from std_srvs.srv import Trigger

from jepa_ros.collecting.drive import CollectingEnded, CollectingStopped, Drive
from jepa_ros.collecting.graph_client import GraphClient, TeleopSubscription, describe_domain
from jepa_ros.collecting.live_report import LiveEpisode, LiveRecord
from jepa_ros.collecting.plan_driver import Approach, PlanDriver, ScriptedMotion, reset_position, sample_play_episode
from jepa_ros.collecting.teleoperation import TELEOP_PLANS, GamePad, TeleopMotion
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import Throttle
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics

DISCOVERY_TIMEOUT_S = 10.0
DISCOVERY_PERIOD_S = 3.2  # participants of Fast DDS announce themselves every 3 s; the first packets may be lost
REST_BEFORE_S = 0.5  # rest before an episode; half as long after it
RECORDER_TIMEOUT_S = 5.0
MAX_REJECTIONS = 60  # rejected plans on the way to the reset pose after which it counts as out of reach
WARN_EVERY_S = 5.0


class Session:
    """Drives the arm for all episodes. record: filled as it goes, so that it is usable whatever happens. space: the
    robot's action space, None until the graph was found."""

    def __init__(
        self,
        robot: RobotConfig,
        node: Node,
        executor,
        record: LiveRecord,
        bar: ProgressDisplay,
        stop: threading.Event,
    ) -> None:
        self._options, self._robot, self._record, self._bar = record.options, robot, record, bar
        self.space: PlanarVelocity | None = None
        self._graph = GraphClient(node, robot, self._on_executed)
        self._drive = Drive(
            self._graph, executor, record, stop, self._note_pause, self._note_resume, self._note_rejection
        )
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
            raise InputError(
                f"collect: expected {missing}; found none within {DISCOVERY_TIMEOUT_S:g} s {describe_domain()}"
            )
        wait_until(lambda: graph.gate.state == GateStatus.HOLDING, 2.0)
        graph.expect_idle()
        kinematics = Kinematics(graph.urdf, robot.joints, robot.tool_frame, robot.base_frame)
        self.space = space = PlanarVelocity(robot, kinematics, graph.period)
        self._home = reset_position(space, options.reset)
        self._ticks = options.ticks or (max(1, round(options.seconds / space.period)) if options.seconds else None)
        teleoperated = options.mode != "play"
        if teleoperated:
            self._teleop = TeleopMotion(space)
            pad = GamePad(options.axes, options.hold_button, options.end_button) if options.mode == "joy" else None
            self._commands = TeleopSubscription(
                graph, self._teleop, pad, options.topic, space.max_speed, robot.base_frame, self._warn, self._end
            )
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

    def _reset(self, xy: np.ndarray) -> None:
        """Move to the tool position xy (2,) m, and rest."""
        graph, approach, rejected = self._graph, Approach(self.space, xy), self._record.gate["rejected"]

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

    def _note_rejection(self, why: str) -> None:
        self._warn(f"the gate rejected a plan: {why}", "rejected")

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
