"""The gate's state machine: what it does when, on its own clock.

| state    | on                                                            | becomes  | reference                 |
|----------|---------------------------------------------------------------|----------|---------------------------|
| INACTIVE | first healthy joint states                                    | HOLDING  | measured, at rest         |
| HOLDING  | plan taken (inputs healthy for `resume_after`)                | TRACKING | joins the plan            |
| HOLDING  | stop, e-stop, gross breach                                    | LATCHED  | stays                     |
| TRACKING | newer plan taken                                              | TRACKING | joins the newer plan      |
| TRACKING | end of the plan, at rest                                      | HOLDING  | end of the plan           |
| TRACKING | plan expired; planner, latent or joint states stale, joint    | STOPPING | jerk-limited stop         |
|          | states frozen or jumping; no consent; something too near      |          |                           |
| TRACKING | speed scale lowered (it holds from rest on)                   | STOPPING | jerk-limited stop         |
| TRACKING | no further window keeps the limits and its distances          | STOPPING | end of the window sent    |
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
from collections.abc import Callable

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.clearance import Clearance
from jepa_ros.robot.gate_types import (
    GateSettings,
    GateState,
    PlanVerdict,
    Track,
)
from jepa_ros.robot.inputs import Inputs
from jepa_ros.robot.intake import PlanIntake
from jepa_ros.robot.limits import JointLimits
from jepa_ros.robot.path import Path
from jepa_ros.robot.ticks import Clock, ControlTicks
from jepa_ros.robot.trajectory import JointTrajectory
from jepa_ros.robot.windows import WindowMaker

MOVING = (GateState.TRACKING, GateState.STOPPING)
NEARER = 0.002  # m below the margin that a path may seem to come by rounding and by how coarsely it was sampled


class GateMachine:
    """What gate.Gate is behind the caller's clock: every t is s on the gate's own."""

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
        self._intake.expect_clear(path)
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
        self._intake = PlanIntake(self.limits, self._whole, self.settings, self._clearance)
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
