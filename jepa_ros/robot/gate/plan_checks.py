"""Checks of received plans: format, timing, limits; slowing a plan that is slightly too fast, joining the reference."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.jerk_limited import MotionMaker
from jepa_ros.robot.gate.types import GateCode, GateSettings, PlanRejected
from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import MERGE, Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

MAX_POINTS = 2000
MAX_DISTANCE = 20.0  # rad from the reference: beyond it the plan is in another unit
# rad/s, rad/s²: beyond these the polynomials overflow before the limits could be checked
MAX_SPEED, MAX_ACCELERATION = 1e3, 1e5
REST = (1e-3, 1e-2)  # rad/s, rad/s²: a plan whose last point is slower than this ends at rest
BRIDGE_DURATIONS = (0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 5.0)  # s, tried in this order


class PlanValidator:
    """Turns received plans into paths that keep `limits` and continue the reference. All methods raise PlanRejected.

    unscaled: the limits without the speed scale; only beyond these is a breach a gross one. clearance: checks paths
    for collisions; None: no check.
    """

    def __init__(self, limits: JointLimits, unscaled: JointLimits, settings: GateSettings, clearance: Clearance | None):
        self._limits, self._unscaled, self._settings, self._clearance = limits, unscaled, settings, clearance
        self._motion = MotionMaker(limits)
        self._order: tuple[tuple[str, ...], list[int]] = ((), [])

    def check_times(self, trajectory: JointTrajectory, start: float, source: float, until: float, now: float) -> float:
        """Check that a plan is neither late nor too far ahead; return its hand-over. All times in s."""
        s, handover = self._settings, start + float(trajectory.times[0])
        if not all(map(math.isfinite, (handover, source, until))):
            raise PlanRejected(GateCode.PLAN_INVALID, "plan: start, source stamp or validity is not finite")
        if until <= now:
            raise PlanRejected(GateCode.PLAN_LATE, f"plan is late: it expired {now - until:.2f} s ago")
        if handover < now - s.plan_late:
            raise PlanRejected(GateCode.PLAN_LATE, f"plan is late: its hand-over was {now - handover:.2f} s ago")
        if now - source > s.source_timeout:
            raise PlanRejected(GateCode.PLAN_LATE, f"plan is late: its frame is {now - source:.2f} s old")
        if handover > now + s.plan_ahead or source > now + s.skew:
            ahead = f"hand-over in {handover - now:.2f} s, frame in {source - now:.2f} s"
            raise PlanRejected(GateCode.PLAN_IN_FUTURE, f"plan lies in the future: {ahead}")
        return handover

    def read(self, trajectory: JointTrajectory, start: float, reference: np.ndarray) -> Path:
        """Return the plan as a path that starts at `start` s, joints in the gate's order.

        reference: (J,) rad, the reference now; the whole plan of a continuous joint is moved by turns to start near it.
        """
        columns = self._columns(trajectory.names)
        invalid = GateCode.PLAN_INVALID
        if not 2 <= len(trajectory.times) <= MAX_POINTS:
            raise PlanRejected(invalid, f"plan: expected 2 to {MAX_POINTS} points, found {len(trajectory.times)}")
        if trajectory.velocities is None or trajectory.accelerations is None:
            raise PlanRejected(invalid, "plan: velocities or accelerations are missing")
        times = np.asarray(trajectory.times, dtype=float)
        if times[-1] > self._settings.plan_max:
            text = f"plan: expected at most {self._settings.plan_max:g} s, found {times[-1]:.1f} s"
            raise PlanRejected(GateCode.PLAN_TOO_LONG, text)
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        states = states[:, :, columns]
        with np.errstate(invalid="ignore"):  # what is not finite is rejected below
            states[:, 0] += nearest_turn(states[0, 0], reference, self._limits.continuous) - states[0, 0]
        # JointTrajectory rejects these as well; the gate does not rely on its callers.
        if not np.isfinite(states).all() or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise PlanRejected(invalid, "plan: non-finite values or non-increasing times")
        if np.abs(states[:, 0] - reference).max() > MAX_DISTANCE:
            text = f"plan: a position is more than {MAX_DISTANCE:g} rad from the reference; are the angles in rad?"
            raise PlanRejected(invalid, text)
        if np.abs(states[:, 1]).max() > MAX_SPEED or np.abs(states[:, 2]).max() > MAX_ACCELERATION:
            text = f"plan: gross breach: more than {MAX_SPEED:g} rad/s or {MAX_ACCELERATION:g} rad/s²"
            raise PlanRejected(GateCode.PLAN_GROSS_BREACH, text)
        if any(np.abs(states[-1, d + 1]).max() > REST[d] for d in (0, 1)):
            raise PlanRejected(GateCode.PLAN_ENDS_MOVING, "plan: the last point is not at rest")
        states[-1, 1:] = 0.0
        return Path(start + times, states).divided()

    def fit(self, path: Path) -> tuple[Path, float, str]:
        """Check a plan against the limits and slow it where that is enough to keep them.

        Returns the plan, the time in s until which it may be followed before it leaves the position limits (inf: to its
        end), and what was changed ("": nothing). A gross breach has the code PLAN_GROSS_BREACH.
        """
        usage = self._limits.compute_usage(path)
        if usage.within_limits:
            return path, np.inf, ""
        unscaled = self._unscaled.compute_usage(path)
        if not unscaled.slowdown <= self._settings.gross or usage.position > self._settings.gross_position:
            text = f"plan: gross breach of the limits: {unscaled.text}"
            raise PlanRejected(GateCode.PLAN_GROSS_BREACH, text)
        if usage.slowdown > 1.0:
            path = path.slowed(usage.slowdown).divided()
        until = self._limits.find_exit_time(path)
        return path, np.inf if until is None else until, f"plan cut: {usage.text}"

    def join(self, current: Path, plan: Path, now: float, handover: float) -> tuple[Path, float, float]:
        """Join `plan` to `current`, which is followed up to the hand-over.

        Returns the whole path, checked against the limits; when it leaves `current` (s); the distance in rad between
        the two there.
        """
        # After a hand-over that has just passed, leave what was sent a little ahead, so that controllers see no step.
        t = handover if handover >= now - MERGE else now + self._settings.lead
        if t >= plan.end:
            raise PlanRejected(GateCode.PLAN_LATE, f"plan is late: it ended {t - plan.end:.2f} s ago")
        reference, target = current.at(t), plan.at(t)
        error = np.abs(target - reference).max(axis=1)
        if error[0] > self._settings.start_tolerance:
            text = f"plan starts {error[0]:.3f} rad from the reference, more than {self._settings.start_tolerance:g}"
            raise PlanRejected(GateCode.PLAN_STARTS_ELSEWHERE, text)
        before = current.between(now, t)
        tolerance = self._settings.splice_tolerance * np.array([1.0, 40.0, 1600.0])
        if (error <= tolerance).all():
            blend = self._blend(before, plan, t, exact=bool((error <= 1e-9).all()))
            if blend is not None:
                return blend, t, float(error[0])
        for duration in BRIDGE_DURATIONS:
            if duration > self._settings.bridge_max:
                break
            bridge = self._motion.bridge(reference, plan.at(t + duration), t, duration)
            if bridge is not None and self._limits.allows(bridge):
                rest = plan.after(bridge.end) if bridge.end < plan.end else Path(bridge.times[-1:], bridge.states[-1:])
                return before.then(bridge).then(rest), t, float(error[0])
        text = f"plan cannot be joined to the reference within the limits ({error[0]:.3f} rad away)"
        raise PlanRejected(GateCode.PLAN_NOT_JOINABLE, text)

    def check_collision(self, path: Path) -> None:
        """Check that a path keeps clear of what the arm is kept out of."""
        if self._clearance and (text := self._clearance.check_path(path)):
            raise PlanRejected(GateCode.PLAN_TOO_CLOSE, f"plan rejected: {text}")

    def _blend(self, before: Path, plan: Path, t: float, exact: bool) -> Path | None:
        """Go straight to the plan's next knot, absorbing the small difference; None where the limits forbid it."""
        tail = plan.after(t)
        near = 0 if exact else int(np.count_nonzero(tail.times[1:-1] < t + 0.02))
        keep = [0, *range(1 + near, len(tail))]
        tail = Path(tail.times[keep], tail.states[keep])
        tail.states[0] = before.states[-1]
        if not self._limits.allows(Path(tail.times[:2], tail.states[:2])):
            return None
        return before.then(tail)

    def _columns(self, names: tuple[str, ...]) -> list[int]:
        """Return the column of each joint of the limits in a plan for `names`."""
        if self._order[0] == tuple(names):
            return self._order[1]
        wanted = self._limits.names
        if sorted(names) != sorted(wanted):
            unknown, missing = sorted(set(names) - set(wanted)), sorted(set(wanted) - set(names))
            text = f"plan: expected joints {list(wanted)}, found unknown {unknown} and missing {missing}"
            raise PlanRejected(GateCode.PLAN_WRONG_JOINTS, text)
        self._order = (tuple(names), [tuple(names).index(n) for n in wanted])
        return self._order[1]
