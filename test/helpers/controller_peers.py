"""Controllers as those of ros2_control behave, and the arm behind them. Without ROS, in any time that callers count in.

A peer runs control cycles on a grid of its own period: `update(now)` and `receive(command, now)` run those that are
due.
"""

import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import yaml

from helpers.gate_plans import JOINTS, START, urdf
from jepa_ros.errors import InputError
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.sim.controller import TrajectoryController

CONTROLLERS = {
    "joint_trajectory_controller/JointTrajectoryController": "joint_trajectory_controller",
    "forward_command_controller/ForwardCommandController": "forward_position_controller",
    "moveit_servo/TwistStamped": "servo_node",
    "moveit_servo/JointJog": "servo_node",
}


@functools.cache
def robot_file():
    """The robot's YAML for the made-up arm, which may go anywhere, with a controller of every kind."""
    config = yaml.safe_load(resolve_robot("openarm").read_text()) | {"self_collision": None}
    config["action_space"]["workspace"] = [[-5, -5], [5, -5], [5, 5], [-5, 5]]
    config["controllers"] = [
        {"name": f"right_{n}", "type": kind, "joints": [*JOINTS]} for kind, n in CONTROLLERS.items()
    ]
    path = Path(tempfile.mkdtemp()) / "arm.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@functools.cache
def limits():
    return JointLimits.from_robot(load_robot(robot_file()), urdf())


class Peer:
    """A controller, its manager's control loop, and an arm that goes exactly where the set-points say.

    period: s of a control cycle. auditor: judges what is received. setpoints: (time, q) of every cycle, q (J,) rad as
    the controller commands it, NaN included. sag: (J,) rad, measured position less set-point. lost: number of next
    messages that do not arrive. speed: speed scaling, of a trajectory controller only.
    """

    def __init__(self, limits_=None, start=START, period=0.01):
        self.limits = limits() if limits_ is None else limits_
        self.auditor = WindowAuditor(self.limits)
        self.period, self.setpoints, self.lost, self.speed = period, [], 0, 1.0
        self.q = np.array(start, dtype=float)  # set-point that the hardware has
        self.sag = np.zeros(len(self.q))
        self._active = True
        self._begun, self._cycles = None, 0  # time of the first cycle; those since then, skipped ones included
        self._asleep_until = -math.inf
        self._waiting = None  # the newest command while the control loop stalls

    # what a subclass does

    def judge(self, command, now):
        """Take a command that was received, or drop it, as the controller's subscription does."""
        raise NotImplementedError

    def audit(self, command, now):
        """Tell the auditor what was sent, whether the controller takes it or not."""

    def cycle(self, now):
        """Set-point (J,) rad of an active controller in this cycle."""
        raise NotImplementedError

    def changed(self, active):
        """The controller was activated or deactivated."""

    def place(self, q):
        """The arm is put to the set-point q by hand; the controller holds it there."""

    # what a test does

    @property
    def active(self):
        return self._active

    @active.setter
    def active(self, active):
        if active != self._active:
            self._active = active
            self.changed(active)

    @property
    def measured(self):
        """(J,) rad"""
        return self.q + self.sag

    def put(self, q):
        """Put the arm, as measured, to q (J,) rad by hand; set-points are recorded anew, as the step is by hand."""
        self.q = np.asarray(q, dtype=float) - self.sag
        self.place(self.q)
        self.setpoints.clear()

    def stall(self, seconds):
        """From the next cycle on the control loop stands still for so long; then one cycle catches up.

        Nothing is received meanwhile; of what is sent, the newest command waits.
        """
        self._asleep_until = self._next + seconds

    def stalls(self, now):
        """Whether the control loop, which publishes joint states as well, stands still."""
        return now < self._asleep_until

    def receive(self, command, now):
        """A command arrives at `now`, s; see the subclass for what it is."""
        if self.lost > 0:
            self.lost -= 1
            return
        self.update(now)
        self.audit(command, now)
        if self.stalls(now):
            self._waiting = command
        else:
            self.judge(command, now)

    def update(self, now):
        """Run the cycles that are due by `now`, s; return the measured position (J,) rad."""
        if self._begun is None:
            self._begun, self._asleep_until = now, self._asleep_until + now
        while self._next <= now + 1e-9:
            at, self._cycles = self._next, self._cycles + 1
            if not self.stalls(at):
                self._run(at)
        return self.measured

    @property
    def _next(self):
        """Time of the next cycle."""
        return (self._begun or 0.0) + self._cycles * self.period

    def _run(self, now):
        if self._waiting is not None:
            command, self._waiting = self._waiting, None
            self.judge(command, now)
        wanted = self.cycle(now) if self.active else self.q
        self.setpoints.append((now, np.array(wanted)))
        self.q = np.where(np.isfinite(wanted), wanted, self.q)  # hardware ignores NaN, joint by joint

    # figures

    def largest_step(self, limits=None):
        """Largest step of a set-point in a cycle, as a multiple of the velocity limit; infinite with NaN."""
        steps = np.diff(self._commanded(), axis=0) / self.period
        return _largest(steps, (limits or self.limits).velocity)

    def largest_acceleration(self, limits=None):
        """Largest second difference of the set-points, as a multiple of the acceleration limit; infinite with NaN."""
        changes = np.diff(self._commanded(), 2, axis=0) / self.period**2
        return _largest(changes, (limits or self.limits).acceleration)

    def _commanded(self):
        return np.array([q for _, q in self.setpoints]).reshape(-1, len(self.q))


def _largest(values, limit):
    if not len(values):
        return 0.0
    return float(np.abs(values / limit).max()) if np.isfinite(values).all() else math.inf


class TrajectoryPeer(Peer):
    """joint_trajectory_controller; commands are Points. rejected: why it refused each of those that it did."""

    def __init__(self, limits_=None, start=START, period=0.01, **options):
        super().__init__(limits_, start, period)
        self.arm = TrajectoryController(self.limits.names, period=period, **options)
        self.arm.hold(self.q)
        self.rejected = []

    def audit(self, command, now):
        try:
            self.auditor.check_window(command.to_trajectory(), command.stamp, now)
        except InputError as error:
            self.auditor.record_unreadable(str(error))

    def judge(self, command, now):
        try:
            self.arm.accept(command, now)
        except InputError as error:
            self.rejected.append(str(error))
            if "in the past" not in str(error):  # that is this process having slept, on a machine that is too busy
                self.auditor.record_unreadable(str(error))

    def cycle(self, now):
        self.arm.speed = self.speed
        return self.arm.update(now, self.measured)

    def changed(self, active):
        self.arm.activate(self.measured) if active else self.arm.deactivate()

    def place(self, q):
        self.arm.hold(q)


class PositionPeer(Peer):
    """forward_command_controller; commands are sequences of positions, rad. No time-out, no check of values.

    NaN or Inf: dropped. Wrong length: the controller manager deactivates it, until a test activates it again. dropped,
    failures: what was refused so. steps: rad, of each command from the one before.
    """

    def __init__(self, limits_=None, start=START, period=0.01):
        super().__init__(limits_, start, period)
        self.steps, self.dropped, self.failures = [], [], []
        self._command, self._last = None, self.q

    def audit(self, command, now):
        q = np.array(command, dtype=float)
        if q.shape != self.q.shape or not np.isfinite(q).all() or self.limits.excess(q).max() > 1e-6:
            self.auditor.record_unreadable(f"set-point {q}")
            return
        self.steps.append(float(np.abs(q - self._last).max()))
        self._last = q

    def judge(self, command, now):
        q = np.array(command, dtype=float)
        if np.isfinite(q).all():
            self._command = q  # a controller that is not active keeps it as well, but forgets it when activated
        else:
            self.dropped.append(f"not finite: {q}")

    def cycle(self, now):
        if self._command is None or not len(self._command):
            return self.q
        if len(self._command) != len(self.q):
            self.failures.append(f"{len(self._command)} values for {len(self.q)} joints")
            self.active = False
            return self.q
        return self._command

    def changed(self, active):
        self._command = None

    def place(self, q):
        self._command, self._last = None, q
