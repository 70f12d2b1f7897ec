"""The motion gate: the only way from a plan to a motor. Pure: no ROS, no threads, every time is given by the caller.

Invariant: every window given out ends at rest and was checked whole against position, velocity, acceleration and jerk
limits; a new one replaces the old only if it passes and continues the old one's curve in position, velocity and
acceleration. Otherwise the old one stays in force, and its end is rest. So whatever fails, this program included, the
arm comes to a stop.

| state    | on                                                            | becomes  | reference                 |
|----------|---------------------------------------------------------------|----------|---------------------------|
| INACTIVE | first healthy joint states                                    | HOLDING  | measured, at rest         |
| HOLDING  | plan taken (inputs healthy for `resume_after`)                | TRACKING | joins the plan            |
| HOLDING  | stop, e-stop, gross breach                                    | LATCHED  | stays                     |
| TRACKING | newer plan taken                                              | TRACKING | joins the newer plan      |
| TRACKING | end of the plan, at rest                                      | HOLDING  | end of the plan           |
| TRACKING | plan expired; latent or joint states stale, frozen or jumping | STOPPING | jerk-limited stop         |
| TRACKING | no further window keeps the limits                            | STOPPING | end of the window sent    |
| TRACKING | stop, e-stop, gross breach, following error                   | STOPPING | jerk-limited stop; latch  |
| STOPPING | any of those four                                             | STOPPING | as before; latch          |
| STOPPING | at rest                                                       | HOLDING  | stays (LATCHED if latch)  |
| LATCHED  | release: cause gone, arm standing, joint states healthy       | HOLDING  | measured, at rest         |
| moving   | clock goes back                                               | STOPPING | stop on the new clock     |
| others   | clock goes back (a latch stays)                               | INACTIVE | none                      |
| any      | reset                                                         | INACTIVE | none                      |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.gate_types import (
    GateOutput,
    GateReport,
    GateSettings,
    GateState,
    PlanVerdict,
    Track,
    Window,
)
from jepa_ros.robot.inputs import Inputs
from jepa_ros.robot.intake import GrossBreach, PlanIntake
from jepa_ros.robot.limits import JointLimits
from jepa_ros.robot.path import Path
from jepa_ros.robot.stopping import MotionMaker
from jepa_ros.robot.ticks import Clock, ControlTicks
from jepa_ros.robot.trajectory import JointTrajectory
from jepa_ros.robot.windows import WindowMaker

MOVING = (GateState.TRACKING, GateState.STOPPING)


class Gate:
    """See the module. Call `tick` at 100 to 200 Hz, the inputs whenever there is something; times in s on one clock.

    executed: maps reference (J,) rad at start and end of a control tick to a value (A,) in the action space.
    """

    def __init__(
        self,
        limits: JointLimits,
        settings: GateSettings | None = None,
        executed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ):
        self.settings = s = settings or GateSettings()
        self.limits = limits.scaled(s.speed_scale)
        motion = MotionMaker(self.limits)
        self._intake = PlanIntake(self.limits, s, motion)
        self._windows = WindowMaker(self.limits, s, motion)
        self._ticks = ControlTicks(s.control_period, executed)
        # Judged by the limits as they are, not as scaled: a hand may move the arm faster than the gate would.
        self._inputs = Inputs(limits, s)
        self._e_stop = False
        self.reset()

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything but an e-stop: INACTIVE until healthy joint states come."""
        self.clipped = self.rejected = self.stops = 0
        self.last_rejection = ""
        self.state = GateState.INACTIVE
        self._clock = Clock(self.settings.control_period)
        self._latch = self._reason = ""
        self._forget(0.0)

    def joint_states(
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

    def latent(self, stamp: float, now: float) -> None:
        """A latent with the stamp of its frame (s) has come; only its age matters."""
        t = self._time(now)
        self._inputs.latent.heard(stamp - self._clock.epoch, t)

    def plan(
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
        t = self._time(now)
        self._collect(t)
        self._supervise(t)
        try:
            return self._take(trajectory, start, source_stamp, valid_until, plan_id, t)
        except GrossBreach as error:
            if self.settings.latch_on_gross:
                self._begin_stop(str(error), t, latch=True)
            return self.refuse(str(error))
        except InputError as error:
            return self.refuse(str(error))

    def refuse(self, reason: str) -> PlanVerdict:
        """Count a plan that is no plan (it could not even be read) as rejected."""
        self.rejected += 1
        self.last_rejection = reason
        return PlanVerdict(False, reason)

    def stop(self, reason: str, now: float) -> None:
        """Stop smoothly and stay LATCHED until `release`."""
        t = self._time(now)
        self._collect(t)
        self._begin_stop(reason, t, latch=True)

    def halt(self, reason: str, now: float) -> None:
        """Stop smoothly, then hold; a new plan may go on from there."""
        t = self._time(now)
        self._collect(t)
        self._begin_stop(reason, t)

    def e_stop(self, active: bool, now: float) -> None:
        """The e-stop's state: True stops and latches; False releases nothing, it only lets `release` through."""
        if active and not self._e_stop:
            self.stop("e-stop", now)
        self._e_stop = bool(active)

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
        window, self._publish = self._window() if self._publish else None, False
        reference = self._reference if self._path is not None else None
        return GateOutput(reference, window, self._ticks.take(), self._report(t))

    def time_to_rest(self) -> float:
        """s from the last call until what was sent ends at rest; 0 where nothing moves."""
        return max(self._path.end - self._clock.time, 0.0) if self.state in MOVING else 0.0

    def _report(self, t: float) -> GateReport:
        track = self._track
        return GateReport(
            state=self.state,
            text=self._text(),
            speed_scale=self.settings.speed_scale,
            latent_age=self._inputs.latent.age(t),
            plan_age=t - track.source_stamp if track else math.nan,
            joint_age=self._inputs.joints.heartbeat.age(t),
            following_error=self._inputs.following,
            min_distance=math.nan,
            clipped=self.clipped,
            rejected=self.rejected,
            stops=self.stops,
            plan_id=track.plan_id if track else 0,
            last_rejection=self.last_rejection,
        )

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

    def _window(self) -> Window:
        path = self._path
        q, qd, qdd = path.states.transpose(1, 0, 2)
        return Window(
            self._clock.epoch + path.start, JointTrajectory(self.limits.names, path.times - path.start, q, qd, qdd)
        )

    # ---- state machine ---------------------------------------------------------------------------------------------

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
        cause = cause or inputs.frozen(t, self._reference)
        if cause:
            self._begin_stop(cause, t)

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
        """Held for long and moved by hand meanwhile: a plan that starts where the arm is now starts from there."""
        s, joints = self.settings, self._inputs.joints
        if self.state != GateState.HOLDING or t - self._rested < s.anchor_after or joints.speed > s.rest_speed:
            return
        if joints.positions is None or set(trajectory.names) != set(self.limits.names):
            return
        first = trajectory.positions[0, [trajectory.names.index(n) for n in self.limits.names]]
        if np.abs(first - self._reference[0]).max() <= s.start_tolerance:
            return
        if np.abs(first - joints.positions).max() <= s.start_tolerance:
            self._anchor(t)

    def _time(self, now: float) -> float:
        state = self._path.at(self._clock.time) if self.state in MOVING else None
        t, went_back = self._clock.read(now)
        if went_back:
            self._clock_went_back(state, t)
        return t

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
        self._ticks.restart(t)

    def _collect(self, t: float) -> None:
        if self._path is not None and self.state != GateState.INACTIVE:
            self._ticks.collect(self._path, t, self._clock.epoch)
