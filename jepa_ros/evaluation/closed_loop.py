"""The whole loop in one process and simulated time: camera, encoder, planner, gate, controller, physics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.planning.receding_horizon import PlanStep, RecedingHorizonController
from jepa_ros.robot.gate.types import ExecutedTick
from jepa_ros.sim.cell import CYCLE, ArmCell
from jepa_ros.sim.tasks.reach import Reached, ReachGoal
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import ModelConfig


@dataclass(frozen=True)
class Timing:
    """What the graph takes, in s: between frames, between plans, from a frame's stamp to the planner seeing its latent,
    and from then to the plan at the gate. timeout: of a goal."""

    camera: float = 1 / 15
    replan: float = 0.2
    see: float = 0.05
    search: float = 0.08
    timeout: float = 15.0


@dataclass
class Trial:
    """One goal's outcome. distances: (n,) m, ground truth each 0.1 s."""

    reached: bool
    start_distance: float
    final_distance: float
    seconds: float
    plans: int = 0
    distances: list[float] = field(default_factory=list)


def run_trial(
    cell: ArmCell,
    goal: ReachGoal,
    act: Callable[[float], None],
    timing: Timing,
    done: Callable[[], bool] = lambda: False,
    executed: Callable[[ExecutedTick], None] = lambda tick: None,
) -> Trial:
    """From the goal's start, at rest, until it is held or time is up. `act` is called before each 10 ms cycle with the
    time in s and hands plans to cell.gate; `executed` hears what the gate let through. Distances are of MuJoCo's own
    gripper site in the plane."""
    cell.reset(goal.start_q)
    begin, reached = cell.scene.time, Reached()
    target = np.array([*goal.goal_xy, cell.space.height])

    def distance() -> float:
        return float(np.linalg.norm(cell.scene.tool_position() - target))

    trial = Trial(False, distance(), distance(), timing.timeout)
    while cell.scene.time - begin < timing.timeout:
        act(cell.scene.time)
        for tick in cell.advance(CYCLE):
            executed(tick)
            trial.distances.append(distance())
        if reached.update(cell.scene.time, distance()):
            trial.reached, trial.seconds = True, cell.scene.time - begin
            break
        if done():
            break
    trial.final_distance = distance()
    return trial


def expect_one_camera(config: ModelConfig) -> None:
    """Raise InputError where a model needs more views than the simulated cell has."""
    if len(config.cameras) > 1:
        raise InputError(
            f"model {config.name}: expected one camera, as the simulated cell has, found {', '.join(config.cameras)}"
        )


class ModelActor:
    """Drives a cell by the model, with the graph's delays. Raises InputError for a model of several cameras."""

    def __init__(self, cell: ArmCell, checkpoint: Checkpoint, controller: RecedingHorizonController, timing: Timing):
        expect_one_camera(checkpoint.config)
        self._cell, self._checkpoint, self._controller, self._timing = cell, checkpoint, controller, timing
        self.plans: list[PlanStep] = []

    def start(self, goal: ReachGoal) -> None:
        """Set the goal image; call after the cell was reset or right before the trial begins."""
        size = self._checkpoint.config.preprocessing.size
        latent = self._checkpoint.model.encode(preprocess(goal.image, size)[None])[0]
        self._controller.observations.clear()
        self._controller.start_episode()
        self._controller.set_goal(latent)
        self.plans = []
        self._frame_at = self._plan_at = None
        self._pending: list[tuple[float, Callable[[], None]]] = []

    def executed(self, tick: ExecutedTick) -> None:
        """The gate let this through."""
        self._controller.add_executed(tick.start, tick.values)

    def __call__(self, now: float) -> None:
        self._controller.add_state(now, self._cell.proprioception(self._checkpoint.config.proprioception.gripper))
        due = [item for item in self._pending if item[0] <= now + 1e-9]
        self._pending = [item for item in self._pending if item[0] > now + 1e-9]
        for _, action in due:
            action()
        # Of the camera's frames only those are drawn that a plan starts from, and the one a model step earlier.
        if self._frame_at is None or now >= self._frame_at - 1e-9:
            self._frame_at = now + self._timing.replan
            self._pending.append((now + self._timing.see, self._seen(now)))

    def _seen(self, stamp: float) -> Callable[[], None]:
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
