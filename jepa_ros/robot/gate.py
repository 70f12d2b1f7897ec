"""The motion gate: the only way from a plan to a motor. Pure: no ROS, no threads, every time is given by the caller.

Invariant: every window given out ends at rest and was checked whole against position, velocity, acceleration and jerk
limits, and against what the arm is kept out of; a new one replaces the old only if it passes and continues the old
one's curve in position, velocity and acceleration. Otherwise the old one stays in force, and its end is rest. So
whatever fails, this program included, the arm comes to a stop.

States and transitions stand in gate_machine.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.gate_machine import MOVING, GateMachine
from jepa_ros.robot.gate_types import (
    GateOutput,
    GateReport,
    GateState,
    PlanVerdict,
    Window,
)
from jepa_ros.robot.intake import GrossBreach
from jepa_ros.robot.trajectory import JointTrajectory


class Gate(GateMachine):
    """See the module. Call `tick` at 100 to 200 Hz, the inputs whenever there is something; times in s on one clock.

    executed: maps reference (J,) rad at start and end of a control tick to a value (A,) in the action space.
    clearance: of the same joints, what the arm is kept out of; None: nothing.
    """

    # ---- inputs ----------------------------------------------------------------------------------------------------

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
        if self._clearance and t - self._placed >= self.settings.roll_period:
            self._placed = t
            self._clearance.follow(names, positions)

    def latent(self, stamp: float, now: float) -> None:
        """A latent with the stamp of its frame (s) has come; only its age matters."""
        t = self._time(now)
        self._inputs.latent.heard(stamp - self._clock.epoch, t)

    def planner_alive(self, now: float) -> None:
        """Whoever makes the plans gives a sign of life; a plan is one, too."""
        self._planner_heard = self._time(now)

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
        t = self._planner_heard = self._time(now)
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
        """Stop smoothly, then hold; a new plan may go on from there, once inputs have been healthy for long enough
        since."""
        t = self._time(now)
        self._collect(t)
        self._begin_stop(reason, t)
        self._inputs.healthy_since = math.inf

    def e_stop(self, active: bool, now: float) -> None:
        """The e-stop's state: True stops and latches; False releases nothing, it only lets `release` through."""
        self._inputs.consent.e_stop_heard(self._time(now))
        if active and not self._e_stop:
            self.stop("e-stop", now)
        self._e_stop = bool(active)

    def e_stop_absent(self) -> None:
        """Nobody publishes the e-stop (any more); a stop where the settings require one."""
        self._inputs.consent.e_stop_gone()

    def deadman(self, held: bool, now: float) -> None:
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
    def measured(self) -> np.ndarray | None:
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
