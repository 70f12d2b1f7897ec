"""Plans on their way in: read, held against the limits, slowed where a little too fast, joined to the reference."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.jerk_limited import MotionMaker
from jepa_ros.robot.gate.types import GateSettings
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import MERGE, Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

MAX_POINTS = 2000
FAR = 20.0  # rad from the reference: no angle of a robot's, rather another unit or a wild number
WILD = (FAR, 1e3, 1e5)  # rad, rad/s, rad/s²: beyond these the polynomials overflow before they could be judged
REST = (1e-3, 1e-2)  # rad/s, rad/s²: a plan that ends slower than this ends at rest
BRIDGES = (0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 5.0)  # s, tried in this order


class GrossBreach(InputError):
    """A plan so far beyond the limits that whatever made it cannot be trusted any more."""


class PlanValidator:
    """Turns received plans into paths that keep `limits` and continue the reference.

    whole: the limits without the speed scale; only beyond these is a breach a gross one. clearance: judges where the
    paths lead; None: nobody does.
    """

    def __init__(self, limits: JointLimits, whole: JointLimits, settings: GateSettings, clearance: Clearance | None):
        self._limits, self._whole, self._settings, self._clearance = limits, whole, settings, clearance
        self._motion = MotionMaker(limits)
        self._order: tuple[tuple[str, ...], list[int]] = ((), [])

    def read(self, trajectory: JointTrajectory, start: float, reference: np.ndarray) -> Path:
        """The plan as a path from `start` s on, joints in the gate's order. Raises InputError (see module).

        reference: (J,) rad, where the arm is told to be now.
        """
        columns = self._columns(trajectory.names)
        if not 2 <= len(trajectory.times) <= MAX_POINTS:
            raise InputError(f"plan: expected 2 to {MAX_POINTS} points, found {len(trajectory.times)}")
        if trajectory.velocities is None or trajectory.accelerations is None:
            raise InputError("plan: expected positions, velocities and accelerations, found less")
        times = np.asarray(trajectory.times, dtype=float)
        if times[-1] > self._settings.plan_max:
            raise InputError(f"plan: expected at most {self._settings.plan_max:g} s, found {times[-1]:.1f} s")
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        states = states[:, :, columns]
        # JointTrajectory refuses these too; a gate does not rely on its callers.
        if not np.isfinite(states).all() or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise InputError("plan: expected finite values and increasing times, found others")
        if np.abs(states[:, 0] - reference).max() > FAR:
            raise InputError(f"plan: expected positions within {FAR:g} rad of the reference, found one further away")
        if any(np.abs(states[:, d]).max() > WILD[d] for d in (1, 2)):
            raise GrossBreach(f"plan: expected at most {WILD[1]:g} rad/s and {WILD[2]:g} rad/s², found more")
        if any(np.abs(states[-1, d + 1]).max() > REST[d] for d in (0, 1)):
            raise InputError("plan: expected to end at rest, found a last point in motion")
        states[-1, 1:] = 0.0
        return Path(start + times, states).divided()

    def timely(self, trajectory: JointTrajectory, start: float, source: float, until: float, now: float) -> float:
        """The hand-over (s) of a plan that is neither late nor ahead. Raises InputError for one that is."""
        s, handover = self._settings, start + float(trajectory.times[0])
        if not all(map(math.isfinite, (handover, source, until))):
            raise InputError("plan: expected finite start, source stamp and validity, found others")
        if until <= now:
            raise InputError(f"plan is late: it expired {now - until:.2f} s ago")
        if handover < now - s.plan_late:
            raise InputError(f"plan is late: its hand-over was {now - handover:.2f} s ago")
        if now - source > s.source_timeout:
            raise InputError(f"plan is late: its frame is {now - source:.2f} s old")
        if handover > now + s.plan_ahead or source > now + s.skew:
            ahead = f"hand-over in {handover - now:.2f} s, frame in {source - now:.2f} s"
            raise InputError(f"plan lies in the future: {ahead}")
        return handover

    def fit(self, path: Path) -> tuple[Path, float, str]:
        """Hold a plan against the limits: the plan, slowed where it has to be; until when (s) it may be followed before
        it leaves the position limits (inf: to its end); what had to be changed, in words. Raises GrossBreach.
        """
        use = self._limits.compute_usage(path)
        if use.within_limits:
            return path, np.inf, ""
        factor, beyond = use.slowdown, self._whole.compute_usage(path)
        if not beyond.slowdown <= self._settings.gross or use.position > self._settings.gross_position:
            raise GrossBreach(f"plan: gross breach of the limits: {beyond.text}")
        if factor > 1.0:
            path = path.slowed(factor).divided()
        until = self._limits.outward_since(path)
        return path, np.inf if until is None else until, f"plan cut: {use.text}"

    def join(self, current: Path, plan: Path, now: float, handover: float) -> tuple[Path, float, float]:
        """From `current` (followed up to the hand-over) into `plan`, checked: the whole path, when it leaves `current`
        (s), and the distance in rad between the two there. Raises InputError where they cannot be joined in the limits.
        """
        # A hand-over just gone by: what was sent is left a little ahead, so that the controllers see no step.
        t = handover if handover >= now - MERGE else now + self._settings.lead
        if t >= plan.end:
            raise InputError(f"plan is late: it ended {t - plan.end:.2f} s ago")
        reference, target = current.at(t), plan.at(t)
        error = np.abs(target - reference).max(axis=1)
        if error[0] > self._settings.start_tolerance:
            limit = self._settings.start_tolerance
            raise InputError(f"plan starts {error[0]:.3f} rad from the reference, more than {limit:g}")
        before = current.between(now, t)
        tolerance = self._settings.splice_tolerance * np.array([1.0, 40.0, 1600.0])
        if (error <= tolerance).all():
            blend = self._blend(before, plan, t, exact=bool((error <= 1e-9).all()))
            if blend is not None:
                return blend, t, float(error[0])
        for duration in BRIDGES:
            if duration > self._settings.bridge_max:
                break
            bridge = self._motion.bridge(reference, plan.at(t + duration), t, duration)
            if bridge is not None and self._limits.allows(bridge):
                rest = plan.after(bridge.end) if bridge.end < plan.end else Path(bridge.times[-1:], bridge.states[-1:])
                return before.then(bridge).then(rest), t, float(error[0])
        raise InputError(f"plan cannot be joined to the reference within the limits ({error[0]:.3f} rad away)")

    def check_collision(self, path: Path) -> None:
        """Raise InputError where a path leads too near to what the arm is kept out of."""
        if self._clearance and (text := self._clearance.check_path(path)):
            raise InputError(f"plan refused: {text}")

    def _blend(self, before: Path, plan: Path, t: float, exact: bool) -> Path | None:
        """Straight into the plan's next knot, the small difference absorbed on the way; None where that is too hard."""
        tail = plan.after(t)
        near = 0 if exact else int(np.count_nonzero(tail.times[1:-1] < t + 0.02))
        keep = [0, *range(1 + near, len(tail))]
        tail = Path(tail.times[keep], tail.states[keep])
        tail.states[0] = before.states[-1]
        if not self._limits.allows(Path(tail.times[:2], tail.states[:2])):
            return None
        return before.then(tail)

    def _columns(self, names: tuple[str, ...]) -> list[int]:
        if self._order[0] == tuple(names):
            return self._order[1]
        wanted = self._limits.names
        if sorted(names) != sorted(wanted):
            unknown, missing = sorted(set(names) - set(wanted)), sorted(set(wanted) - set(names))
            raise InputError(f"plan: expected joints {list(wanted)}, found unknown {unknown} and missing {missing}")
        self._order = (tuple(names), [tuple(names).index(n) for n in wanted])
        return self._order[1]
