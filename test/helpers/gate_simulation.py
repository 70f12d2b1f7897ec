"""A gate with everything around it, in simulated time: arm, latents, and a controller that watches what it is sent."""

import math

import numpy as np

from jepa_ros.robot.gate.gate import Gate
from jepa_ros.robot.gate.types import GateSettings, GateState
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.trajectory_points import Points
from jepa_ros.sim.controller import TrajectoryController

NAMES = tuple(f"joint{i}" for i in range(1, 8))
LIMITS = JointLimits(NAMES, np.full(7, -2.0), np.full(7, 2.0), np.full(7, 2.5), np.full(7, 20.0), np.full(7, 1000.0))
START = 1_700_000_000.0  # s, a ROS time of these years: float64 is coarse there
DT = 0.005
SLACK = 1.002  # limits hold at 5 ms samples to this factor
ZERO = np.zeros(7)
WITHOUT_TIMEOUTS = dict.fromkeys(("latent_timeout", "joint_timeout", "planner_timeout"), math.inf)
GOAL = np.array([0.4, -0.3, 0.2, 0.5, -0.1, 0.2, -0.4])


def minimum_jerk(start, goal, duration, step=0.05):
    """(J,) rad to (J,) rad from rest to rest."""
    t = np.arange(0.0, duration + step / 2, step)
    u = t / t[-1]
    way = np.subtract(goal, start)
    f = 10 * u**3 - 15 * u**4 + 6 * u**5
    fd = (30 * u**2 - 60 * u**3 + 30 * u**4) / t[-1]
    fdd = (60 * u - 180 * u**2 + 120 * u**3) / t[-1] ** 2
    return JointTrajectory(NAMES, t, start + np.outer(f, way), np.outer(fd, way), np.outer(fdd, way))


def continuing(state, goal, duration):
    """From state (3, J) to rest at goal (J,) rad: one quintic, points every 0.05 s."""
    end = np.zeros((3, len(goal)))
    end[0] = goal
    path = Path(np.array([0.0, duration]), np.stack((state, end))).divided()
    return JointTrajectory(NAMES, path.times, *path.states.transpose(1, 0, 2))


def from_path(path):
    return JointTrajectory(NAMES, path.times - path.start, *path.states.transpose(1, 0, 2))


class Bench:
    """Steps a gate at 200 Hz. `measured` overrides the arm's positions; the flags cut an input off."""

    def __init__(self, settings=None, limits=LIMITS, q=None, executed=None, clearance=None, **changes):
        defaults = dict(latent_timeout=0.2, resume_after=0.1)
        self.gate = Gate(limits, settings or GateSettings(**{**defaults, **changes}), executed, clearance)
        self.limits = limits
        self.now = START
        self.q = np.zeros(7) if q is None else np.array(q, dtype=float)
        self.measured = None
        self.send_joints = self.send_latents = self.planner_lives = True
        self.windows, self.executed, self.references, self.states = [], [], [], []
        self.output = None

    # what happens

    def step(self, seconds=DT):
        for _ in range(round(seconds / DT)):
            self.now = round((self.now + DT - START) / DT) * DT + START  # no drift of rounding
            if self.send_joints:
                self.send_state(self.q if self.measured is None else self.measured)
            if self.send_latents:
                self.gate.record_latent(self.now - 0.08, self.now)
            if self.planner_lives:
                self.gate.record_planner_alive(self.now)
            self.tick()
        return self

    def send_state(self, q, names=NAMES, stamp=None):
        self.gate.update_joint_states(
            names, list(q), [0.0] * len(names), self.now if stamp is None else stamp, self.now
        )

    def tick(self):
        self.output = out = self.gate.tick(self.now)
        if out.window is not None:
            self.check_window(out.window)
            self.windows.append(out.window)
        if out.reference is not None:
            self.check_reference(out.reference)
            self.q = out.reference[0]
        self.references.append(out.reference)
        self.states.append(out.status.state)
        self.executed += out.executed
        return out

    def plan(self, trajectory, ahead=0.0, valid=3.0, plan_id=1, source=None):
        start = self.now + ahead
        source = self.now - 0.1 if source is None else source
        return self.gate.submit_plan(trajectory, start, source, self.now + valid, plan_id, self.now)

    def ready(self):
        return self.step(0.2)

    def until(self, state, within=3.0):
        for _ in range(round(within / DT)):
            if self.step().state == state:
                return self
        raise AssertionError(f"not {state!r} within {within} s, but {self.output.status}")

    def jump_allowed(self):
        """The reference may start anew at the measured position, or the clock was changed."""
        self.references.append(None)

    @property
    def is_continuous(self):
        """Whether the reference continues the last one: it does not where the gate has found it anew."""
        return self.state != GateState.INACTIVE and len(self.gate._past) > 1

    # what must hold at any time

    @property
    def state(self):
        return self.output.status.state

    @property
    def code(self):
        return self.output.status.code

    @property
    def text(self):
        return self.output.status.text

    def check_window(self, window):
        trajectory, limits = window.trajectory, self.limits
        times = np.arange(0.0, trajectory.duration, DT)
        q, qd, qdd = trajectory.sample(times)
        end = [x[-1] for x in (trajectory.velocities, trajectory.accelerations)]
        assert not np.any(end), "a window must end at rest"
        assert window.start <= self.now + 1e-6
        # joint_trajectory_controller would take worse, and should not: see jepa_ros/sim/controller.py.
        assert len(set(trajectory.names)) == len(NAMES) and trajectory.times[0] >= 0.0
        TrajectoryController(NAMES).accept(Points.from_trajectory(trajectory, window.start), self.now)
        assert np.isfinite(trajectory.positions).all()
        assert (np.abs(qd) <= limits.velocity * SLACK).all()
        assert (np.abs(qdd) <= limits.acceleration * SLACK).all()
        assert (np.abs(np.diff(qdd, axis=0)) <= limits.jerk * DT * SLACK).all()
        excess = limits.excess(q)
        assert (excess - np.minimum.accumulate(excess, axis=0) < 1e-5).all(), "outside, only inward motion is allowed"
        if self.references and self.references[-1] is not None and self.is_continuous:
            # Wherever a controller takes the window over, the next samples continue the last reference.
            q1, qd1, _ = trajectory.sample(np.clip(self.now - window.start, 0, trajectory.duration))
            q0, qd0, qdd0 = self.references[-1]
            assert np.abs(q1 - q0 - qd0 * DT).max() < limits.acceleration.max() * DT**2
            assert np.abs(qd1 - qd0 - qdd0 * DT).max() < limits.jerk.max() * DT**2

    def check_reference(self, x):
        assert np.isfinite(x).all()
        assert (np.abs(x[1]) <= self.limits.velocity * SLACK).all()
        assert (np.abs(x[2]) <= self.limits.acceleration * SLACK).all()
        last = self.references[-1] if self.references else None
        # From INACTIVE the gate starts again at the measured position, wherever that is.
        if last is not None and self.states[-1] != GateState.INACTIVE and self.is_continuous:
            dt = DT * 1.001
            assert (np.abs(x[0] - last[0]) <= self.limits.velocity * dt * SLACK).all()
            assert (np.abs(x[1] - last[1]) <= self.limits.acceleration * dt * SLACK).all()
            assert (np.abs(x[2] - last[2]) <= self.limits.jerk * dt * SLACK + 1e-6).all()


def at_rest(reference):
    return reference is None or math.isclose(float(np.abs(reference[1:]).max()), 0.0, abs_tol=1e-9)


def moving(after=0.4, **settings):
    """A bench in the middle of a plan to GOAL."""
    bench = Bench(**settings).ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    bench.step(after)
    assert bench.state == GateState.TRACKING and np.abs(bench.output.reference[1]).max() > 0.1
    return bench
