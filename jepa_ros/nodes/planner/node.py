"""Node planner. In: latent, joint_states, robot_description, executed, gate_status. Out: plan, planner_status,
imagined_path, goal_image. Action: reach_goal.

The search runs in a worker thread that owns torch; the executor's thread only receives messages. There is one goal at a
time: a new one replaces the old one, which is aborted with the code REPLACED.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import Action, GateStatus, GoalTerm, LatentState, Plan, PlannerStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header, String
from visualization_msgs.msg import Marker, MarkerArray

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import float32_array, stamp_of_seconds, to_duration, to_seconds, trajectory_message
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode, NotReady
from jepa_ros.nodes.common.qos import EXECUTED, LATCHED, NEWEST, RELIABLE, SENSOR
from jepa_ros.nodes.common.topics import LatestMessage, robot_topic
from jepa_ros.nodes.common.worker import Worker, describe_error, is_out_of_memory
from jepa_ros.nodes.planner.goals import ActiveGoal, InvalidGoal, read_goals
from jepa_ros.nodes.planner.health import PlannerHealth, describe_age
from jepa_ros.nodes.planner.parameters import PARAMETERS
from jepa_ros.planning.codes import NO_CAUSE, Cause, PlannerCode
from jepa_ros.world_model.proprioception import JointReader, make_reader

if TYPE_CHECKING:  # torch is loaded when the node is configured
    import torch

    from jepa_ros.planning.goal import Goal
    from jepa_ros.planning.receding_horizon import PlanStep

RESULT_TIMEOUT = 30  # s for which an ended goal's result is kept for late clients; rclpy's default is 900
CANCEL_GRACE_PERIOD = 0.5  # s after a deactivation in which the goal that it ended is answered
WATCH_PERIOD = 0.05  # s between two checks of timeouts and cancels
STATUS_PERIOD = 0.08  # s between two planner_status; arm_gate stops the arm when they cease
GATE_STATUS_WAIT = 0.3  # s that a goal which would be refused waits for the gate's next status
ADOPTION_TIME = 0.15  # s in which the gate takes a plan that was published
PERIOD_SLACK = 0.02  # s that a plan may come early, so that it is made from the frame at hand and not the one after
NOT_ACTIVE = Cause(text="not active")


class PlannerNode(JepaNode):
    """See the module. Publishers may be used from any thread; whatever touches torch runs in the worker's."""

    def __init__(self) -> None:
        super().__init__("planner", PARAMETERS)
        self._worker: Worker | None = None
        self._description = LatestMessage(self, String, robot_topic(self, "robot_description"))
        self._goal: ActiveGoal | None = None
        self._gate_waits: list[tuple[float, Future]] = []  # goals that wait for the gate's next status, and until when
        self._closing = None  # timer that removes the action server of a deactivated node
        self._plans = Meter()
        self._misses = self._infeasible = 0
        self._state, self._cause = PlannerStatus.INACTIVE, NOT_ACTIVE
        self._health = PlannerHealth()
        self._planned_at = -math.inf
        self._plan_ms = self._slack_ms = math.nan

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        if self._description.message is None:
            raise NotReady("no robot_description received yet")
        from jepa_ros.nodes.planner.controller import make_controller
        from jepa_ros.robot.config import load_robot

        self._robot, urdf = load_robot(self.p.robot), self._description.message.data
        self._checkpoint, self._control = make_controller(self.p, self._robot, urdf)
        self._reader = make_reader(self._checkpoint.config.proprioception, self._robot, urdf)
        self._arm = JointReader(self._robot.joints)
        self._plan = self.create_lifecycle_publisher(Plan, "plan", RELIABLE)
        self._path = self.create_lifecycle_publisher(MarkerArray, "imagined_path", NEWEST)
        self._status = self.create_lifecycle_publisher(PlannerStatus, "planner_status", RELIABLE)
        self._goal_image = self.create_lifecycle_publisher(Image, "goal_image", LATCHED)
        self._worker = Worker(self._on_failure, backlog=1)

    def activate(self) -> None:
        if self._closing is not None:
            self._close_action()
        self._inputs = [
            self.create_subscription(LatentState, "latent", self._on_latent, RELIABLE),
            self.create_subscription(JointState, robot_topic(self, "joint_states"), self._on_joint_states, SENSOR),
            self.create_subscription(Action, "executed", self._on_executed, EXECUTED),
            self.create_subscription(GateStatus, "gate_status", self._on_gate_status, NEWEST),
        ]
        self._action = ActionServer(
            self,
            ReachGoal,
            "reach_goal",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            result_timeout=RESULT_TIMEOUT,
        )
        self._set_state(PlannerStatus.IDLE, Cause(text="no goal"))
        self._watch = self.steady_timer(WATCH_PERIOD, self._on_watch)
        self._status_at = 0.0
        self._health.restart()

    def deactivate(self) -> None:
        self._end_gate_waits(math.inf)
        self._end_goal(PlannerCode.DEACTIVATED, "the planner was deactivated")
        self._set_state(PlannerStatus.INACTIVE, NOT_ACTIVE)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self.destroy_timer(self._watch)
        self._closing = self.steady_timer(CANCEL_GRACE_PERIOD, self._close_action)

    def _close_action(self) -> None:
        """Remove the action server, once the client of the goal under way has received its result."""
        self.destroy_timer(self._closing)
        self._closing = None
        self._action.destroy()

    def cleanup(self) -> None:
        self._closing = None  # the lifecycle destroys the timer
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def shutdown_motion(self) -> None:
        """End the goal; the gate stops the arm when no more plans come."""
        self._end_goal(PlannerCode.SHUT_DOWN, "the planner is shutting down")

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _on_latent(self, message: LatentState) -> None:
        import torch

        config, health = self._checkpoint.config, self._health
        if not health.check_latent(message, self._checkpoint.model_id, config.latent_shape, self.p.latent_timeout):
            self.error_throttled("latent", health.latent_fault.text)
            return
        latent = torch.from_numpy(np.array(message.data, np.float32)).reshape(config.latent_shape)
        self._worker.submit_latest(lambda: self._handle_latent(to_seconds(message.header.stamp), latent))

    def _on_joint_states(self, message: JointState) -> None:
        try:
            self._control.add_state(*self._reader.read(message), self._arm.read(message))
        except InputError as error:
            self.warn_throttled("joint_states", str(error))

    def _on_executed(self, message: Action) -> None:
        if len(message.values) == self._checkpoint.config.action.dimension and np.isfinite(message.values).all():
            self._control.add_executed(to_seconds(message.header.stamp), message.values)

    def _on_gate_status(self, message: GateStatus) -> None:
        self._health.receive_gate_status(message)
        self._end_gate_waits(math.inf)
        self._control.speed = min(1.0, max(0.01, message.speed_scale))

    # -- planning, in the worker's thread ------------------------------------------------------------------------------

    def _handle_latent(self, stamp: float, latent: torch.Tensor) -> None:
        """Add a latent (*L) with its frame's stamp (s), and plan where it is time to."""
        self._control.add_latent(stamp, latent)
        goal = self._goal
        if goal is None or not goal.ready or goal.ended:
            return
        now = self.now()
        if abs(now - stamp) > self.p.latent_timeout:  # such a frame does not prove that a goal is reached, either
            self._wait(PlannerCode.LATENT_STALE, describe_age(now - stamp))
            return
        if len(goal.stages) > 1 and self._control.is_within_tolerance:
            self._control.set_goal(goal.next_stage())
        elif self._control.is_reached:
            goal.finish(Cause(PlannerCode.REACHED, "within the tolerance"), self._control.distance)
            return
        if time.monotonic() - self._planned_at < self.p.period - PERIOD_SLACK:
            return
        if self._health.is_recovering(self.p.resume_after):
            text = f"until latents have been valid for {self.p.resume_after:g} s"
            self._wait(PlannerCode.INPUTS_RECOVERING, text)
            return
        step = self._search(now)
        if not hasattr(step, "trajectory"):
            self._infeasible += step.infeasible
            self._wait(step.code, step.text)
            return
        elapsed = self.now() - stamp
        if elapsed > self.p.latent_timeout + self.p.deadline:  # the process was paused, say; the gate would refuse it
            self._misses += 1
            self._control.drop_reference()
            self._wait(PlannerCode.PLAN_LATE, f"a plan was finished {elapsed - self.p.deadline:.2f} s too late")
        elif self._goal is goal and not goal.ended:
            self._publish_step(step, goal)

    def _search(self, now: float):
        """Return a PlanStep or NoPlan from the newest latent."""
        if self._gate_refuses():
            self._control.drop_reference()
        self._health.search_began = self._planned_at = time.monotonic()
        try:
            step = self._control.plan_step(now)
        finally:
            self._health.search_began = None
        self._health.search_fault = NO_CAUSE
        return step

    def _gate_refuses(self) -> bool:
        """Return whether the gate follows no plan although it had the time to take the last one."""
        gate = self._health.gate
        if not self._control.reference or time.monotonic() - self._planned_at < ADOPTION_TIME:
            return False
        return not self._health.gate_is_known or (gate.state != GateStatus.TRACKING and gate.plan_id == 0)

    def _stop_arm(self, goal_id: str) -> None:
        """Replace what is left of the last plan by a stop, once its goal has ended."""
        step = self._control.plan_stop(self.now())
        if step is not None:
            self._publish_plan(step, goal_id)

    def _on_failure(self, error: Exception) -> None:
        self._infeasible += 1
        fault = self._health.search_fault = Cause(code_of(error), f"planning: {describe_error(error)}")
        self.error_throttled("worker", fault.text)
        if self._goal is not None:
            self._wait(*fault)

    # -- the action ----------------------------------------------------------------------------------------------------

    def _on_goal(self, request) -> GoalResponse:
        # An invalid goal is accepted and then aborted: a result has a code and a reason, a rejection has not.
        return GoalResponse.ACCEPT if self.active else GoalResponse.REJECT

    async def _execute(self, handle):
        goal = ActiveGoal(handle, self.executor, self.p.goal_timeout)
        if refusal := await self._find_gate_refusal():  # the active goal continues
            goal.finish(refusal)
            if self._goal is None:
                self._set_state(PlannerStatus.FAILED, refusal)
            return goal.close()
        self._end_goal(PlannerCode.REPLACED, "replaced by a new goal")
        self._goal = goal
        try:
            goal.stages = await self._worker.submit(lambda: self._read_goals(goal.request), self.executor)
            if self._goal is goal and not goal.ended:
                self._publish_goal_images(goal.request)
                self._control.set_goal(goal.stages[0])
                self._planned_at, goal.ready = -math.inf, True
                self._wait(PlannerCode.WAITING_FOR_FRAME, "for the next frame")
        except Exception as error:  # out of memory as well: the goal ends, the node does not
            goal.finish(Cause(code_of(error), describe_error(error)))
        goal.drop_images()
        await goal.done
        if self._goal is goal:
            self._goal = None
            self._control.clear_goal()
            try:
                await self._worker.submit(lambda: self._stop_arm(goal.id), self.executor)
            except Exception as error:  # the plan under way ends at rest, if a little later
                self.error_throttled("stop", f"no stop was planned: {describe_error(error)}")
            done = PlannerStatus.REACHED if goal.reached else PlannerStatus.FAILED
            self._set_state(PlannerStatus.IDLE if goal.cancelled else done, goal.outcome)
        return goal.close()

    async def _find_gate_refusal(self) -> Cause:
        """Return why the gate lets no motion through, by a status that is newer than the goal.

        A client that calls `release` and then sends a goal must not be refused because of an older status.
        """
        if self._health.find_gate_refusal() and self._health.gate_is_known:
            wait = Future(executor=self.executor)
            self._gate_waits.append((time.monotonic() + GATE_STATUS_WAIT, wait))
            await wait
        return self._health.find_gate_refusal()

    def _end_gate_waits(self, now: float) -> None:
        """End the wait for a gate_status of the goals whose time is over at `now` (s on the steady clock)."""
        over = [wait for end, wait in self._gate_waits if end <= now]
        self._gate_waits = [(end, wait) for end, wait in self._gate_waits if end > now]
        for wait in over:
            wait.set_result(None)

    def _read_goals(self, request: ReachGoal.Goal) -> list[Goal]:
        return read_goals(request, self._checkpoint, self._control.goals, self._robot.base_frame)

    def _end_goal(self, code: PlannerCode, reason: str) -> None:
        if self._goal is not None:
            self._goal.finish(Cause(code, reason), self._control.distance)

    def _on_watch(self) -> None:
        """Check timeouts, cancels and missing inputs, whether frames are received or not; publish a status."""
        self._end_gate_waits(time.monotonic())
        goal, health = self._goal, self._health
        wanted = goal is not None and goal.ready and not goal.ended
        held = health.held_for(wanted)
        if wanted and (fault := health.find_fault(self.p.latent_timeout, self.p.deadline)):
            self._wait(*fault)
        if goal is not None and not goal.ended:
            cause = self._cause if self._state == PlannerStatus.WAITING else health.gate_cause
            goal.check(held, cause, self.p.hold_timeout, self._control.distance)
            if not goal.gate_checked:
                if refusal := health.find_gate_refusal():  # right after activation the gate's state was unknown
                    goal.finish(refusal)
                goal.gate_checked = health.gate_is_known
        if time.monotonic() - self._status_at > STATUS_PERIOD:
            self._publish_status()

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _wait(self, code: PlannerCode, text: str) -> None:
        self._set_state(PlannerStatus.WAITING, Cause(code, text))

    def _set_state(self, state: int, cause: Cause) -> None:
        changed = (state, cause) != (self._state, self._cause)
        self._state, self._cause = state, cause
        if changed:
            self._publish_status()
            self.diagnostics_changed()

    def _publish_step(self, step: PlanStep, goal: ActiveGoal) -> None:
        """Publish a plan, the action's feedback, the status, and the path that the model predicts."""
        motion = step.motion
        self._publish_plan(step, goal.id)
        elapsed = self.now() - step.source_stamp
        self._misses += elapsed > self.p.deadline or motion.iterations < 1
        self._plans.count()
        self._plan_ms, self._slack_ms = step.step_ms, 1e3 * (self.p.deadline - elapsed)
        goal.publish_feedback(motion.distance, motion.predicted_distance, step.plan_id)
        late = f", {-self._slack_ms:.0f} ms too late" if self._slack_ms < 0 else ""
        self._state, self._cause = PlannerStatus.PLANNING, Cause(text=f"plan {step.plan_id} towards the goal{late}")
        self._publish_status(step)
        self._publish_path(step)

    def _publish_plan(self, step: PlanStep, goal_id: str) -> None:
        message = Plan(plan_id=step.plan_id, goal_id=goal_id, model_id=self._checkpoint.model_id)
        message.header = self._header(step.start)
        message.source_stamp = stamp_of_seconds(step.source_stamp)
        message.valid_until = stamp_of_seconds(step.valid_until)
        message.trajectory = trajectory_message(step.trajectory)
        if step.motion is not None:
            message.action_blocks = float32_array(step.motion.actions)
            message.cost, message.predicted_distance = step.motion.cost, step.motion.predicted_distance
        self._plan.publish(message)

    def _publish_status(self, step: PlanStep | None = None) -> None:
        """Publish planner_status. step: the plan just made; without one its figures are NaN."""
        self._status_at = time.monotonic()
        message = PlannerStatus(state=self._state, code=self._cause.code, text=self._cause.text)
        message.header = self._header(self.now())
        message.deadline_ms = 1e3 * self.p.deadline
        message.misses, message.infeasible = self._misses, self._infeasible
        message.plan_id, message.distance = self._control.plan_id, self._control.distance
        message.plan_ms, message.slack_ms = self._plan_ms, self._slack_ms
        message.plan_age_ms = message.splice_error = message.predicted_distance = math.nan
        if step is not None:
            message.plan_age_ms = 1e3 * (step.start - step.source_stamp)
            message.splice_error = step.splice_error
            message.predicted_distance = step.motion.predicted_distance
            message.iterations, message.samples = step.motion.iterations, step.motion.samples
        self._status.publish(message)

    def _publish_path(self, step: PlanStep) -> None:
        """Publish where the model predicts the tool, model step by model step, in m in the base frame."""
        marker = Marker(ns="imagined_path", type=Marker.LINE_STRIP, action=Marker.ADD)
        marker.header = self._header(step.source_stamp)
        marker.scale.x, marker.lifetime = 0.008, to_duration(0.5)
        marker.color.r, marker.color.g, marker.color.b, marker.color.a = 0.1, 0.7, 1.0, 0.9
        marker.pose.orientation.w = 1.0
        marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in step.motion.tool]
        self._path.publish(MarkerArray(markers=[marker]))

    def _publish_goal_images(self, goal: ReachGoal.Goal) -> None:
        """Publish the goal's images, if any: recordings and displays cannot see an action's goal."""
        term = next((term for term in goal.terms if term.kind == GoalTerm.IMAGE), None)
        for image in term.images if term is not None else ():
            self._goal_image.publish(image)

    def _header(self, seconds: float) -> Header:
        return Header(stamp=stamp_of_seconds(seconds), frame_id=self._robot.base_frame)

    def diagnose(self) -> list[Status]:
        if not self.active:
            return [Status("planning", OK, "not active")]
        level = WARN if self._state in (PlannerStatus.WAITING, PlannerStatus.FAILED) else OK
        level = ERROR if level == WARN and (self._health.search_fault or self._health.latent_fault) else level
        values = {
            "plans": self._plans.total,
            "plans_hz": self._plans.rate(),
            "misses": self._misses,
            "infeasible": self._infeasible,
            "plan_ms": self._plan_ms,
            "slack_ms": self._slack_ms,
            "foreign_latents": self._health.foreign,
            "bad_latents": self._health.bad_latents,
        }
        return [Status("planning", level, self._cause.text, values)]


def code_of(error: Exception) -> PlannerCode:
    """Return the code of an error that ended a goal or a search."""
    if isinstance(error, InvalidGoal):
        return error.code
    return PlannerCode.OUT_OF_MEMORY if is_out_of_memory(error) else PlannerCode.PLANNING_FAILED
