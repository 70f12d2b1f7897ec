"""Model of joint_trajectory_controller 4.42 (ROS 2 Jazzy) with a position interface and its default parameters.

It judges and samples trajectories as the real one does. That accepts several that no arm should be sent, which the gate
therefore never sends:

- NaN or Inf: the set-point becomes NaN, and the next finite one is a step.
- Accelerations without velocities: every joint is commanded to 0 at once.
- A first point at time 0, or at a negative one, away from the arm: a step.
- An old stamp with an end in the future: the trajectory is entered in the middle, by a step.
- A joint named twice: the joint that is left out gets a value of another message.
- Positions outside of the joint limits, any velocity and acceleration.
"""

from __future__ import annotations

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory_points import Points
from jepa_ros.sim.trajectory_sampler import State, TrajectorySampler

PERIOD = 0.01  # s, update period of a controller manager at its default rate
END_VELOCITY_LIMIT = float(np.finfo(np.float32).eps)  # rad/s; a last point that is faster is rejected


class TrajectoryController:
    """Converts trajectories to position set-points. Times in s on one clock; arrays (J,) in the order of `joints`.

    A new trajectory replaces the old one in the next cycle. While its first point is in the future, it is approached
    from the measured state, or from the last set-point with `interpolate_from_desired_state`. The set-point is the
    sample one update period ahead of the present cycle, and `reference` that of the present one.

    speed: factor (0 to 1) at which the trajectory's own time advances; a new trajectory sets that to the clock again.
    active: False after `deactivate`. command: the last set-point, rad, which may be NaN; output: the last one without
    NaN, as controller_state has it. Both are None before the first cycle.
    """

    def __init__(
        self,
        joints: tuple[str, ...],
        *,
        period: float = PERIOD,
        allow_nonzero_velocity_at_end: bool = False,
        interpolate_from_desired_state: bool = False,
        set_last_command_as_state_on_activation: bool = True,
    ):
        self.joints, self.period = tuple(joints), period
        self.speed, self.active = 1.0, True
        self.command: np.ndarray | None = None
        self.output: np.ndarray | None = None
        self.reference: State | None = None
        self._allow_moving_end = allow_nonzero_velocity_at_end
        self._from_desired = interpolate_from_desired_state
        self._keeps_command = set_last_command_as_state_on_activation
        self._row = np.zeros(len(self.joints))  # the last row that was sorted; see _sort
        self._updated: float | None = None  # time of the last cycle
        self._clear()

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def activate(self, measured: np.ndarray) -> None:
        """Start to hold: the last set-point, if there is one without NaN, as the real one does by default; else
        measured (J,) rad."""
        self.active = True
        keeps = self._keeps_command and self.command is not None and np.isfinite(self.command).all()
        self.hold(self.command if keeps else measured)

    def deactivate(self) -> None:
        """Drop any trajectory. The last set-point stays, so that motion ends within a cycle."""
        self.active = False
        self._clear()

    def hold(self, q: np.ndarray) -> None:
        """Drop any trajectory and hold q (J,) rad, as if the arm had always been there."""
        self._clear()
        self.command = self.output = self._row = np.array(q, dtype=float)
        self._commanded = State(self.command)
        self._pending = 0.0, [0.0], [State(self.command)]

    def _clear(self) -> None:
        self._pending: tuple[float, list[float], list[State]] | None = None  # stamp, times, points
        self._sampler: TrajectorySampler | None = None
        self._time = 0.0  # the trajectory's own time
        self._commanded: State | None = None  # the last set-point, and when it was sent
        self._commanded_at: float | None = None

    # -- trajectories --------------------------------------------------------------------------------------------------

    def accept(self, points: Points, now: float) -> None:
        """Take a trajectory over in the next cycle; while inactive it is judged and dropped.

        Raises InputError where joint_trajectory_controller would reject it.
        """
        self._check(points, now)
        if self.active:
            self._pending = points.stamp, *self._sort(points)

    def _check(self, trajectory: Points, now: float) -> None:
        names, points = trajectory.names, trajectory.points
        if not names:
            raise InputError("trajectory: no joint names")
        if len(names) != len(self.joints) or not set(names) <= set(self.joints):
            raise InputError(f"trajectory: expected the joints {list(self.joints)}, found {list(names)}")
        if not points:
            raise InputError("trajectory: no points")
        end = points[-1]
        moving = [v for v in end.velocities if abs(v) > END_VELOCITY_LIMIT]  # NaN is not
        if moving and not self._allow_moving_end:
            raise InputError(f"trajectory: expected an end at rest, found {max(map(abs, moving)):.3g} rad/s")
        if trajectory.stamp != 0.0 and (late := now - trajectory.stamp - end.time_from_start) > 0.0:
            raise InputError(f"trajectory: expected an end in the future, found one {late:.3f} s in the past")
        for i, point in enumerate(points):
            if i > 0 and point.time_from_start <= points[i - 1].time_from_start:
                raise InputError(
                    "trajectory times: expected strictly increasing values, found equal or decreasing ones"
                )
            for field in ("positions", "velocities", "accelerations"):
                found = len(getattr(point, field))
                if found != len(names) and (found > 0 or field == "positions"):
                    raise InputError(f"trajectory {field}: expected {len(names)} for each point, found {found}")
            if len(point.effort) > 0:
                raise InputError("trajectory effort: expected none for a position interface, found values")

    def _sort(self, trajectory: Points) -> tuple[list[float], list[State]]:
        """Return times and states in the order of the controller's joints.

        A joint that is left out, because another is named twice, keeps the value of the row that was sorted before.
        """
        columns = [self.joints.index(name) for name in trajectory.names]
        states = []
        for point in trajectory.points:
            fields = []
            for values in (point.positions, point.velocities, point.accelerations):
                row = None
                if len(values):
                    row = self._row.copy()
                    row[columns] = values
                    self._row = row
                fields.append(row)
            states.append(State(*fields))
        return [p.time_from_start for p in trajectory.points], states

    # -- cycles --------------------------------------------------------------------------------------------------------

    def update(self, now: float, measured: np.ndarray, velocities: np.ndarray | None = None) -> np.ndarray:
        """Run one cycle and return its set-point (J,) rad, which may be NaN. Time since the last cycle is caught up.

        measured: positions (J,) rad. velocities: measured (J,) rad/s; None: the hardware does not tell.
        """
        elapsed = self.period if self._updated is None else now - self._updated
        self._updated = now
        if self.command is None and self._pending is None:
            self.hold(measured)
        if not self.active:
            return self.command
        if self._pending is not None:
            self._begin(now, State(measured, velocities))
        else:
            self._time += elapsed * self.speed
        self.reference = self._sampler.sample(self._time) or self.reference
        command = self._sampler.sample(self._time + self.period, ahead=True)
        if command is not None:
            self._commanded, self._commanded_at = command, now
            self.command = command.q
            if np.isfinite(command.q).all():
                self.output = command.q
        return measured if self.command is None else self.command

    def _begin(self, now: float, measured: State) -> None:
        """Take over the newest trajectory."""
        stamp, times, states = self._pending
        before, begin = measured, now
        if self._from_desired and self._commanded is not None:
            before = self._commanded
            begin = now if self._commanded_at is None else self._commanded_at
        self._sampler = TrajectorySampler(times, states, stamp, before, begin, now)
        self._time, self._pending = now, None
