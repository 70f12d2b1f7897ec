"""Node arm_gate: the only node that commands the arm. Plans go in, windows that end at rest come out.

The decisions, and why the arm stops whatever fails, are in `jepa_ros.robot.gate.gate`; this is its ROS shell. A thread
of its own ticks the gate and reads joint states; all other callbacks run in the executor's thread.
"""

from __future__ import annotations

import gc
import math
import threading
import time
import traceback
from collections import deque

import numpy as np
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan, PlannerStatus
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from jepa_ros.errors import InputError
from jepa_ros.nodes.arm_gate.controller_reports import ControllerReports
from jepa_ros.nodes.arm_gate.controllers import CommandInterface, make_command, make_gripper
from jepa_ros.nodes.arm_gate.parameters import PARAMETERS, make_gate_settings
from jepa_ros.nodes.arm_gate.realtime import SetpointSender, Ticker, raise_priority
from jepa_ros.nodes.common.convert import float32_array, to_seconds, to_stamp, trajectory_of
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode, NotReady
from jepa_ros.nodes.common.qos import EXECUTED, GATE_STATUS, LATCHED, NEWEST, RELIABLE, SENSOR
from jepa_ros.nodes.common.topics import LatestMessage, robot_topic
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.files.open_marks import require_finished
from jepa_ros.robot.gate.controller_cycles import ControllerCycles
from jepa_ros.robot.gate.gate import MOVING, Gate
from jepa_ros.robot.gate.plan_checks import MAX_POINTS
from jepa_ros.robot.gate.types import NO_CAUSE, Cause, ExecutedTick, GateCode, GateOutput, GateReport, GateState
from jepa_ros.robot.motion.limits import JointLimits

CONFIRMATION_TIMEOUT = 0.5  # s (steady): longest wait for the controllers to report that they hold
MAX_TIME_TO_REST = 3.0  # s (steady): longest wait for the arm when the node is deactivated in motion


class ArmGate(JepaNode):
    """Node arm_gate. In: plan, latent, planner_status, joint_states, robot_description, e_stop, deadman, gripper.
    Out: the controllers' command topics, executed, gate_status. Services: stop, release."""

    def __init__(self) -> None:
        super().__init__("arm_gate", PARAMETERS)
        self._gate: Gate | None = None
        self._commands: list[CommandInterface] = []
        self._report: GateReport | None = None
        self._lock = threading.RLock()  # for the gate and its outputs, which two threads use
        self._ticker: Ticker | None = None
        self._sender: SetpointSender | None = None
        self._cycles: ControllerCycles | None = None
        self._other_publisher = self._no_controller = NO_CAUSE
        self._status_sent = self._clock_moved = -math.inf
        self._clock_seen, self._clock_stopped = 0.0, False
        self._ticks, self._busy = Meter(), 0.0
        self._reactions: deque[float] = deque(maxlen=1000)
        self._begun: deque[float] = deque(maxlen=2000)  # steady times of the last ticks
        self._changed = self.create_guard_condition(self.diagnostics_changed)
        self._description = LatestMessage(self, String, robot_topic(self, "robot_description"))
        self._e_stop: bool | None = None  # None: no publisher
        # Transient local where the publisher is; a plain `ros2 topic pub` is not, and must stop the arm as well. The
        # second subscription receives what the first cannot, so rclpy's warning about the first is suppressed.
        for qos in (LATCHED, NEWEST):
            quiet = SubscriptionEventCallbacks(incompatible_qos=lambda event: None)
            self.create_subscription(Bool, "e_stop", self._on_e_stop, qos, event_callbacks=quiet)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        from jepa_ros.robot.collision.clearance import Clearance
        from jepa_ros.robot.motion.action_space import make_space
        from jepa_ros.robot.motion.kinematics import Kinematics

        p = self.p
        self._scheduling = raise_priority(p.thread_priority)
        require_finished(p.robot)
        robot = load_robot(p.robot, p.command_interface)
        if self._description.message is None:
            raise NotReady("no robot_description received yet")
        urdf = self._description.message.data
        limits = JointLimits.from_robot(robot, urdf)
        kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        space = make_space(robot, kinematics, p.control_period)
        clearance = Clearance.from_robot(robot, urdf, kinematics, border=(space.normals, space.offsets))
        streaming = "forward_position" in robot.interfaces
        self._gate = Gate(limits, make_gate_settings(p), space.executed, clearance, streaming)
        learns_cycles = streaming or p.command_stamps == "zero"
        period = 1.0 / p.controller_rate if p.controller_rate > 0.0 else None
        self._cycles = ControllerCycles(period) if learns_cycles else None
        controllers = [c.model_copy(update={"name": robot_topic(self, c.name)}) for c in robot.controllers]
        self._commands, self._gripper = [], None
        if not p.shadow:  # in shadow mode there is no publisher, so nothing can be sent
            clock = self._cycles if p.command_stamps == "zero" else None
            self._commands = [make_command(self, c, robot, kinematics, limits, clock) for c in controllers]
            self._gripper = make_gripper(self, robot, urdf, self._gripper_block_reason)
        self._frame, self._action_space = robot.base_frame, space.name
        self._executed = self.create_lifecycle_publisher(Action, "executed", EXECUTED)
        self._status = self.create_publisher(GateStatus, "gate_status", GATE_STATUS)
        self.create_subscription(Plan, "plan", self._on_plan, RELIABLE)
        self.create_subscription(LatentState, "latent", self._on_latent, SENSOR)
        self.create_subscription(PlannerStatus, "planner_status", self._on_planner_status, RELIABLE)
        # Read by the ticks: waking the executor costs more than handling a message. Without the default callbacks, a
        # message that has not been taken yet does not wake it; every publisher's QoS matches this subscription.
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._joint_states = self.create_subscription(
            JointState, robot_topic(self, "joint_states"), self._on_joint_states, SENSOR, event_callbacks=silent
        )
        self._joint_states.polled = True
        self._reports = ControllerReports(self, [] if p.shadow else controllers)
        if p.require_deadman:
            kind, callback = (Joy, self._on_joy) if p.deadman_type == "joy" else (Bool, self._on_deadman)
            self.create_subscription(kind, "deadman", callback, SENSOR)
        self.create_service(Trigger, "stop", self._on_stop)
        self.create_service(Trigger, "release", self._on_release)

    def activate(self) -> None:
        self._gate.reset()
        self._gate.set_speed_scale(self.p.speed_scale, self.now())
        if self._e_stop is not None:
            self._gate.update_e_stop(self._e_stop, self.now())
        self._clock_seen, self._clock_moved, self._clock_stopped = self.now(), time.monotonic(), False
        self._is_simulated = self.get_parameter("use_sim_time").value
        self._begun.clear()
        # Existing objects live as long as the node: keep them out of garbage collection at 200 Hz.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._check_graph()
        self._graph_timer = self.steady_timer(0.5, self._check_graph)
        self._ticker = Ticker(self.p.rate, self._tick, self._tick_failed)
        if self._gate.setpoints is not None and self._commands:
            rate = self.p.controller_rate or self.p.rate
            sender = (rate, self._cycles, self.now, self._gate.next_setpoint, self._send_setpoint, self._tick_failed)
            self._sender = SetpointSender(*sender)

    def deactivate(self) -> None:
        self._come_to_rest("the gate was deactivated")
        self._ticker.end()
        if self._sender is not None:
            self._sender.end()
            self._sender = None
        self.destroy_timer(self._graph_timer)
        self._gate.reset()
        report = self._gate.tick(self.now()).status
        report.code, report.text = GateCode.NOT_ACTIVE, "the gate is not active"
        self._publish_status(report)

    def cleanup(self) -> None:
        self._gate, self._commands, self._report = None, [], None

    def shutdown_motion(self) -> None:
        self._come_to_rest("the gate is being shut down")

    def _come_to_rest(self, reason: str) -> None:
        """Send a stop, then wait until it has been followed: the process may end after this."""
        with self._lock:
            if self._gate.state not in MOVING:
                return
            self._gate.stop_and_hold(Cause(GateCode.DEACTIVATED, reason), self.now())
            self._step()
        # Nothing spins here, so simulated time stands still: wait by the steady clock.
        end = time.monotonic() + min(self._gate.time_to_rest() + 0.05, MAX_TIME_TO_REST)
        while self._gate.state in MOVING and time.monotonic() < end:
            time.sleep(0.005)
            self._step()
        end = time.monotonic() + CONFIRMATION_TIMEOUT
        while self._gate.stop_is_confirmed is False and time.monotonic() < end:
            time.sleep(0.02)
        if self._gate.stop_is_confirmed is False:
            self.get_logger().warning("the controllers do not report that they hold the end of the stop")

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _on_joint_states(self, m: JointState, info: dict) -> None:
        with self._lock:
            if self._running():
                stamp, now = to_seconds(m.header.stamp), self.now()
                if self._cycles is not None:
                    received = now if self._is_simulated else info["received_timestamp"] * 1e-9
                    self._cycles.observe(stamp, received)
                self._gate.update_joint_states(m.name, m.position, m.velocity, stamp + self._clock_offset, now)

    def _on_latent(self, m: LatentState) -> None:
        with self._lock:
            if self._running():
                self._gate.record_latent(to_seconds(m.header.stamp), self.now())

    def _on_planner_status(self, m: PlannerStatus) -> None:
        with self._lock:
            if self._running():
                self._gate.record_planner_alive(self.now())

    def _on_joy(self, m: Joy) -> None:
        self._on_deadman(Bool(data=self.p.deadman_button < len(m.buttons) and m.buttons[self.p.deadman_button] == 1))

    def _on_deadman(self, m: Bool) -> None:
        with self._lock:
            if self._running():
                self._gate.update_deadman(m.data, self.now())

    def parameters_changed(self, names: set[str]) -> None:
        with self._lock:
            if "speed_scale" in names and self.active:
                self._gate.set_speed_scale(self.p.speed_scale, self.now())

    def _on_plan(self, m: Plan, info: dict) -> None:
        with self._lock:
            if self._running():
                self._take_plan(m, info)

    def _take_plan(self, m: Plan, info: dict) -> None:
        if block := self._other_publisher or self._no_controller:
            verdict = self._gate.reject_plan(Cause(block.code, f"plan rejected: {block.text}"))
        elif (points := len(m.trajectory.points)) > MAX_POINTS:  # before they are converted
            text = f"plan: expected at most {MAX_POINTS} points, found {points}"
            verdict = self._gate.reject_plan(Cause(GateCode.PLAN_TOO_LONG, text))
        else:
            try:
                trajectory = trajectory_of(m.trajectory)
            except InputError as error:
                verdict = self._gate.reject_plan(Cause(GateCode.PLAN_INVALID, str(error)))
            else:
                start, source, until = map(to_seconds, (m.header.stamp, m.source_stamp, m.valid_until))
                verdict = self._gate.submit_plan(trajectory, start, source, until, m.plan_id, self.now())
        if not verdict:
            self.warn_throttled("rejected", f"plan {m.plan_id} rejected: {verdict.text}")
        elif verdict.text:
            self.warn_throttled("clipped", f"plan {m.plan_id}: {verdict.text}")
        sent = self._step()
        if verdict and sent:
            self._reactions.append(1e3 * (sent - info["received_timestamp"] * 1e-9))

    def _gripper_block_reason(self) -> str:
        """Return why gripper commands are dropped now, or ""."""
        if not self.active:
            return "the gate is not active"
        return f"latched: {self._gate.latch.text}" if self._gate.state == GateState.LATCHED else ""

    def _on_e_stop(self, m: Bool) -> None:
        with self._lock:
            self._e_stop = bool(m.data)
            if self.active:
                self._gate.update_e_stop(self._e_stop, self.now())
                self._step()

    def _on_stop(self, request, response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the gate is not active: nothing is commanded"
            return response
        with self._lock:
            self._gate.stop_and_latch(Cause(GateCode.STOP_SERVICE, "the service stop was called"), self.now())
            self._step()
        response.success, response.message = True, "stopping; call `release` to resume"
        return response

    def _on_release(self, request, response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the gate is not active"
            return response
        with self._lock:
            cause = self._gate.release(self.now())
            response.success, response.message = not cause, cause.text
            self._step()
        return response

    def _running(self) -> bool:
        return self.active and self.now() > 0.0

    # -- every tick ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        with self._lock:
            self._begun.append(began)
            self._poll_joint_states()
            self._poll_reports()
            self._watch_clock(began)
            self._step()
            self._ticks.count()
            self._busy += 0.01 * ((time.thread_time() - cpu) - self._busy)

    def _tick_failed(self, error: Exception) -> None:
        """End the process: after a defect the gate must not continue, and the last window ends at rest."""
        self.get_logger().fatal("".join(traceback.format_exception(error)))
        self.request_exit(1)

    def _poll_joint_states(self) -> None:
        topic = self._joint_states
        with topic.handle:
            while (taken := topic.handle.take_message(topic.msg_type, False)) is not None:
                self._on_joint_states(*taken)

    @property
    def _clock_offset(self) -> float:
        """s that the gate's clock is ahead of the controllers', where they are known to disagree."""
        if self._cycles is None or self.p.command_stamps != "zero":
            return 0.0
        return self._cycles.offset or 0.0

    def _poll_reports(self) -> None:
        reports, now = self._reports, self.now()
        for report in reports.take():
            if self._running():
                self._gate.update_controller(report._replace(stamp=report.stamp + self._clock_offset), now)
        for inactive in reports.take_activity():
            if self._running():
                self._gate.update_activity(inactive, now)

    def _send_setpoint(self, setpoint: np.ndarray) -> None:
        for command in self._commands:
            command.send_setpoint(setpoint)

    def _watch_clock(self, steady: float) -> None:
        """Detect by the steady clock that simulated time stands still, which leaves every age as it is."""
        now = self.now()
        if now != self._clock_seen:
            self._clock_seen, self._clock_moved, self._clock_stopped = now, steady, False
        elif not self._clock_stopped and steady - self._clock_moved > self.p.clock_timeout:
            self._clock_stopped = True
            if now > 0.0:
                self._gate.stop_and_hold(Cause(GateCode.CLOCK_STOPPED, "the clock stands still"), now)

    def _step(self) -> float | None:
        """Tick the gate and publish what is due; return the system time at which a window was sent, if any."""
        now, sent = self.now(), None
        if now <= 0.0:  # simulated time before its first message
            return None
        output: GateOutput = self._gate.tick(now)
        moving = output.status.state in MOVING
        for command in self._commands:
            if output.window is not None:
                command.send_window(output.window, now)
            moves = moving or output.window is not None
            command.send_reference(output.reference, self._gate.measured_positions, moves)
        if output.window is not None:
            sent = time.time()
        for tick in output.executed:
            self._publish_executed(tick)
        changed = self._report is None or output.status.state != self._report.state
        # Together with a plan's first window, so that subscribers can tell which window that is.
        adopted = self._report is not None and output.status.plan_id != self._report.plan_id
        self._report = output.status
        if changed or adopted or time.monotonic() - self._status_sent >= 1.0 / self.p.status_rate - 1e-3:
            self._publish_status(output.status)
        if changed:
            self._changed.trigger()
        return sent

    def _check_graph(self) -> None:
        """Twice a second: check that every controller subscribes, and that no other node commands it."""
        with self._lock:
            if self._e_stop is not None and not self.count_publishers("e_stop"):
                self._e_stop = None
                self._gate.report_e_stop_absent()
            if self._reports.lost_activity():
                self._gate.update_activity(None, self.now())
            shared = ", ".join(c.topic for c in self._commands if c.count_publishers() > 1)
            unread = ", ".join(c.topic for c in self._commands if not c.count_subscribers())
            self._other_publisher = self._no_controller = NO_CAUSE
            if shared:
                self._other_publisher = Cause(GateCode.OTHER_PUBLISHER, f"another publisher on {shared}")
            if unread:
                self._no_controller = Cause(GateCode.NO_CONTROLLER, f"no controller subscribes to {unread}")
            if self._other_publisher and self._gate.state == GateState.TRACKING:
                self._gate.stop_and_hold(self._other_publisher, self.now())
                self._step()

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _publish_executed(self, tick: ExecutedTick) -> None:
        message = Action(period=self.p.control_period, action_space=self._action_space, plan_id=tick.plan_id)
        message.header.stamp, message.header.frame_id = to_stamp(round(tick.start * 1e9)), self._frame
        message.values = float32_array(tick.values)
        self._executed.publish(message)

    def _publish_status(self, report: GateReport) -> None:
        self._status_sent = time.monotonic()
        fields = GateStatus.get_fields_and_field_types().keys() - {"header"}
        message = GateStatus(**{field: getattr(report, field) for field in fields})
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), self._frame
        self._status.publish(message)

    def diagnose(self) -> list[Status]:
        with self._lock:
            report, problem = self._report, self._other_publisher or self._no_controller
            intervals, reactions = np.diff(self._begun), list(self._reactions)
        if not self.active or report is None:
            return [Status("motion", OK, "not active: nothing is commanded")]
        level = OK
        if report.state == GateState.LATCHED or self._other_publisher:
            level = ERROR
        elif report.state in (GateState.STOPPING, GateState.INACTIVE) or problem:
            level = WARN
        values = {
            "state": report.state.name,
            "code": int(report.code),
            "following_error": report.following_error,
            "latent_age_ms": report.latent_age_ms,
            "joint_age_ms": report.joint_age_ms,
            "clipped": report.clipped,
            "rejected": report.rejected,
            "last_rejection": report.last_rejection,
            "stops": report.stops,
            "scheduling": self._scheduling,
            "rate_hz": self._ticks.rate(),
            "tick_us": self._busy * 1e6,
        }
        if len(intervals):  # from one tick to the next, over ten seconds
            values["jitter_p99_ms"] = 1e3 * float(np.percentile(np.abs(intervals - 1.0 / self.p.rate), 99))
        if reactions:  # from the receipt of a plan to its first window, over the last thousand plans
            values |= {f"plan_to_window_p{p}_ms": float(np.percentile(reactions, p)) for p in (50, 99)}
        return [Status("motion", level, (problem or report).text, values)]
