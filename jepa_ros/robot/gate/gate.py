"""The motion gate: the only way from a plan to a motor. Pure: no ROS, no threads, every time is given by the caller.

Invariant: every window given out ends at rest and was checked whole against position, velocity, acceleration and jerk
limits, and against what the arm is kept out of; a new one replaces the old only if it passes and continues the old
one's curve in position, velocity and acceleration. Otherwise the old one stays in force, and its end is rest. So
whatever fails, this program included, the arm comes to a stop.

"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.input_health import Inputs
from jepa_ros.robot.gate.plan_checks import GrossBreach, PlanValidator
from jepa_ros.robot.gate.ticks import Clock, ControlTicks
from jepa_ros.robot.gate.types import (
    GateOutput,
    GateReport,
    GateSettings,
    GateState,
    PlanVerdict,
    Track,
    Window,
)
from jepa_ros.robot.gate.windows import WindowMaker
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

MOVING = (GateState.TRACKING, GateState.STOPPING)
NEARER = 0.002  # m below the margin that a path may seem to come by rounding and by how coarsely it was sampled


class Gate:
    """See the module. Call `tick` at 100 to 200 Hz, the inputs whenever there is something; times in s on one clock.

    executed: maps reference (J,) rad at start and end of a control tick to a value (A,) in the action space.
    clearance: of the same joints, what the arm is kept out of; None: nothing.
    """

    def __init__(
        self,
        limits: JointLimits,
        settings: GateSettings | None = None,
        executed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        clearance: Clearance | None = None,
    ):
        self.settings = s = settings or GateSettings()
        self._whole, self._clearance = limits, clearance
        self.speed_scale = s.speed_scale
        self._limit()
        self._ticks = ControlTicks(s.control_period, executed)
        # Judged by the limits as they are, not as scaled: a hand may move the arm faster than the gate would.
        self._inputs = Inputs(limits, s)
        self._e_stop = False
        self.reset()

    def reset(self) -> None:
        """Forget everything but an e-stop: INACTIVE until healthy joint states come."""
        self.clipped = self.rejected = self.stops = 0
        self.last_rejection = ""
        self.state = GateState.INACTIVE
        self._clock = Clock(self.settings.control_period)
        self._latch = self._reason = ""
        self._forget(0.0)

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def update_joint_states(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float] | None,
        stamp: float,
        now: float,
    ) -> None:
        """Measured positions in rad (velocities in rad/s, empty or None where unknown) by joint name, stamp in s."""
        t = self._time(now)
        stamp -= self._clock.epoch
        self._inputs.joint_states(names, positions, velocities, stamp, t, self._path, self._reference)
        if self._clearance and t - self._placed >= self.settings.roll_period:
            self._placed = t
            self._clearance.follow(names, positions)

    def record_latent(self, stamp: float, now: float) -> None:
        """A latent with the stamp of its frame (s) has come; only its age matters."""
        t = self._time(now)
        self._inputs.latent.heard(stamp - self._clock.epoch, t)

    def record_planner_alive(self, now: float) -> None:
        """Whoever makes the plans gives a sign of life; a plan is one, too."""
        self._planner_heard = self._time(now)

    def submit_plan(
        self,
        trajectory: JointTrajectory,
        start: float,
        source_stamp: float,
        valid_until: float,
        plan_id: int,
        now: float,
    ) -> PlanVerdict:
        """A plan: its time 0 is `start` (s; the hand-over), planned from the frame of `source_stamp`, not to be
        followed beyond `valid_until`. Needs positions, velocities and accelerations and ends at rest.

        Never raises for a bad plan: it is refused whole, counted, and the verdict says why.
        """
        t = self._planner_heard = self._time(now)
        self._collect(t)
        self._supervise(t)
        try:
            return self._take(trajectory, start, source_stamp, valid_until, plan_id, t)
        except GrossBreach as error:
            if self.settings.latch_on_gross:
                self._begin_stop(str(error), t, latch=True)
            return self.reject_plan(str(error))
        except InputError as error:
            return self.reject_plan(str(error))

    def reject_plan(self, reason: str) -> PlanVerdict:
        """Count a plan that is no plan (it could not even be read) as rejected."""
        self.rejected += 1
        self.last_rejection = reason
        return PlanVerdict(False, reason)

    def stop_and_latch(self, reason: str, now: float) -> None:
        """Stop smoothly and stay LATCHED until `release`."""
        t = self._time(now)
        self._collect(t)
        self._begin_stop(reason, t, latch=True)

    def stop_and_hold(self, reason: str, now: float) -> None:
        """Stop smoothly, then hold; a new plan may go on from there, once inputs have been healthy for long enough
        since."""
        t = self._time(now)
        self._collect(t)
        self._begin_stop(reason, t)
        self._inputs.healthy_since = math.inf

    def update_e_stop(self, active: bool, now: float) -> None:
        """The e-stop's state: True stops and latches; False releases nothing, it only lets `release` through."""
        self._inputs.consent.e_stop_heard(self._time(now))
        if active and not self._e_stop:
            self.stop_and_latch("e-stop", now)
        self._e_stop = bool(active)

    def report_e_stop_absent(self) -> None:
        """Nobody publishes the e-stop (any more); a stop where the settings require one."""
        self._inputs.consent.e_stop_gone()

    def update_deadman(self, held: bool, now: float) -> None:
        """The dead-man switch is held, or not."""
        self._inputs.consent.deadman_heard(bool(held), self._time(now))

    def set_speed_scale(self, scale: float, now: float) -> None:
        """Another ceiling on joint velocities, 0.01 to 1 as a share of their limits. Lowered in motion, it holds once
        a stop has brought the arm to rest."""
        t = self._time(now)
        self._collect(t)
        lowered, self.speed_scale = scale < self.speed_scale, scale
        if lowered and self.state == GateState.TRACKING:
            self._begin_stop(f"the speed scale was lowered to {scale:.2f}", t)
        if self.state not in MOVING or self.state == GateState.TRACKING:
            self._limit()

    def release(self, now: float) -> tuple[bool, str]:
        """Undo a latch, the reference at the measured position; refused (False, why) while the cause lasts."""
        t = self._time(now)
        self._collect(t)
        self._advance(t)
        if not self._latch:
            return True, "was not latched"
        if self._e_stop:
            return False, "the e-stop is still on"
        if self.state != GateState.LATCHED:
            return False, "the arm is still stopping"
        if refused := self._inputs.release_refused(t):
            return False, refused
        text, self._latch, self._reason = f"released after: {self._latch}", "", ""
        self._anchor(t)
        self._path = self._path.between(t, t + self.settings.roll_period)  # the controllers are told as well
        self._publish = True
        self._inputs.healthy_since = t
        return True, text

    # ---- output ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> GateOutput:
        """What holds at `now`: the reference, a window where one is due, completed control ticks, the status."""
        t = self._time(now)
        self._collect(t)
        self._supervise(t)
        self._advance(t)
        if self._path is not None:
            self._reference = self._path.at(t)
        self._watch_distance(t)
        window, self._publish = self._window() if self._publish else None, False
        reference = self._reference if self._path is not None else None
        return GateOutput(reference, window, self._ticks.take(), self._report(t))

    @property
    def measured_positions(self) -> np.ndarray | None:
        """(J,) rad, the newest believable positions of the joints."""
        return self._inputs.joints.positions

    def time_to_rest(self) -> float:
        """s from the last call until what was sent ends at rest; 0 where nothing moves."""
        return max(self._path.end - self._clock.time, 0.0) if self.state in MOVING else 0.0

    def _report(self, t: float) -> GateReport:
        track = self._track
        return GateReport(
            state=self.state,
            text=self._text(),
            speed_scale=self.speed_scale,
            latent_age=self._inputs.latent.age(t),
            plan_age=t - track.source_stamp if track else math.nan,
            joint_age=self._inputs.joints.heartbeat.age(t),
            following_error=self._inputs.following,
            min_distance=self._distance,
            clipped=self.clipped,
            rejected=self.rejected,
            stops=self.stops,
            plan_id=track.plan_id if track else 0,
            last_rejection=self.last_rejection,
        )

    def _window(self) -> Window:
        path = self._path
        q, qd, qdd = path.states.transpose(1, 0, 2)
        return Window(
            self._clock.epoch + path.start, JointTrajectory(self.limits.names, path.times - path.start, q, qd, qdd)
        )

    def _time(self, now: float) -> float:
        state = self._path.at(self._clock.time) if self.state in MOVING else None
        t, went_back = self._clock.read(now)
        if went_back:
            self._clock_went_back(state, t)
        return t

    def _text(self) -> str:
        if self.state == GateState.TRACKING:
            return f"following plan {self._track.plan_id}"
        if self.state == GateState.STOPPING:
            return f"stopping: {self._latch or self._reason}"
        if self.state == GateState.LATCHED:
            return f"latched: {self._latch}"
        if self.state == GateState.INACTIVE:
            return f"waiting: {self._inputs.cause or self._reason or 'no joint_states yet'}"
        return f"holding: {self._inputs.cause or self._reason or 'no plan'}"

    # ---- states ----------------------------------------------------------------------------------------------------

    def _take(
        self, trajectory: JointTrajectory, start: float, source_stamp: float, valid_until: float, plan_id: int, t: float
    ) -> PlanVerdict:
        """Let a plan in, or raise InputError."""
        epoch = self._clock.epoch
        if reason := self._closed(t):
            raise InputError(f"plan refused: {reason}")
        start, source, until = start - epoch, source_stamp - epoch, valid_until - epoch
        handover = self._intake.timely(trajectory, start, source, until, t)
        if self._track and source < self._track.source_stamp - 1e-6:
            raise InputError("plan was made from an older frame than the plan in force")
        self._anchor_if_moved(trajectory, t)
        plan = self._intake.read(trajectory, start, self._path.at(t)[0])
        plan, follow_until, changed = self._intake.fit(plan)
        current = self._track.path if self._track else self._path
        if self._track and handover > self._track.follow_until:
            raise InputError("plan cannot be joined: the plan in force leaves the limits before")
        path, joined, error = self._intake.join(current, plan, t, handover)
        self._intake.check_collision(path)
        track = Track(path, joined, plan_id, source, until, t, follow_until)
        window = self._windows.extend(track, t, -math.inf)
        if window is None:
            raise InputError("plan refused: no stop within the limits from where it leads")
        if self.state != GateState.TRACKING:
            self._inputs.motion_begins(t, self._path.at(t))
        self._track, self.state, self._reason = track, GateState.TRACKING, ""
        self._ticks.follows(plan_id, joined)
        self._commit(*window, t)
        self.clipped += bool(changed)
        return PlanVerdict(True, changed, bool(changed), error)

    def _closed(self, t: float) -> str:
        """Why no plan is let in now; empty where one would be."""
        inputs, needed = self._inputs, self.settings.resume_after
        if self.state in (GateState.INACTIVE, GateState.LATCHED, GateState.STOPPING):
            return self._text()
        if inputs.cause:
            return inputs.cause
        if self.state == GateState.HOLDING and t - inputs.healthy_since < needed - 1e-6:
            return f"inputs have been healthy for {t - inputs.healthy_since:.2f} s of {needed:.2f} s"
        return ""

    def _supervise(self, t: float) -> None:
        """Look at the inputs; begin a stop where one is called for."""
        inputs, s = self._inputs, self.settings
        cause = inputs.look(t)
        if self.state == GateState.INACTIVE and not inputs.trouble and inputs.joints.positions is not None:
            self._anchor(t)
        if self.state not in MOVING:
            return
        if inputs.following > s.following_error and not self._latch:
            text = f"following error {inputs.following:.2f} rad, limit {s.following_error:.2f}"
            self._begin_stop(text, t, latch=True)
        if self.state != GateState.TRACKING:
            return
        if not cause and t > self._track.valid_until:
            cause = "plan expired and no newer one came"
        if not cause and t - self._track.received > s.plan_timeout:
            cause = f"no new plan for {s.plan_timeout:.2f} s"
        if not cause and t - self._planner_heard > s.planner_timeout:
            cause = f"no sign of life from the planner for {s.planner_timeout:.2f} s"
        cause = cause or inputs.frozen(t, self._reference)
        if cause:
            self._begin_stop(cause, t)

    def _watch_distance(self, t: float) -> None:
        """How near the arm is to what it is kept out of, as often as windows are made. The paths followed were checked
        whole; this is for the rest of the robot, which may have moved since."""
        if self._clearance is None or self._path is None or t - self._looked < self.settings.roll_period:
            return
        before, measured, self._looked = self._distance, self._inputs.joints.positions, t
        moving = self.state in MOVING
        self._distance = self._clearance.distance(self._reference[0] if moving or measured is None else measured)
        near = self._distance < self._clearance.margin - NEARER and self._distance < before
        if near and self.state == GateState.TRACKING:
            self._begin_stop(f"something is {self._distance:.3f} m near, {self._clearance.margin:.3f} m are kept", t)

    def _limit(self) -> None:
        """The limits of the speed scale hold from now on."""
        self.limits, self._limited_to = self._whole.scaled(self.speed_scale), self.speed_scale
        self._intake = PlanValidator(self.limits, self._whole, self.settings, self._clearance)
        self._windows = WindowMaker(self.limits, self.settings, self._clearance)

    def _advance(self, t: float) -> None:
        """Move on to what the time brings: the end of a motion, the next window."""
        if self.state == GateState.TRACKING:
            if t >= self._departs:
                self._begin_stop("no further window of the plan keeps the limits", t)
            elif self._departs == math.inf and t >= self._path.end:
                self._rest(GateState.HOLDING, t)
            elif self._departs < math.inf and t >= self._next_roll:
                self._next_roll = t + self.settings.roll_period
                window = self._windows.extend(self._track, t, self._departs)
                if window is not None:
                    self._commit(*window, t)
        if self.state == GateState.STOPPING and t >= self._path.end:
            self._rest(GateState.LATCHED if self._latch else GateState.HOLDING, t)

    def _begin_stop(self, reason: str, t: float, latch: bool = False) -> None:
        """Leave the plan for a stop from the reference of now; at rest this only latches."""
        if latch and not self._latch:
            self._latch = reason
        elif self.state != GateState.TRACKING:
            return
        self.stops += 1
        if self.state == GateState.TRACKING:
            self._reason, self._track, self.state = reason, None, GateState.STOPPING
            self._ticks.follows(0, t)
            window = self._windows.stop(self._path, t, self._departs)
            if window is not None:  # otherwise the window sent goes on; it ends at rest
                self._commit(window, math.inf, t)
        elif self.state == GateState.HOLDING:
            self.state = GateState.LATCHED

    def _commit(self, path: Path, departs: float, t: float) -> None:
        self._path, self._departs, self._publish = path, departs, True
        self._next_roll = t + self.settings.roll_period

    def _rest(self, state: GateState, t: float) -> None:
        if self._track:
            self._ticks.follows(0, t)
        self._track, self.state, self._rested = None, state, t
        if self._limited_to != self.speed_scale:
            self._limit()
        if self._lost:  # the clock went back in motion: what the joints are doing now has to be asked again
            self._lost = False
            if state == GateState.HOLDING:
                self.state = GateState.INACTIVE

    # ---- reference, clock, executed --------------------------------------------------------------------------------

    def _anchor(self, t: float) -> None:
        """The measured position becomes the reference, at rest."""
        self._path = Path.rest(self._inputs.joints.positions, t)
        self._reference = self._path.at(t)
        self._inputs.following, self._rested = 0.0, t
        self.state = GateState.LATCHED if self._latch else GateState.HOLDING
        self._ticks.restart(t)

    def _anchor_if_moved(self, trajectory: JointTrajectory, t: float) -> None:
        """Where the arm is not where it is held (moved by hand, a stop that its controllers did not follow), a plan
        starts from where it is, once it stands there. Raises InputError for one that cannot."""
        s, inputs = self.settings, self._inputs
        if self.state != GateState.HOLDING or not inputs.following > s.hold_tolerance:
            return
        if set(trajectory.names) != set(self.limits.names):
            return
        if t - self._rested < s.anchor_after or inputs.joints.speed > s.rest_speed:
            raise InputError(f"plan refused: the arm is {inputs.following:.2f} rad from where it is held")
        first = trajectory.positions[0, [trajectory.names.index(n) for n in self.limits.names]]
        if (far := np.abs(first - inputs.joints.positions).max()) > s.start_tolerance:
            raise InputError(f"plan starts {far:.3f} rad from where the arm is, more than {s.start_tolerance:g}")
        self._anchor(t)

    def _clock_went_back(self, state: np.ndarray | None, t: float) -> None:
        """state: (3, J) that a motion under way had reached."""
        self._forget(t)
        self._reason = "the clock went back"
        if state is None:
            self.state = GateState.INACTIVE
            return
        # The windows sent mean nothing on the new clock: stop anew from the state they had reached.
        stop = self._windows.stop_from(state, t)
        self._path = stop if stop is not None else Path.rest(state[0], t)
        self._reference, self.state, self._lost = state, GateState.STOPPING, True
        self._commit(self._path, math.inf, t)
        self.stops += 1

    def _forget(self, t: float) -> None:
        """Drop whatever was learnt on the clock so far."""
        self._inputs.clear(t)
        self._path: Path | None = None
        self._track: Track | None = None
        self._reference = np.zeros((3, len(self.limits.names)))
        self._departs = math.inf
        self._next_roll = self._rested = t
        self._lost = self._publish = False
        self._distance, self._placed, self._looked, self._planner_heard = math.nan, -math.inf, -math.inf, -math.inf
        self._ticks.restart(t)

    def _collect(self, t: float) -> None:
        if self._path is not None and self.state != GateState.INACTIVE:
            self._ticks.collect(self._path, t, self._clock.epoch)
