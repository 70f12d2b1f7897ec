"""The whole loop in one process and simulated time: camera, encoder, planner, gate, controller, physics.

`run_trial` runs an actor: the model, or one of the baselines, random motion and an oracle that knows the goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import make_interp_spline

from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.planning.receding_horizon import PlanStep, RecedingHorizonController
from jepa_ros.robot.gate.types import ExecutedTick
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.sim.cell import CYCLE, ArmCell
from jepa_ros.sim.task import GoalHold, Task, TaskGoal
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import ModelConfig


@dataclass(frozen=True)
class Timing:
    """Times of the graph in s. camera: between frames. replan: between plans. see: from a frame's stamp to its latent
    at the planner. search: from then to the plan at the gate. timeout: of a goal."""

    camera: float = 1 / 15
    replan: float = 0.2
    see: float = 0.05
    search: float = 0.08
    timeout: float = 15.0


@dataclass
class Trial:
    """Outcome of one goal. Distances in m between tool and goal, from the simulator; distances (n,): every 0.1 s."""

    reached: bool
    start_distance: float
    final_distance: float
    seconds: float
    plans: int = 0
    distances: list[float] = field(default_factory=list)


def run_trial(
    cell: ArmCell,
    task: Task,
    goal: TaskGoal,
    act: Callable[[float], None],
    timing: Timing,
    executed: Callable[[ExecutedTick], None] = lambda tick: None,
) -> Trial:
    """Run from the goal's start, at rest, until the goal is held or the time is over, and return the outcome.

    act: called before each 10 ms cycle with the time in s; it passes plans to cell.gate. executed:
    called with each control tick that the gate executed. The task measures the distance in MuJoCo.
    """
    task.reset_to_start(cell, goal)
    begin, hold = cell.scene.time, GoalHold(task.tolerance_m, task.hold_s)

    def distance() -> float:
        return task.measure_distance(cell.scene.frame_pose, goal)

    trial = Trial(False, distance(), distance(), timing.timeout)
    while cell.scene.time - begin < timing.timeout:
        act(cell.scene.time)
        for tick in cell.advance(CYCLE):
            executed(tick)
            trial.distances.append(distance())
        if hold.update(cell.scene.time, distance()):
            trial.reached, trial.seconds = True, cell.scene.time - begin
            break
    trial.final_distance = distance()
    return trial


def expect_one_camera(config: ModelConfig) -> None:
    """Raise InputError where a model needs more cameras than the simulated cell has."""
    if len(config.cameras) > 1:
        raise InputError(
            f"model {config.name}: needs the cameras {', '.join(config.cameras)}; the simulated cell has one camera"
        )


class ModelActor:
    """Drives a cell with the model and the graph's delays. Raises InputError for a model with several cameras."""

    def __init__(self, cell: ArmCell, checkpoint: Checkpoint, controller: RecedingHorizonController, timing: Timing):
        expect_one_camera(checkpoint.config)
        self._cell, self._checkpoint, self._controller, self._timing = cell, checkpoint, controller, timing
        self.plans: list[PlanStep] = []

    def start(self, goal: TaskGoal) -> None:
        """Set the goal image. Call it right before `run_trial`."""
        size = self._checkpoint.config.preprocessing.size
        latent = self._checkpoint.model.encode(preprocess(goal.image, size)[None])[0]
        self._controller.observations.clear()
        self._controller.start_episode()
        self._controller.set_goal(latent)
        self.plans = []
        self._frame_at = self._plan_at = None
        self._pending: list[tuple[float, Callable[[], None]]] = []

    def add_executed(self, tick: ExecutedTick) -> None:
        """Add a control tick that the gate executed."""
        self._controller.add_executed(tick.start, tick.values)

    def __call__(self, now: float) -> None:
        self._controller.add_state(now, self._cell.proprioception(self._checkpoint.config.proprioception.gripper))
        due = [item for item in self._pending if item[0] <= now + 1e-9]
        self._pending = [item for item in self._pending if item[0] > now + 1e-9]
        for _, action in due:
            action()
        # Only frames that a plan starts from, and those one model step earlier, are rendered.
        if self._frame_at is None or now >= self._frame_at - 1e-9:
            self._frame_at = now + self._timing.replan
            self._pending.append((now + self._timing.see, self._observe(now)))

    def _observe(self, stamp: float) -> Callable[[], None]:
        config = self._checkpoint.config
        frame = preprocess(self._cell.scene.render(), config.preprocessing.size)

        def deliver() -> None:
            self._controller.add_latent(stamp, self._checkpoint.model.encode(frame[None])[0])
            now = stamp + self._timing.see
            step = self._controller.plan_step(now)
            if isinstance(step, PlanStep):
                self._pending.append((now + self._timing.search, lambda: self._hand_over(step)))

        return deliver

    def _hand_over(self, step: PlanStep) -> None:
        now = self._cell.scene.time
        verdict = self._cell.gate.submit_plan(
            step.trajectory, step.start, step.source_stamp, step.valid_until, step.plan_id, now
        )
        if not verdict:
            self._controller.drop_reference()
        self.plans.append(step)


class RandomActor:
    """Baseline: random play as in the training data, in plans of PLAN_TICKS control ticks."""

    PLAN_TICKS = 30

    def __init__(self, cell: ArmCell, seed: int):
        self._cell, self._rng = cell, np.random.default_rng(seed)

    def start(self, goal: TaskGoal) -> None:
        """Restart; the goal is ignored."""
        self._plan, self._next = 0, -np.inf

    def __call__(self, now: float) -> None:
        if now < self._next:
            return
        space, gate = self._cell.space, self._cell.gate
        q, qd, qdd = gate.tick(now).reference
        play = space.sample_play(self.PLAN_TICKS, self._rng)
        knots = space.constrain(space.tool_coordinates(q), space.tool_knot(q, qd), play)
        trajectory = space.to_trajectory(q, qd, qdd, knots)
        self._plan += 1
        end = now + trajectory.duration
        gate.submit_plan(trajectory, now, now, end + 1.0, self._plan, now)
        self._next = end + 0.1


class OracleActor:
    """Upper baseline: moves the tool along the task's oracle path in straight lines.

    (A straight line in joint space would dip: on long ways the gripper would hit the table.)
    """

    def __init__(self, cell: ArmCell, task: Task):
        self._cell, self._task = cell, task

    def start(self, goal: TaskGoal) -> None:
        """Set the goal."""
        self._path, self._plan, self._next = list(self._task.oracle_path(goal)), 0, -np.inf

    def __call__(self, now: float) -> None:
        if not self._path or now < self._next:
            return
        target = self._path.pop(0)
        space = self._cell.space
        q = self._cell.gate.tick(now).reference[0]
        way = target - space.tool_coordinates(q)
        duration = max(1.0, 1.875 * float(np.linalg.norm(way)) / (0.8 * space.max_speed))  # minimum jerk peaks at 1.875
        s = np.linspace(0.0, 1.0, 41)
        positions = [q]
        for share in (10 * s**3 - 15 * s**4 + 6 * s**5)[1:]:
            positions.append(space.inverse_kinematics(target - (1.0 - share) * way, positions[-1]))
        rest = [(1, np.zeros(len(q))), (2, np.zeros(len(q)))]
        spline = make_interp_spline(s * duration, np.array(positions), k=5, bc_type=(rest, rest))
        points = (spline(s * duration, order) for order in range(3))
        trajectory = JointTrajectory(self._cell.joints, s * duration, *points)
        self._plan += 1
        self._next = now + duration + 0.1
        self._cell.gate.submit_plan(trajectory, now, now, now + duration + 1.0, self._plan, now)
