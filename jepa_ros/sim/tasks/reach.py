"""The reach task: bring the tool to where it is in a goal image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.sim.scene import Scene

NEAREST, TYPICAL = 0.10, 0.22
"""m between a start and its goal: at least; and of half of the goals at least, or most would be near by chance."""


@dataclass(frozen=True)
class ReachGoal:
    """start_xy, goal_xy: tool positions (2,) m. start_q, goal_q: (J,) rad. image: (H, W, 3) uint8 rgb of the goal."""

    start_xy: np.ndarray
    goal_xy: np.ndarray
    start_q: np.ndarray
    goal_q: np.ndarray
    image: np.ndarray


@dataclass
class Reached:
    """True once the tool has been within `tolerance_m` of the goal for `hold_s` without a break."""

    tolerance_m: float = 0.03
    hold_s: float = 1.0
    _since: float | None = field(default=None, init=False)

    def update(self, t: float, distance: float) -> bool:
        """The tool is `distance` m away at time t s."""
        if distance > self.tolerance_m:
            self._since = None
            return False
        self._since = t if self._since is None else self._since
        return t - self._since >= self.hold_s


def sample_position(space: PlanarVelocity, rng: np.random.Generator) -> np.ndarray:
    """A tool position (2,) m, uniform over the workspace."""
    low, high = space.workspace.min(0), space.workspace.max(0)
    while True:
        xy = rng.uniform(low, high)
        if (space.normals @ xy <= space.offsets).all():
            return xy


def make_goals(scene: Scene, robot: RobotConfig, space: PlanarVelocity, count: int, seed: int) -> list[ReachGoal]:
    """`count` goals in a chain: each starts where the one before it lies, the first one at a random place.

    Raises InputError for a count under 1.
    """
    if count < 1:
        raise InputError(f"goals: expected at least 1, found {count}")
    rng = np.random.default_rng(seed)
    goals, xy = [], sample_position(space, rng)
    for index in range(count):
        least = TYPICAL if index % 2 == 0 else NEAREST
        target = _sample_away(space, xy, least, rng)
        start_q, goal_q = space.inverse_kinematics(xy), space.inverse_kinematics(target)
        scene.reset(dict(zip(robot.joints, goal_q, strict=True)))
        goals.append(ReachGoal(xy, target, start_q, goal_q, scene.render().copy()))
        xy = target
    scene.reset()
    return goals


def goal_set_hash(goals: list[ReachGoal]) -> str:
    """12 hex digits that name a set of starts and goals, rounded to 0.1 mm."""
    places = np.array([np.concatenate([g.start_xy, g.goal_xy]) for g in goals])
    return hashlib.sha256(np.round(places, 4).astype("<f8").tobytes()).hexdigest()[:12]


def _sample_away(space: PlanarVelocity, xy: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray:
    best = sample_position(space, rng)
    for _ in range(200):
        if np.linalg.norm(best - xy) >= least:
            return best
        candidate = sample_position(space, rng)
        if np.linalg.norm(candidate - xy) > np.linalg.norm(best - xy):
            best = candidate
    return best


@dataclass
class GoalSet:
    """Goals in a chain (each starts where the one before lies), their hash, and the joints that they are given in."""

    goals: list
    hash: str
    joints: tuple[str, ...]
    height: float  # m, of the tool over the base frame's origin

    def place(self, index: int) -> np.ndarray:
        """Where a goal wants the tool (3,), m in the base frame."""
        return np.array([*self.goals[index].goal_xy, self.height])

    def start(self, index: int) -> np.ndarray:
        """Where the tool is before (3,), m."""
        return np.array([*self.goals[index].start_xy, self.height])


def make_goal_set(robot_name: str, count: int, seed: int) -> GoalSet:
    """Goals drawn in a scene of this process's own, before the graph starts."""
    from jepa_ros.robot.config import load_robot
    from jepa_ros.sim.cell import make_action_space
    from jepa_ros.sim.scene import Scene
    from jepa_ros.sim.tasks.reach import goal_set_hash, make_goals

    robot, scene = load_robot(robot_name), Scene()
    goals = make_goals(scene, robot, make_action_space(robot, scene.urdf), count, seed)
    return GoalSet(goals, goal_set_hash(goals), tuple(robot.joints), robot.action_space.height)
