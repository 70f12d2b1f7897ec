"""arm_gate: the only node that commands the arm. Plans go in, windows that end at rest come out.

What is let through, and why the arm stops whatever fails, is in `jepa_ros.robot.gate`; this is its shell.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections import deque
from dataclasses import fields

import numpy as np
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from jepa_ros.errors import InputError
from jepa_ros.nodes.base import LATCHED, RELIABLE, SENSOR, JepaNode, NotReady, run
from jepa_ros.nodes.commands import CommandInterface, TrajectoryCommand
from jepa_ros.nodes.convert import float32_array, to_seconds, to_stamp, trajectory_of
from jepa_ros.nodes.diagnostics import ERROR, OK, WARN, Meter, Status, Throttle
from jepa_ros.nodes.latest import Latest
from jepa_ros.nodes.parameters import Parameter
from jepa_ros.nodes.realtime import raise_priority
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.gate import MOVING, Gate
from jepa_ros.robot.gate_types import ExecutedTick, GateOutput, GateReport, GateSettings, GateState
from jepa_ros.robot.intake import MAX_POINTS
from jepa_ros.robot.limits import JointLimits

EXECUTED = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
REST_WITHIN = 3.0  # s (steady) that an end in motion waits for the arm
LONGEST = 1e6  # s, stands for "never" in parameters, which know no infinity


def _setting(field) -> Parameter:
    meta, default = field.metadata, field.default
    if not meta:
        return Parameter(field.name, default, "A gross breach latches until release.", at_configure=True)
    unit = "" if meta["unit"] == "1" else meta["unit"]
    limits = (meta["low"], min(meta["high"], LONGEST))
    return Parameter(field.name, min(default, LONGEST), meta["text"], unit=unit, range=limits, at_configure=True)


PARAMETERS = (
    Parameter("robot", "openarm", "Name in config/robots, or a YAML file.", at_configure=True),
    Parameter("rate", 200.0, "Checks a second.", unit="Hz", range=(20.0, 1000.0), at_configure=True),
    Parameter("status_rate", 20.0, "gate_status messages a second.", unit="Hz", range=(1.0, 100.0), at_configure=True),
    Parameter(
        "command_stamps",
        "absolute",
        "Stamps of windows: absolute, where the controllers' clock agrees with ours, or zero.",
        choices=("absolute", "zero"),
        at_configure=True,
    ),
    Parameter(
        "clock_timeout",
        0.5,
        "On simulated time, a clock that stands still for this long (of real time) is a stop.",
        unit="s",
        range=(0.05, 60.0),
    ),
    Parameter(
        "thread_priority",
        50,
        "SCHED_FIFO priority of the process, where the system grants it; 0 leaves the scheduling alone.",
        range=(0, 99),
        at_configure=True,
    ),
    *(_setting(field) for field in fields(GateSettings)),
)


class ArmGate(JepaNode):
    """See the module's text; topics and services are in DESIGN's table."""

    def __init__(self) -> None:
        super().__init__("arm_gate", PARAMETERS)
        self._gate: Gate | None = None
        self._commands: list[CommandInterface] = []
        self._report: GateReport | None = None
        self._timer = None
        self._rivals, self._unheard = "", ""
        self._status_sent = self._clock_moved = -math.inf
        self._clock_seen, self._clock_stopped = 0.0, False
        self._ticks, self._busy = Meter(), 0.0
        self._reactions: deque[float] = deque(maxlen=1000)
        self._said = Throttle()
        self._description = Latest(self, String, "robot_description")
        self._e_stop = False
        # Transient local where the publisher is; a plain `ros2 topic pub` is not, and must stop the arm as well. What
        # the first cannot hear the second does, so rclpy's warning about the first is kept quiet.
        volatile = QoSProfile(depth=1, reliability=LATCHED.reliability, durability=DurabilityPolicy.VOLATILE)
        for qos in (LATCHED, volatile):
            quiet = SubscriptionEventCallbacks(incompatible_qos=lambda event: None)
            self.create_subscription(Bool, "e_stop", self._on_e_stop, qos, event_callbacks=quiet)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        from jepa_ros.robot.action_space import make_space
        from jepa_ros.robot.kinematics import Kinematics

        p = self.p
        self._scheduling = raise_priority(p.thread_priority)
        robot = load_robot(p.robot)
        if self._description.message is None:
            raise NotReady("no robot_description has come yet")
        urdf = self._description.message.data
        limits = JointLimits.of_robot(robot, urdf)
        kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        space = make_space(robot, kinematics, p.control_period)
        values = {f.name: getattr(p, f.name) for f in fields(GateSettings)}
        settings = GateSettings(**{k: math.inf if v == LONGEST else v for k, v in values.items()})
        self._gate = Gate(limits, settings, space.executed)
        self._frame, self._space = robot.base_frame, space.name
        stamped = p.command_stamps == "absolute"
        self._commands = [TrajectoryCommand(self, c, limits.names, stamped) for c in robot.controllers]
        self._executed = self.create_lifecycle_publisher(Action, "executed", EXECUTED)
        self._status = self.create_publisher(GateStatus, "gate_status", RELIABLE)
        self.create_subscription(Plan, "plan", self._on_plan, RELIABLE)
        self.create_subscription(LatentState, "latent", self._on_latent, SENSOR)
        self.create_subscription(JointState, "joint_states", self._on_joint_states, SENSOR)
        self.create_service(Trigger, "stop", self._on_stop)
        self.create_service(Trigger, "release", self._on_release)

    def activate(self) -> None:
        self._gate.reset()
        if self._e_stop:
            self._gate.e_stop(True, self.now())
        self._clock_seen, self._clock_moved, self._clock_stopped = self.now(), time.monotonic(), False
        # What was made so far lives as long as the node does: the collector need not look at it at 200 Hz.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._timer = self.steady_timer(1.0 / self.p.rate, self._on_timer)
        self._graph_timer = self.steady_timer(0.5, self._look_around)
        self._look_around()

    def deactivate(self) -> None:
        self._come_to_rest("the gate was deactivated")
        for timer in (self._timer, self._graph_timer):
            self.destroy_timer(timer)
        self._timer = None
        self._gate.reset()
        self._publish_status(self._gate.tick(self.now()).status)

    def cleanup(self) -> None:
        self._gate, self._commands, self._report = None, [], None

    def shutdown_motion(self) -> None:
        self._come_to_rest("the gate is being shut down")

    def _come_to_rest(self, reason: str) -> None:
        """Send a stop, then wait until it has been followed: what comes after may be the end of this process."""
        if self._gate.state not in MOVING:
            return
        self._gate.halt(reason, self.now())
        self._step()
        # On simulated time the clock stands still in here (nobody spins), so the wait is by the steady clock.
        end = time.monotonic() + min(self._gate.time_to_rest() + 0.05, REST_WITHIN)
        while self._gate.state in MOVING and time.monotonic() < end:
            time.sleep(0.005)
            self._step()
        for command in self._commands:
            if command.listeners() and not command.flush(0.5):
                self.get_logger().warning(f"{command.topic} has not confirmed the stop")

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _on_joint_states(self, m: JointState) -> None:
        if self._running():
            self._gate.joint_states(m.name, m.position, m.velocity, to_seconds(m.header.stamp), self.now())

    def _on_latent(self, m: LatentState) -> None:
        if self._running():
            self._gate.latent(to_seconds(m.header.stamp), self.now())

    def _on_plan(self, m: Plan, info: dict) -> None:
        if not self._running():
            return
        if self._rivals or self._unheard:
            verdict = self._gate.refuse(f"plan refused: {self._rivals or self._unheard}")
        else:
            try:
                points = len(m.trajectory.points)
                if points > MAX_POINTS:  # before anything is made of them
                    raise InputError(f"plan: expected at most {MAX_POINTS} points, found {points}")
                trajectory = trajectory_of(m.trajectory)
            except InputError as error:
                verdict = self._gate.refuse(str(error))
            else:
                start, source, until = map(to_seconds, (m.header.stamp, m.source_stamp, m.valid_until))
                verdict = self._gate.plan(trajectory, start, source, until, m.plan_id, self.now())
        if not verdict:
            self._warn("rejected", f"plan {m.plan_id} rejected: {verdict.text}")
        elif verdict.text:
            self._warn("clipped", f"plan {m.plan_id}: {verdict.text}")
        sent = self._step()
        if verdict and sent:
            self._reactions.append(1e3 * (sent - info["received_timestamp"] * 1e-9))

    def _on_e_stop(self, m: Bool) -> None:
        self._e_stop = bool(m.data)
        if self.active:
            self._gate.e_stop(self._e_stop, self.now())
            self._step()

    def _on_stop(self, request, response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the gate is not active: it sends nothing"
            return response
        self._gate.stop("the service stop was called", self.now())
        self._step()
        response.success, response.message = True, "stopping; call release to go on"
        return response

    def _on_release(self, request, response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the gate is not active"
            return response
        response.success, response.message = self._gate.release(self.now())
        self._step()
        return response

    def _warn(self, key: str, text: str) -> None:
        held = self._said.passes(key, 5.0)
        if held is not None:
            self.get_logger().warning(f"{text} ({held} more like it)" if held else text)

    def _running(self) -> bool:
        return self.active and self.now() > 0.0

    # -- every tick ----------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        self._watch_clock(began)
        self._step()
        self._ticks.count()
        self._busy += 0.01 * ((time.thread_time() - cpu) - self._busy)

    def _watch_clock(self, steady: float) -> None:
        """Simulated time that stands still ages nothing; the steady clock notices."""
        now = self.now()
        if now != self._clock_seen:
            self._clock_seen, self._clock_moved, self._clock_stopped = now, steady, False
        elif not self._clock_stopped and steady - self._clock_moved > self.p.clock_timeout:
            self._clock_stopped = True
            if now > 0.0:
                self._gate.halt("the clock stands still", now)

    def _step(self) -> float | None:
        """Publish what is due; the system time at which a window was written, None where none was."""
        now, sent = self.now(), None
        if now <= 0.0:  # simulated time before its first message
            return None
        output: GateOutput = self._gate.tick(now)
        if output.window is not None:
            for command in self._commands:
                command.send(output.window, now)
            sent = time.time()
        for tick in output.executed:
            self._publish_executed(tick)
        changed = self._report is None or output.status.state != self._report.state
        # With a plan's first window, so that a listener can tell which window that is.
        adopted = self._report is not None and output.status.plan_id != self._report.plan_id
        self._report = output.status
        if changed or adopted or time.monotonic() - self._status_sent >= 1.0 / self.p.status_rate - 1e-3:
            self._publish_status(output.status)
        if changed:
            self.diagnostics_changed()
        return sent

    def _look_around(self) -> None:
        """Twice a second: is there a controller, and nobody else who commands it?"""
        rivals = [c.topic for c in self._commands if c.publishers() > 1]
        self._rivals = f"somebody else publishes to {', '.join(rivals)}" if rivals else ""
        silent = [c.topic for c in self._commands if not c.listeners()]
        self._unheard = f"no controller listens to {', '.join(silent)}" if silent else ""
        if self._rivals and self._gate.state == GateState.TRACKING:
            self._gate.halt(self._rivals, self.now())
            self._step()

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _publish_executed(self, tick: ExecutedTick) -> None:
        message = Action(period=self._gate.settings.control_period, action_space=self._space, plan_id=tick.plan_id)
        message.header.stamp, message.header.frame_id = to_stamp(round(tick.start * 1e9)), self._frame
        message.values = float32_array(tick.values)
        self._executed.publish(message)

    def _publish_status(self, report: GateReport) -> None:
        self._status_sent = time.monotonic()
        message = GateStatus(
            state=int(report.state),
            text=report.text,
            speed_scale=report.speed_scale,
            latent_age_ms=report.latent_age * 1e3,
            plan_age_ms=report.plan_age * 1e3,
            joint_age_ms=report.joint_age * 1e3,
            following_error=report.following_error,
            min_distance=report.min_distance,
            clipped=report.clipped,
            rejected=report.rejected,
            stops=report.stops,
            plan_id=report.plan_id,
        )
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), self._frame
        self._status.publish(message)

    def diagnose(self) -> list[Status]:
        report = self._report
        if not self.active or report is None:
            return [Status("motion", OK, "not active: nothing is sent")]
        level = ERROR if report.state == GateState.LATCHED or self._rivals else OK
        if level == OK and (self._unheard or report.state in (GateState.STOPPING, GateState.INACTIVE)):
            level = WARN
        values = {
            "state": report.state.name,
            "following_error": report.following_error,
            "latent_age_ms": report.latent_age * 1e3,
            "joint_age_ms": report.joint_age * 1e3,
            "clipped": report.clipped,
            "rejected": report.rejected,
            "last_rejection": report.last_rejection,
            "stops": report.stops,
            "scheduling": self._scheduling,
            "rate_hz": self._ticks.rate(),
            "tick_us": self._busy * 1e6,
        }
        if self._reactions:  # from a plan's arrival to its first window being out, over the last thousand plans
            values |= {f"plan_to_window_p{p}_ms": float(np.percentile(self._reactions, p)) for p in (50, 99)}
        return [Status("motion", level, self._rivals or self._unheard or report.text, values)]


def main(argv=None) -> int:
    return run(ArmGate, argv)


if __name__ == "__main__":
    sys.exit(main())
