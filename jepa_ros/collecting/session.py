"""The time in which `jepa_ros collect live` has an arm: to the reset pose, then an episode, and again."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
from jepa_msgs.msg import GateStatus
from rclpy.node import Node
from std_srvs.srv import Trigger

from jepa_ros.collecting import live_play
from jepa_ros.collecting.drive import Drive, Ended, Stopped
from jepa_ros.collecting.graph_client import CollectGraph, domain
from jepa_ros.collecting.live_report import LiveEpisode, LiveRecord
from jepa_ros.collecting.plan_driver import Approach, Driver, Script
from jepa_ros.collecting.teleop_inputs import Commands
from jepa_ros.collecting.teleoperation import PLANS, GamePad, Steering
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import Throttle
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics

if TYPE_CHECKING:
    from jepa_ros.collecting.options import Options

READY_WITHIN = 10.0  # s in which everything must be found
REST = 0.5  # s of standing still before an episode, and half as much after it
ANSWER_WITHIN = 5.0  # s, the recorder
REFUSALS = 60  # of plans on the way to the reset pose; more and the arm does not get there


class Session:
    """`record` is filled as it goes, so that it holds whatever happened. space: None until the graph was found."""

    def __init__(
        self,
        options: Options,
        robot: RobotConfig,
        node: Node,
        executor,
        record: LiveRecord,
        bar: ProgressDisplay,
        stop: threading.Event,
    ) -> None:
        self._options, self._robot, self._record, self._bar = options, robot, record, bar
        self.space: PlanarVelocity | None = None
        self._graph = CollectGraph(node, robot, self._on_executed)
        self._drive = Drive(
            self._graph, executor, record, stop, self._note_pause, self._note_resume, self._note_refusal
        )
        self._said = Throttle()
        self._episode: LiveEpisode | None = None  # under way
        self._counts = self._finish = False  # what is executed belongs to the episode; it is to end
        for name, heard in (("pause", self._on_pause), ("resume", self._on_resume), ("end_episode", self._on_end)):
            node.create_service(Trigger, f"~/{name}", heard)

    def run(self) -> int:
        """0, or 1 where it ended early. Raises InputError before anything moves, Stopped where it is interrupted."""
        wanted = self._options.episodes
        self._task = self._bar.add("episodes", wanted)
        self._get_ready()
        try:
            for number in itertools.count() if wanted is None else range(wanted):
                self._go(number)
            return 0
        except Ended as reason:
            self._record.ended = str(reason)
            return 1
        finally:
            self._drive.end()

    def _get_ready(self) -> None:
        """Find everything, before anything moves."""
        graph, options, robot, until = self._graph, self._options, self._robot, self._drive.until
        if not until(lambda: not graph.missing(), READY_WITHIN):
            missing = ", ".join(graph.missing())
            raise InputError(f"collect: expected {missing}; found none within {READY_WITHIN:g} s {domain()}")
        until(lambda: graph.gate.state == GateStatus.HOLDING, 2.0)
        graph.expect_idle()
        kinematics = Kinematics(graph.urdf, robot.joints, robot.tool_frame, robot.base_frame)
        self.space = space = PlanarVelocity(robot, kinematics, graph.period)
        self._home = live_play.reset_pose(space, options.reset)
        self._ticks = options.ticks or (max(1, round(options.seconds / space.period)) if options.seconds else None)
        teleoperated = options.mode != "play"
        if teleoperated:
            self._steering = Steering(space)
            pad = GamePad(options.axes, options.hold_button, options.end_button) if options.mode == "joy" else None
            self._commands = Commands(
                graph, self._steering, pad, options.topic, space.max_speed, robot.base_frame, self._warn, self._end
            )
        graph.announce()
        if not until(graph.heard, READY_WITHIN):
            raise InputError("arm_gate: expected one that hears plan and planner_status, found one that does not")
        until(self._drive.settled, READY_WITHIN)
        how = PLANS if teleoperated else {}
        # The first plan is slow, and the gate waits for nobody.
        Driver(space, **how).plan(graph.now(), graph.now() + 1.0, Approach(space, self._home), graph.joints)
        self._drive.begin(Driver(space, **how))

    # -- episodes ------------------------------------------------------------------------------------------------------

    def _go(self, number: int) -> None:
        """One episode: to where it begins, rest, a mark in the recording, motion, rest."""
        begin, script = self._home, None
        if self._options.mode == "play":
            begin, knots = live_play.episode(self.space, self._home, self._ticks, self._options.seed, number)
            script = Script(knots)
        self._progress("to the reset pose")
        self._reset(begin)
        self._mark()
        self._episode = episode = LiveEpisode(number)
        self._record.episodes.append(episode)
        self._finish, self._counts = False, True
        self._say("begins")
        self._progress("driving")
        try:
            self._drive.drive(script or self._steering, lambda: self._over(script))
            self._counts = False
            self._drive.come_to_rest()
        except Stopped:  # without a number of episodes this is how the last one is meant to end
            episode.ended = "interrupted" if self._options.episodes else "Ctrl-C"
            raise
        finally:
            self._counts, self._episode = False, None
        episode.ended = "asked for" if self._finish else "complete"
        self._progress("done")
        self._drive.wait(0.5 * REST)

    def _over(self, script: Script | None) -> bool:
        if self._finish:
            return True
        if script is not None:
            return script.told and self._drive.driver.at_rest(self._graph.now())
        return self._ticks is not None and len(self._episode.actions) >= self._ticks

    def _reset(self, xy: np.ndarray) -> None:
        """To the tool position xy (2,) m, and a moment of rest."""
        graph, approach, refused = self._graph, Approach(self.space, xy), self._record.gate["rejected"]

        def there() -> bool:
            if self._record.gate["rejected"] > refused + REFUSALS:
                raise Ended(f"the gate does not let the arm go to the reset pose: {graph.refusal}")
            return approach.there(self._drive.driver.tool(graph.now(), graph.joints))

        self._drive.drive(approach, there)
        self._drive.come_to_rest()
        self._drive.wait(REST)

    def _mark(self) -> None:
        """Have the recorder note that an episode begins."""
        future = self._graph.recorder.call_async(Trigger.Request())
        if not self._drive.until(future.done, ANSWER_WITHIN):
            raise Ended(f"the recorder has not answered within {ANSWER_WITHIN:g} s")
        if not future.result().success:
            raise Ended(f"the recorder says: {future.result().message}")

    # -- words ---------------------------------------------------------------------------------------------------------

    def _note_pause(self, why: str) -> None:
        self._counts = False
        self._say(f"paused: {why}")
        self._progress(f"paused: {why}")
        if self._episode is not None:
            self._episode.pauses.append(why)

    def _note_resume(self) -> None:
        self._counts = self._episode is not None
        self._say("goes on")
        self._progress("driving")

    def _note_refusal(self, why: str) -> None:
        self._warn(f"the gate refused a plan: {why}", "refused")

    def _say(self, text: str) -> None:
        number = "" if self._episode is None else f"episode {self._episode.number}: "
        sys.stderr.write(f"collect: {number}{text}\n")
        sys.stderr.flush()

    def _warn(self, text: str, key: str = "") -> None:
        if self._said.passes(key or text[:30], 5.0) is not None:
            self._say(text)

    def _progress(self, doing: str) -> None:
        self._drive.doing = doing if self._episode is None else f"episode {self._episode.number}, {doing}"
        self._bar.update(self._task, self._record.done, doing)

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def _on_executed(self, values: np.ndarray) -> None:
        if self._counts and self._graph.joints is not None:
            self._episode.actions.append(values)
            self._episode.tool.append(self.space.tool_coordinates(self._graph.joints))

    def _on_pause(self, request, response) -> Trigger.Response:
        response.success, response.message = True, "was paused" if self._drive.paused else "pausing"
        self._drive.paused = True
        return response

    def _on_resume(self, request, response) -> Trigger.Response:
        response.success, response.message = True, "going on" if self._drive.paused else "was not paused"
        self._drive.paused = False
        return response

    def _on_end(self, request, response) -> Trigger.Response:
        response.success = self._episode is not None
        response.message = "the episode ends" if response.success else "no episode is under way"
        self._end()
        return response

    def _end(self) -> None:
        self._finish = self._episode is not None
