"""The motion gate: the only way from a plan to a motor. Pure: no ROS, no threads, every time is given by the caller.

Invariant: every window that is output ends at rest and was checked whole against position, velocity, acceleration and
jerk limits and for collisions. A new window replaces the old one only if it passes and continues its curve in position,
velocity and acceleration; otherwise the old one stays in force and ends at rest. So whatever fails, this program
included, the arm comes to a stop.

Transitions:

    from        to          when
    INACTIVE    HOLDING     healthy joint states: what the controllers hold becomes the reference, as far as known,
                            otherwise the measured position (with a latch: LATCHED)
    HOLDING     TRACKING    a plan is accepted
    HOLDING     LATCHED     stop_and_latch, e-stop, gross breach
    HOLDING     INACTIVE    the clock went back (LATCHED as well; the latch is kept)
    TRACKING    HOLDING     the plan's end is reached
    TRACKING    STOPPING    an input is stale or invalid, the plan or the planner times out, something comes too close,
                            no further window keeps the limits, stop_and_hold, the speed scale is lowered, the clock
                            went back; the controllers do not follow (then nothing more is sent: what was sent ends at
                            rest); with a latch: following error, stop_and_latch, e-stop, gross breach
    STOPPING    HOLDING     at rest without a latch (INACTIVE where the clock went back in between)
    STOPPING    LATCHED     at rest with a latch
    LATCHED     HOLDING     release: the reference is found anew, as from INACTIVE
    any         INACTIVE    reset; a pressed e-stop stays a latch
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.controller_watch import SAME_SETPOINT, ControllerReport
from jepa_ros.robot.gate.input_health import Inputs, JointMessage
from jepa_ros.robot.gate.plan_checks import PlanValidator
from jepa_ros.robot.gate.setpoints import SetpointStream
from jepa_ros.robot.gate.ticks import Clock, ControlTicks
from jepa_ros.robot.gate.types import (
    NO_CAUSE,
    Cause,
    GateCode,
    GateOutput,
    GateReport,
    GateSettings,
    GateState,
    PlanRejected,
    PlanVerdict,
    Track,
    Window,
)
from jepa_ros.robot.gate.windows import WindowMaker
from jepa_ros.robot.motion.angles import difference
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

MOVING = (GateState.TRACKING, GateState.STOPPING)
# A stop is sent again, as a subscription that keeps only the newest window may lose one. Not later: a controller that
# has missed it has gone on, and would step back.
REPEATS, REPEAT_AFTER = 2, 0.015  # s
CONTROLLER_CODES = (GateCode.CONTROLLER_INACTIVE, GateCode.CONTROLLER_SILENT, GateCode.CONTROLLER_SLOWED)
SMALL_SAG = 5e-3  # rad, that a check for collisions need not tell
PAST = 64  # references, of the last 0.3 s
DISTANCE_TOLERANCE = 0.002  # m below the margin that rounding and coarse sampling of a checked path may give


class Gate:
    """The gate of one arm. Call `tick` at 100 to 200 Hz, and the inputs as messages arrive; times in s on one clock.

    executed: maps the reference (J,) rad at start and end of a control tick to a value (A,) in the action space.
    clearance: what the arm is kept out of, for the same joints; None: no check. streaming: the controllers take single
    set-points (`setpoints`) instead of windows.
    """

    _path: Path  # in force: position, velocity and acceleration of the reference over time
    _has_reference: bool  # False until joint states say where the arm is; then `_path` means nothing
    _track: Track | None  # the plan that the path was cut from; None unless TRACKING
    _leaves_at: float  # s, when the path leaves the plan for its stop; inf: it does not
    _next_roll: float  # s, when the next window of the plan is due
    _reference: np.ndarray  # (3, J), of the last tick
    _distance: float  # m, last measured to what the arm is kept out of
    _distance_checked: float  # s, when that was
    _others_updated: float  # s, when the rest of the robot was last moved in the clearance
    _window_due: bool  # the path in force has not been sent yet
    _clock_changed: bool  # the clock went back in motion
    _ticked: float  # s, when the gate last ran
    _approaches: bool  # STOPPING, and the set-point is moved to the arm
    _repeats: int  # how often the stop is still to be sent
    _abandoned: bool  # STOPPING, and nothing more is sent: the controllers do not follow
    _ends_by: float  # s, when what an abandoned motion was sent is over
    _past: deque[tuple[float, np.ndarray]]  # times and positions of the last references, since they were continuous
    _sent_any: bool  # a window or set-point has been sent: the controllers hold the end of the path
    _must_anchor: bool  # the controllers may hold something else than the reference
    _sag: np.ndarray  # (J,) rad, reference minus measured position at rest: the arm sags under its weight
    _sag_known: bool  # measured since the arm came to rest

    def __init__(
        self,
        limits: JointLimits,
        settings: GateSettings | None = None,
        executed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        clearance: Clearance | None = None,
        streaming: bool = False,
    ):
        self.settings = s = settings or GateSettings()
        self._unscaled, self._clearance = limits, clearance
        self.speed_scale = s.speed_scale
        self._apply_speed_scale()
        self._ticks = ControlTicks(s.control_period, executed)
        # Checked with the unscaled limits: a person may move the arm faster than the gate would.
        self._inputs = Inputs(limits, s)
        self.setpoints = SetpointStream(limits, s.gap_max) if streaming else None
        self.reset()

    def reset(self) -> None:
        """Forget everything but the e-stop: INACTIVE until healthy joint states are received."""
        self.clipped = self.rejected = self.stops = 0
        self.last_rejection = NO_CAUSE
        self.state = GateState.INACTIVE
        self._clock = Clock(self.settings.control_period)
        self._reason = NO_CAUSE  # of the last stop
        self._latch = Cause(GateCode.E_STOP, "e-stop") if self._inputs.enable.e_stop_pressed else NO_CAUSE
        self._clear(0.0)

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def update_joint_states(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float] | None,
        stamp: float,
        now: float,
    ) -> None:
        """Record measured positions, rad, and velocities, rad/s (empty or None: unknown), by joint name. stamp: s."""
        t = self._read_clock(now)
        message = JointMessage(tuple(names), positions, velocities, stamp - self._clock.epoch)
        self._inputs.update_joint_states(message, t, self._path if self._has_reference else None, self._reference)
        if self._clearance and t - self._others_updated >= self.settings.roll_period:
            self._others_updated = t
            self._clearance.update_other_joints(names, positions)

    def update_controller(self, report: ControllerReport, now: float) -> None:
        """Record the state that a controller reports; its stamp in s on the caller's clock."""
        t = self._read_clock(now)
        self._inputs.controllers.receive(report._replace(stamp=report.stamp - self._clock.epoch), t)

    def update_activity(self, inactive: Mapping[str, str] | None, now: float) -> None:
        """Record which controllers are not active, by name, with the state that they are in; empty: all are. None:
        their activity is not published any more."""
        t = self._update_clock(now)
        self._inputs.controllers.update_activity(inactive)
        if inactive:  # not a tick later: it may be active again by then
            self._must_anchor = True
            self._check_inputs(t)

    def record_latent(self, stamp: float, now: float) -> None:
        """Record that a latent was received, with the stamp of its frame (s); only its age matters."""
        t = self._read_clock(now)
        self._inputs.latent.receive(stamp - self._clock.epoch, t)

    def record_planner_alive(self, now: float) -> None:
        """Record a sign of life of the planner; a plan is one, too."""
        self._planner_received = self._read_clock(now)

    def update_e_stop(self, pressed: bool, now: float) -> None:
        """Record the state of the e-stop. Pressed: the arm stops and the gate latches; unpressed: `release` works."""
        t, was_pressed = self._read_clock(now), self._inputs.enable.e_stop_pressed
        self._inputs.enable.receive_e_stop(bool(pressed), t)
        if pressed and not was_pressed:
            self.stop_and_latch(Cause(GateCode.E_STOP, "e-stop"), now)

    def report_e_stop_absent(self) -> None:
        """Record that nothing publishes the e-stop; the arm stops if the settings require one."""
        self._inputs.enable.lose_e_stop()

    def update_deadman(self, held: bool, now: float) -> None:
        """Record the state of the dead-man switch."""
        self._inputs.enable.receive_deadman(bool(held), self._read_clock(now))

    def submit_plan(
        self,
        trajectory: JointTrajectory,
        start: float,
        source_stamp: float,
        valid_until: float,
        plan_id: int,
        now: float,
    ) -> PlanVerdict:
        """Check a plan and follow it if it is accepted.

        Its time 0 is `start` (s; the hand-over). It was planned from the frame of `source_stamp` and is not followed
        beyond `valid_until`. It needs positions, velocities and accelerations, and must end at rest. Never raises for a
        bad plan: it is rejected whole and counted, and the verdict has the cause.
        """
        t = self._planner_received = self._update_clock(now)
        self._check_inputs(t)
        try:
            return self._accept(trajectory, start, source_stamp, valid_until, plan_id, t)
        except PlanRejected as error:
            cause = error.cause
            if cause.code == GateCode.PLAN_GROSS_BREACH and self.settings.latch_on_gross:
                self._begin_stop(cause, t, latch=True)
            return self.reject_plan(cause)
        except InputError as error:
            return self.reject_plan(Cause(GateCode.PLAN_INVALID, str(error)))

    def reject_plan(self, cause: Cause) -> PlanVerdict:
        """Count a plan as rejected, for instance one that could not be read."""
        self.rejected += 1
        self.last_rejection = cause
        return PlanVerdict(False, cause.text, cause=cause)

    def stop_and_latch(self, cause: Cause, now: float) -> None:
        """Stop smoothly and stay LATCHED until `release`."""
        t = self._update_clock(now)
        self._begin_stop(cause, t, latch=True)

    def stop_and_hold(self, cause: Cause, now: float) -> None:
        """Stop smoothly, then hold; a new plan is accepted once inputs have been healthy for `resume_after` again."""
        t = self._update_clock(now)
        self._begin_stop(cause, t)
        self._inputs.healthy_since = math.inf

    def set_speed_scale(self, scale: float, now: float) -> None:
        """Set the maximum joint velocity, 0.01 to 1 as a share of the limits.

        Lowered in motion, the arm stops first, and the scale applies from rest on.
        """
        t = self._update_clock(now)
        lowered, self.speed_scale = scale < self.speed_scale, scale
        if lowered and self.state == GateState.TRACKING:
            cause = Cause(GateCode.SPEED_SCALE_LOWERED, f"the speed scale was lowered to {scale:.2f}")
            self._begin_stop(cause, t)
        if self.state != GateState.STOPPING:
            self._apply_speed_scale()

    def release(self, now: float) -> Cause:
        """Undo a latch; what the controllers hold becomes the reference, or else the measured position.

        Returns the cause for which the latch stays, or a cause with code NONE whose text says what was released.
        """
        t = self._update_clock(now)
        self._advance(t)
        if not self._latch:
            return Cause(text="was not latched")
        if self._inputs.enable.e_stop_pressed:
            return Cause(GateCode.E_STOP, "the e-stop is still pressed")
        if self.state != GateState.LATCHED:
            return Cause(GateCode.ARM_MOVING, "the arm is still stopping")
        if cause := self._inputs.check_release(t):
            return cause
        if (measured := self.measured_positions) is None:
            return Cause(GateCode.NO_JOINT_STATES, "no joint_states yet")
        released = Cause(text=f"released after: {self._latch.text}")
        self._latch = self._reason = NO_CAUSE
        self._anchor(measured, t)
        if self.state == GateState.HOLDING:
            self._send_hold(t)
        self._inputs.healthy_since = t
        return released

    # ---- output ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> GateOutput:
        """Return the reference at `now`, a window where one is due, completed control ticks, and the status."""
        t = self._update_clock(now)
        self._check_held_up(t)
        self._check_inputs(t)
        self._advance(t)
        if self._has_reference:
            self._reference = self._path.at(t)
            self._past.append((t, self._reference[0]))
        self._check_distance(t)
        window, self._window_due = self._make_window() if self._window_due else None, False
        reference = self._reference if self._has_reference else None
        return GateOutput(reference, window, self._ticks.take(), self._report(t))

    def next_setpoint(self, now: float, period: float) -> np.ndarray | None:
        """Return the set-point (J,) rad for the controllers' cycle at `now`; None where nothing is to be sent.

        period: s, of their cycles. Only for a streaming gate. May be called by another thread than the rest.
        """
        return self.setpoints.next(now - self._clock.epoch, period) if self.setpoints else None

    @property
    def stop_is_confirmed(self) -> bool | None:
        """True where the controllers report that they hold the end of the last window; None without reports."""
        controllers, t = self._inputs.controllers, self._clock.time
        return controllers.confirms(self._path.at(t)[0], t) if controllers.reports else None

    @property
    def measured_positions(self) -> np.ndarray | None:
        """(J,) rad, the newest plausible positions of the joints."""
        return self._inputs.joints.positions

    @property
    def latch(self) -> Cause:
        """The cause of the latch, also while the arm is still stopping for it; NO_CAUSE without one."""
        return self._latch

    def time_to_rest(self) -> float:
        """Return the time in s from the last call until the path ends at rest; 0 where nothing moves."""
        return max(self._path.end - self._clock.time, 0.0) if self.state in MOVING else 0.0

    def _report(self, t: float) -> GateReport:
        track, cause = self._track, self._state_cause()
        return GateReport(
            state=self.state,
            code=cause.code,
            text=cause.text,
            speed_scale=self.speed_scale,
            latent_age_ms=1e3 * self._inputs.latent.age(t),
            plan_age_ms=1e3 * (t - track.source_stamp) if track else math.nan,
            joint_age_ms=1e3 * self._inputs.joints.heartbeat.age(t),
            following_error=self._inputs.following_error,
            min_distance=self._distance,
            clipped=self.clipped,
            rejected=self.rejected,
            stops=self.stops,
            plan_id=track.plan_id if track else 0,
            rejection_code=self.last_rejection.code,
            last_rejection=self.last_rejection.text,
        )

    def _state_cause(self) -> Cause:
        """Return why the gate is in its state."""
        if self._track:
            return Cause(text=f"following plan {self._track.plan_id}")
        waiting = self._inputs.fault or self._reason
        match self.state:
            case GateState.STOPPING:
                return _prefixed("stopping", self._latch or self._reason)
            case GateState.LATCHED:
                return _prefixed("latched", self._latch)
            case GateState.INACTIVE:
                return _prefixed("waiting", waiting or Cause(GateCode.NO_JOINT_STATES, "no joint_states yet"))
        return _prefixed("holding", waiting or Cause(text="no plan"))

    def _make_window(self) -> Window:
        self._sent_any = True
        path = self._path
        q, qd, qdd = path.states.transpose(1, 0, 2)
        trajectory = JointTrajectory(self.limits.names, path.times - path.start, q, qd, qdd)
        return Window(self._clock.epoch + path.start, trajectory)

    # ---- plans -----------------------------------------------------------------------------------------------------

    def _accept(
        self, trajectory: JointTrajectory, start: float, source_stamp: float, valid_until: float, plan_id: int, t: float
    ) -> PlanVerdict:
        """Check a plan and make it the one in force. Raises PlanRejected."""
        epoch, validator = self._clock.epoch, self._validator
        if cause := self._plan_block_cause(t):
            raise PlanRejected(cause.code, f"plan rejected: {cause.text}")
        start, source, until = start - epoch, source_stamp - epoch, valid_until - epoch
        handover = validator.check_times(trajectory, start, source, until, t)
        if self._track and source < self._track.source_stamp - 1e-6:
            text = "plan was made from an older frame than the plan in force"
            raise PlanRejected(GateCode.PLAN_OUT_OF_ORDER, text)
        self._start_where_the_arm_is(trajectory, t)
        plan = validator.read(trajectory, start, self._path.at(t)[0])
        current = self._track.path if self._track else self._path
        plan, sag = self._compensate_sag(plan, current)
        plan, follow_until, changed = validator.fit(plan)
        if self._track and handover > self._track.follow_until:
            text = "plan cannot be joined: the plan in force leaves the limits before the hand-over"
            raise PlanRejected(GateCode.PLAN_NOT_JOINABLE, text)
        path, joined, error = validator.join(current, plan, t, handover)
        validator.check_collision(path)
        if sag is not None and np.abs(sag).max() > SMALL_SAG:  # the arm is not where it is commanded
            validator.check_collision(path.moved(-sag))
        track = Track(path, joined, plan_id, source, until, t, follow_until)
        window = self._windows.extend(track, t, -math.inf)
        if window is None:
            text = "plan rejected: no stop within the limits from where it leads"
            raise PlanRejected(GateCode.PLAN_NO_STOP, text)
        if self.state != GateState.TRACKING:
            self._inputs.start_motion(t, self._path.at(t))
        self._track, self.state, self._reason = track, GateState.TRACKING, NO_CAUSE
        self._ticks.set_plan(plan_id, joined)
        self._commit(*window, t)
        self.clipped += bool(changed)
        return PlanVerdict(True, changed, bool(changed), error)

    def _plan_block_cause(self, t: float) -> Cause:
        """Return why no plan is accepted now, or NO_CAUSE."""
        inputs, needed = self._inputs, self.settings.resume_after
        if self.state in (GateState.INACTIVE, GateState.LATCHED, GateState.STOPPING):
            return self._state_cause()
        if inputs.fault:
            return inputs.fault
        healthy = t - inputs.healthy_since
        if self.state == GateState.HOLDING and healthy < needed - 1e-6:
            text = f"inputs have been healthy for {healthy:.2f} s of {needed:.2f} s"
            return Cause(GateCode.INPUTS_RECOVERING, text)
        return NO_CAUSE

    def _start_where_the_arm_is(self, trajectory: JointTrajectory, t: float) -> None:
        """Find the reference anew where the controllers hold something else: the arm was moved by hand or by another
        program, or a stop was not followed. Raises PlanRejected where the arm moves or the plan starts elsewhere."""
        s, inputs, measured = self.settings, self._inputs, self.measured_positions
        if self.state != GateState.HOLDING or measured is None or set(trajectory.names) != set(self.limits.names):
            return
        if cause := inputs.controllers.check_sag(t, measured, self._rested):
            raise PlanRejected(cause.code, f"plan rejected: {cause.text}")
        held = inputs.controllers.find_setpoint(t, measured, self._rested)
        if held is not None:
            off = float(np.abs(difference(held, self._reference[0], self.limits.continuous)).max())
            displaced = off > SAME_SETPOINT
        else:
            off = float(np.abs(inputs.offset - self._sag).max())
            displaced = off > s.hold_tolerance
        if not displaced:
            return
        if t - self._rested < s.anchor_after or inputs.joints.speed > s.rest_speed:
            text = f"plan rejected: the arm is {off:.2f} rad from where it is held"
            raise PlanRejected(GateCode.ARM_DISPLACED, text)
        first = trajectory.positions[0, [trajectory.names.index(n) for n in self.limits.names]]
        distance = np.abs(difference(first, measured, self.limits.continuous)).max()
        if distance > s.start_tolerance:
            text = f"plan starts {distance:.3f} rad from the measured position, more than {s.start_tolerance:g}"
            raise PlanRejected(GateCode.PLAN_STARTS_ELSEWHERE, text)
        self._must_anchor = True
        self._anchor(measured, t)
        if self.state != GateState.HOLDING:
            raise PlanRejected(GateCode.ARM_DISPLACED, "plan rejected: the arm is moved to where it was found")

    def _compensate_sag(self, plan: Path, current: Path) -> tuple[Path, np.ndarray | None]:
        """Return a plan that starts where the arm was measured, moved by the sag of the arm, and this sag.

        Otherwise the arm would sink by its sag at every plan. A plan from the reference stays as it is (None).
        """
        at = max(plan.start, current.start)
        error = plan.at(at)[0] - current.at(at)[0]
        if np.abs(error + self._sag).max() >= np.abs(error).max():
            return plan, None
        return plan.moved(self._sag), self._sag

    # ---- supervision -----------------------------------------------------------------------------------------------

    def _check_inputs(self, t: float) -> None:
        """Check the inputs; begin a stop where one is needed."""
        inputs, s = self._inputs, self.settings
        cause, measured = inputs.update(t), self.measured_positions
        if self.state == GateState.INACTIVE and not inputs.joint_fault and measured is not None:
            self._anchor(measured, t)
        if self.state not in MOVING:
            self._watch_rest(t)
            return
        lost = inputs.controller_fault
        if not lost and self._past:
            lost = inputs.controllers.find_deviation(self._past, t)
        if lost and not self._abandoned:
            self._abandon(lost, t)
        if self._abandoned:
            return
        if inputs.following_error > s.following_error and not self._latch and not self._approaches:
            text = f"following error {inputs.following_error:.2f} rad, limit {s.following_error:.2f}"
            self._begin_stop(Cause(GateCode.FOLLOWING_ERROR, text), t, latch=True)
        if self._track is None:
            return
        if not cause and t > self._track.valid_until:
            cause = Cause(GateCode.PLAN_EXPIRED, "plan expired and no newer one was received")
        if not cause and t - self._track.received > s.plan_timeout:
            cause = Cause(GateCode.PLAN_TIMEOUT, f"no new plan for {s.plan_timeout:.2f} s")
        if not cause and t - self._planner_received > s.planner_timeout:
            cause = Cause(GateCode.PLANNER_SILENT, f"no sign of life from the planner for {s.planner_timeout:.2f} s")
        cause = cause or inputs.check_frozen(t, self._reference)
        if cause:
            self._begin_stop(cause, t)

    def _check_held_up(self, t: float) -> None:
        """Stop where the gate itself did not run for a while, of which nothing else may tell."""
        s, gap, self._ticked = self.settings, t - self._ticked, t
        stream = self.setpoints
        # Windows go on for the horizon, and the reference with them; a streamed arm stands at the last set-point.
        if self.state not in MOVING or not (gap > (s.gap_max if stream else s.horizon) or (stream and stream.held_up)):
            return
        cause = Cause(GateCode.GATE_HELD_UP, f"the gate did not run for {max(gap, s.gap_max):.2f} s")
        self._inputs.healthy_since = math.inf
        if stream is None:
            self._begin_stop(cause, t)
        elif stream.sent is not None:
            self._stand(stream.sent, cause, t)

    def _watch_rest(self, t: float) -> None:
        """Find the reference anew once the controllers follow again; measure the sag once the arm has come to rest."""
        s, inputs, measured = self.settings, self._inputs, self.measured_positions
        if self.state != GateState.HOLDING or measured is None or inputs.joint_fault or inputs.controller_fault:
            return
        if self._reason.code in CONTROLLER_CODES:
            self._reason = NO_CAUSE  # it is over: goals are welcome again
        if self._must_anchor and inputs.joints.moving_speed <= s.rest_speed:
            self._anchor(measured, t)
        if not self._sag_known and t - self._rested >= s.anchor_after:
            self._sag_known = True
            small = np.abs(inputs.offset).max() <= s.sag_max
            self._sag = inputs.offset if small else np.zeros_like(self._sag)

    def _check_distance(self, t: float) -> None:
        """Measure the distance to what the arm is kept out of, as often as windows are made.

        The paths themselves were checked whole; this is for the rest of the robot, which may have moved since.
        """
        if self._clearance is None or not self._has_reference:
            return
        if t - self._distance_checked < self.settings.roll_period:
            return
        before, measured, self._distance_checked = self._distance, self.measured_positions, t
        moving, margin = self.state in MOVING, self._clearance.margin
        self._distance = self._clearance.distance(self._reference[0] if moving or measured is None else measured)
        closer = self._distance < margin - DISTANCE_TOLERANCE and self._distance < before
        if closer and self.state == GateState.TRACKING:
            text = f"distance to the nearest obstacle or link is {self._distance:.3f} m, the margin is {margin:.3f} m"
            self._begin_stop(Cause(GateCode.TOO_CLOSE, text), t)

    # ---- motion ----------------------------------------------------------------------------------------------------

    def _advance(self, t: float) -> None:
        """Bring the state up to t: the end of a motion, the next window."""
        if self._track is not None:
            if t >= self._leaves_at:
                cause = Cause(GateCode.LIMITS_REACHED, "no further window of the plan keeps the limits")
                self._begin_stop(cause, t)
            elif self._leaves_at == math.inf and t >= self._path.end:
                self._end_motion(GateState.HOLDING, t)
            elif self._leaves_at < math.inf and t >= self._next_roll:
                self._next_roll = t + self.settings.roll_period
                window = self._windows.extend(self._track, t, self._leaves_at)
                if window is not None:
                    self._commit(*window, t)
        if self.state != GateState.STOPPING:
            return
        inputs = self._inputs
        if self._abandoned:
            waits = t < self._ends_by or inputs.controllers.is_moving(t)
            waits = waits or (inputs.joints.moving_speed > self.settings.rest_speed and not inputs.joint_fault)
        else:
            waits = t < self._path.end
            if waits and self._repeats > 0 and t >= self._next_roll:
                self._commit(self._path.between(t, self._path.end), math.inf, t)
                self._repeats, self._next_roll = self._repeats - 1, t + REPEAT_AFTER
        if waits:
            return
        abandoned, measured = self._abandoned, self.measured_positions
        self._end_motion(GateState.LATCHED if self._latch else GateState.HOLDING, t)
        if abandoned and measured is not None and inputs.controllers.find_setpoint(t, measured) is not None:
            self._anchor(measured, t)  # what is left of a window must not move the arm when a pause ends
            self._send_hold(t)

    def _begin_stop(self, cause: Cause, t: float, latch: bool = False) -> None:
        """Leave the plan for a stop; at rest this only latches."""
        if latch and not self._latch:
            self._latch = cause
        elif self.state != GateState.TRACKING:
            return
        self.stops += 1
        if self.state == GateState.TRACKING:
            self._reason, self._track, self.state = cause, None, GateState.STOPPING
            self._ticks.set_plan(0, t)
            window = self._windows.stop(self._path, t, self._leaves_at)
            if window is not None:  # otherwise the window in force goes on, and ends at rest
                self._commit(window, math.inf, t)
                self._repeats, self._next_roll = REPEATS, t + REPEAT_AFTER
        elif self.state == GateState.HOLDING:
            self.state = GateState.LATCHED

    def _abandon(self, cause: Cause, t: float) -> None:
        """Send nothing more, as the controllers do not follow: what they were sent ends at rest. The reference is the
        measured position from now on, so that nothing is followed in thought."""
        if self.state == GateState.TRACKING:
            self.stops += 1
            self._reason = cause
        self._ends_by = self._path.end
        self._track, self.state, self._abandoned, self._must_anchor = None, GateState.STOPPING, True, True
        measured = self.measured_positions
        self._path = Path.rest(self._reference[0] if measured is None else measured, t)
        self._leaves_at, self._window_due = math.inf, False
        self._ticks.restart(t)
        self._past.clear()
        if self.setpoints:
            self.setpoints.hold()

    def _stand(self, q: np.ndarray, cause: Cause, t: float) -> None:
        """Hold q (J,) rad, where the controllers already stand."""
        self.stops += 1
        self._reason, self._path, self._window_due = cause, Path.rest(q, t), False
        self._ticks.restart(t)
        self._past.clear()
        self._end_motion(GateState.LATCHED if self._latch else GateState.HOLDING, t)

    def _commit(self, path: Path, leaves_at: float, t: float) -> None:
        """Make a checked path the one in force."""
        self._path, self._leaves_at, self._window_due = path, leaves_at, True
        if self.setpoints:
            self.setpoints.follow(path, t)
        self._next_roll = t + self.settings.roll_period

    def _end_motion(self, state: GateState, t: float) -> None:
        if self._track:
            self._ticks.set_plan(0, t)
        self._track, self.state, self._rested = None, state, t
        self._abandoned = self._approaches = self._sag_known = False
        if self._scale_applied != self.speed_scale:
            self._apply_speed_scale()
        if self._clock_changed:  # in motion: the joints must be measured again before the arm holds
            self._clock_changed = False
            if state == GateState.HOLDING:
                self.state = GateState.INACTIVE

    def _anchor(self, measured: np.ndarray, t: float) -> None:
        """Find the reference anew, at rest: what the controllers hold, as far as it is known; otherwise the measured
        position (J,) rad. Where the arm is too far from what they hold, they are moved to the arm first."""
        held = self._find_held(measured, t)
        self._path, self._has_reference = Path.rest(measured if held is None else held, t), True
        self._inputs.offset = difference(self._path.at(t)[0], measured, self.limits.continuous)
        self._inputs.following_error, self._rested = float(np.abs(self._inputs.offset).max()), t
        self.state = GateState.LATCHED if self._latch else GateState.HOLDING
        self._must_anchor = self._sag_known = False
        self._ticks.restart(t)
        self._past.clear()
        if held is None and self.setpoints:
            self.setpoints.forget()
        if self._inputs.following_error > self.settings.sag_max:
            self._move_to(measured, t)
        elif held is not None:
            self._sag = self._inputs.offset
        self._reference = self._path.at(t)

    def _send_hold(self, t: float) -> None:
        """Send a window that stays where the path rests."""
        self._path, self._window_due = self._path.between(t, t + self.settings.roll_period), True

    def _find_held(self, measured: np.ndarray, t: float) -> np.ndarray | None:
        """Return the set-point (J,) rad that the controllers hold; None where it is not known.

        Without reports they are taken to hold the end of what they were sent, if the arm is there. Otherwise they may
        have been switched off and on, and hold the arm where it is.
        """
        controllers, s = self._inputs.controllers, self.settings
        reported = controllers.find_setpoint(t, measured)
        if reported is not None or self._must_anchor or not (self._has_reference and self._sent_any):
            return reported
        end = self._path.at(t)[0]
        near = np.abs(difference(end, measured, self.limits.continuous)).max() <= s.sag_max
        return end if near or controllers.confirms(end, t) else None

    def _move_to(self, measured: np.ndarray, t: float) -> None:
        """Move the set-point to the measured position, at a rate within the limits: the arm was blocked or moved."""
        move = self._windows.move(self._path.at(t), measured, t)
        if move is None:
            return
        self._reason = Cause(text="the controllers are moved to where the arm is")
        self.state, self._repeats, self._approaches = GateState.STOPPING, 0, True
        self._commit(move, math.inf, t)

    def _apply_speed_scale(self) -> None:
        self.limits, self._scale_applied = self._unscaled.scaled(self.speed_scale), self.speed_scale
        self._validator = PlanValidator(self.limits, self._unscaled, self.settings, self._clearance)
        self._windows = WindowMaker(self.limits, self.settings, self._clearance)

    # ---- clock -----------------------------------------------------------------------------------------------------

    def _read_clock(self, now: float) -> float:
        """Return `now` in s on the gate's clock; restart where the caller's clock went back."""
        state = self._path.at(self._clock.time) if self.state in MOVING else None
        t, went_back = self._clock.read(now)
        if went_back:
            self._restart(state, t)
        return t

    def _restart(self, state: np.ndarray | None, t: float) -> None:
        """Begin a new epoch of the clock. state: (3, J) that a motion had reached; None at rest."""
        self._clear(t)
        self._reason = Cause(GateCode.CLOCK_WENT_BACK, "the clock went back")
        if state is None:
            self.state = GateState.INACTIVE
            return
        # The windows sent are invalid on the new clock: stop from the state they had reached.
        stop = self._windows.stop_from(state, t)
        self._path, self._has_reference = stop if stop is not None else Path.rest(state[0], t), True
        self._reference, self.state, self._clock_changed = state, GateState.STOPPING, True
        self._commit(self._path, math.inf, t)
        self.stops += 1

    def _clear(self, t: float) -> None:
        """Forget everything that was received or computed on the clock so far."""
        self._inputs.clear(t)
        self._path, self._has_reference = Path.rest(np.zeros(len(self.limits.names)), t), False
        self._track = None
        self._reference = np.zeros((3, len(self.limits.names)))
        self._leaves_at = math.inf
        self._next_roll = self._rested = t
        self._clock_changed = self._window_due = self._abandoned = self._approaches = False
        self._sent_any = self._sag_known = False
        self._must_anchor, self._sag, self._ticked = True, np.zeros(len(self.limits.names)), t
        self._ends_by, self._repeats = t, 0
        self._past = deque(maxlen=PAST)
        if self.setpoints:
            self.setpoints.forget()
        self._distance = math.nan
        self._others_updated = self._distance_checked = self._planner_received = -math.inf
        self._ticks.restart(t)

    def _update_clock(self, now: float) -> float:
        """Read the clock and record the control ticks completed by now, before anything changes the path."""
        t = self._read_clock(now)
        if self.state != GateState.INACTIVE:
            self._ticks.collect(self._path, t, self._clock.epoch)
        return t


def _prefixed(state: str, cause: Cause) -> Cause:
    return Cause(cause.code, f"{state}: {cause.text}")
