"""From a latent state and a goal to the motion that the model predicts will reach it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from jepa_ros.planning.cem import Cem
from jepa_ros.planning.objective import GoalDistance, latent_distance
from jepa_ros.planning.proposals import propose
from jepa_ros.planning.solver import Problem, Solver
from jepa_ros.robot.action_space import PlanarVelocity
from jepa_ros.robot.planar_path import travel_matrix
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context


@dataclass(frozen=True)
class Situation:
    """All that a plan starts from; times in s after the frame's stamp.

    context: B = 1, its last entry the frame's. committed: times (M,) → tool positions (M, 2) m and velocities (M, 2)
    m/s that are promised to the gate until the hand-over. hand_over: when the new plan takes effect. speed: factor on
    max_speed that the search stays within.
    """

    context: Context
    committed: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    hand_over: float
    speed: float = 1.0


@dataclass(frozen=True)
class Imagined:
    """A plan and what the model predicts of it.

    knots: (n, A) from the hand-over, a tick each. actions: (ticks, A) executed actions from the frame on. cost: of
    the objective. distance: of the frame's latent to the goal. predicted_distance: at the horizon's end. joints:
    (H, J) rad.
    """

    knots: np.ndarray
    actions: np.ndarray
    cost: float
    distance: float
    predicted_distance: float
    joints: np.ndarray
    iterations: int
    samples: int
    plan_ms: float


@dataclass
class LatentPlanner:
    """Searches in the model's imagination; keeps the last plan as a warm start. One goal at a time.

    horizon: model steps. budget: s that one search may take.
    """

    checkpoint: Checkpoint
    space: PlanarVelocity
    horizon: int = 5
    budget: float = 0.08
    solver: Solver = field(default_factory=Cem)
    objective: GoalDistance = field(default_factory=GoalDistance)
    seed: int = 0

    def __post_init__(self) -> None:
        proprioception = self.checkpoint.config.proprioception
        self._mean = torch.tensor(proprioception.mean)
        self._std = torch.tensor(proprioception.std)
        self.reset()

    def reset(self) -> None:
        """Forget the warm start: new goal, new episode, time that jumped."""
        self._rng = np.random.default_rng(self.seed)
        self._last: np.ndarray | None = None

    @torch.inference_mode()
    def plan(self, situation: Situation, goal: torch.Tensor, elapsed: int = 0) -> Imagined:
        """The best motion found in the budget. `elapsed`: ticks by which the hand-over moved since the last plan."""
        begin = time.perf_counter()
        imagination = _Imagination(self, situation, goal)
        seeds, ways = self._seeds(imagination, elapsed)
        costs = imagination.cost(seeds)
        solution = self.solver.solve(
            Problem(imagination.repair, imagination.cost, seeds, costs),
            self.budget - (time.perf_counter() - begin),
            self._rng,
        )
        candidate, predicted, states, actions = self._led(imagination, solution.candidate, seeds[ways:], costs[ways:])
        self._last = candidate
        joints = states[:, : len(self.checkpoint.config.proprioception.joints)]
        count = joints.shape[1]
        return Imagined(
            knots=candidate,
            actions=actions.reshape(-1, self.space.dimension).numpy(),
            cost=solution.cost,
            distance=float(latent_distance(situation.context.latents[0, -1], goal)),
            predicted_distance=float(latent_distance(predicted[-1], goal)),
            joints=(joints * self._std[:count] + self._mean[:count]).numpy(),
            iterations=solution.iterations,
            samples=solution.samples,
            plan_ms=1e3 * (time.perf_counter() - begin),
        )

    def _led(
        self, imagination: _Imagination, found: np.ndarray, ways: np.ndarray, costs: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What was found, and latents, states and actions that are predicted of it; but where that ends in the flat
        part of the latent distance, the best of the policy's `ways` (K, n, A), which cost (K,), goes on.

        Latent distances saturate: from far away no plan within the horizon looks better than standing still.
        """
        predicted, *others = imagination.recall(found)
        ends = float(latent_distance(predicted[-1], imagination.goal))
        if ends <= self.checkpoint.config.distance.far or not np.isfinite(costs).any():
            return found, predicted, *others
        way = ways[int(np.argmin(np.nan_to_num(costs, nan=np.inf)))]
        return way, *imagination.recall(way)

    def _seeds(self, imagination: _Imagination, elapsed: int) -> tuple[np.ndarray, int]:
        """(K, n, A): the last plan moved on in time (else: stop), stop, and from which on what the policy proposes."""
        n = imagination.ticks
        seeds = [np.zeros((1, n, self.space.dimension))]
        if self._last is not None:
            rest = self._last[elapsed:][:n]
            kept = np.zeros_like(seeds[0])
            kept[0, : len(rest)] = rest
            seeds.insert(0, kept)
        ways = len(seeds)
        if self.checkpoint.policy is not None:
            seeds.append(imagination.proposals())
        return imagination.repair(np.concatenate(seeds)), ways


class _Imagination:
    """One situation's maps from candidate knots to model actions, predictions and costs."""

    def __init__(self, planner: LatentPlanner, situation: Situation, goal: torch.Tensor):
        config, space = planner.checkpoint.config, planner.space
        self._planner, self._situation, self.goal = planner, situation, goal
        self._tick, self._block = config.tick, config.block
        self._total = planner.horizon * config.block
        self.ticks = max(1, int(np.ceil((self._total * self._tick - situation.hand_over) / self._tick - 1e-6)))
        self._ends = np.arange(self._total + 1) * self._tick
        at = situation.hand_over
        position, velocity = situation.committed(np.append(np.minimum(self._ends, at), at))
        self._xy, self._start = position[-1], velocity[-1] / space.max_speed
        self._offset = position[:-1]  # where the committed part alone leads by the end of each model tick
        after = np.maximum(self._ends - at, 0.0)
        self._matrix = travel_matrix(self.ticks + 1, after, self._tick) * space.max_speed
        self._least, self._best = np.inf, None

    def repair(self, knots: np.ndarray) -> np.ndarray:
        """Candidates within speed (also the speed factor), acceleration and workspace."""
        space, speed = self._planner.space, self._situation.speed
        if speed < 1.0:
            knots = knots * np.minimum(1.0, speed / np.maximum(1e-9, np.linalg.norm(knots, axis=-1, keepdims=True)))
        return space.constrain(self._xy, self._start, knots)

    def actions(self, knots: np.ndarray) -> torch.Tensor:
        """Candidates (S, n, A) → what the gate would let through a model tick: (S, H, K)."""
        start = np.broadcast_to(self._start, (len(knots), 1, knots.shape[-1]))
        path = self._offset + self._matrix @ np.concatenate([start, knots], axis=1)
        moved = np.diff(path, axis=1) / (self._planner.space.max_speed * self._tick)
        return torch.from_numpy(moved.astype(np.float32)).reshape(len(knots), self._planner.horizon, -1)

    def predict(self, knots: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Candidates (S, n, A) → latents (S, H, *L), normalised proprioception (S, H, P), actions (S, H, K)."""
        actions = self.actions(knots)
        predicted, states = self._planner.checkpoint.model.rollout(self._situation.context.expand(len(knots)), actions)
        return predicted, states, actions

    def cost(self, knots: np.ndarray) -> np.ndarray:
        """(S,) costs of candidates (S, n, A)."""
        predicted, states, actions = self.predict(knots)
        costs = self._planner.objective(predicted, self.goal, actions).numpy()
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        if costs[best] < self._least:
            self._least = float(costs[best])
            self._best = (knots[best], predicted[best], states[best], actions[best])
        return costs

    def recall(self, knots: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (H, *L), states (H, P) and actions (H, K) of one candidate (n, A); the best one's are known still."""
        if self._best is not None and np.array_equal(knots, self._best[0]):
            return self._best[1:]
        predicted, states, actions = self.predict(knots[None])
        return predicted[0], states[0], actions[0]

    def proposals(self) -> np.ndarray:
        """(K, n, A) knots of the policy's imagined ways to the goal, not yet repaired."""
        committed = self.actions(np.zeros((1, self.ticks, self._planner.space.dimension)))
        fixed = int(self._situation.hand_over / self._tick + 1e-6)
        actions = propose(
            self._planner.checkpoint,
            self._situation.context,
            self.goal,
            self._planner.horizon,
            committed.reshape(-1, self._planner.space.dimension)[:fixed],
        ).numpy()  # (K, total, A) at the model's ticks
        # A knot is a velocity at a tick's end on the hand-over's grid; an action is the mean over a model tick.
        moments = self._situation.hand_over + self._tick * np.arange(1, self.ticks + 1)
        centres = np.clip(moments / self._tick - 0.5, 0, self._total - 1)
        left = np.minimum(centres.astype(int), self._total - 2)
        weight = (centres - left)[:, None]
        return actions[:, left] * (1 - weight) + actions[:, left + 1] * weight
