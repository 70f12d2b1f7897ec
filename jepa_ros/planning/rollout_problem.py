"""The search problem of one situation: candidate motions to tool paths, model actions, rollouts and costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from jepa_ros.planning.goal import Goal, Objective, Outcome
from jepa_ros.planning.policy import propose_actions
from jepa_ros.planning.solver import Problem
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.tool_path import travel_matrix
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails


@dataclass(frozen=True)
class Situation:
    """What a plan starts from; times in s after the frame's stamp.

    context: B = 1, its last entry is the frame's. committed: times (M,) -> tool positions (M, D) m and velocities
    (M, D) m/s of the reference that the gate follows until the hand-over. hand_over: when the new plan takes effect.
    speed: factor on max_speed that the search respects.
    """

    context: Context
    committed: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    hand_over: float
    speed: float = 1.0


@dataclass
class RolloutProblem:
    """Maps candidates to predictions and costs.

    Candidates are knots (S, n, D) from the hand-over on, a tick each; the model's ticks start at the frame. Knots and
    paths are in the base frame, actions in the model's axes. horizon: model steps. guardrails: candidates that they
    forbid cost Inf.
    """

    checkpoint: Checkpoint
    space: MotionSpace
    situation: Situation
    goal: Goal
    objective: Objective
    horizon: int
    guardrails: Guardrails | None = None

    def __post_init__(self) -> None:
        config, at = self.checkpoint.config, self.situation.hand_over
        tick, total = config.tick, self.horizon * config.block
        self.ticks = max(1, int(np.ceil((total * tick - at) / tick - 1e-6)))
        ends = np.arange(total + 1) * tick
        position, velocity = self.situation.committed(np.append(np.minimum(ends, at), at))
        self._start_position = position[-1]
        self._start_knot = velocity[-1] / self.space.max_speed
        self._offset = position[:-1]  # where the committed part alone leads by the end of each model tick
        after = np.maximum(ends - at, 0.0)
        self._matrix = travel_matrix(self.ticks + 1, after, tick) * self.space.max_speed
        self._to_action = None if self.space.to_action is None else torch.from_numpy(self.space.to_action)
        self._device = self.checkpoint.device
        self._context = self.situation.context.to(self._device)
        self._least_cost = np.inf
        self._best: tuple[np.ndarray, Outcome, torch.Tensor] | None = None

    @property
    def observed(self) -> Outcome:
        """The present state as an outcome, S = H = 1."""
        here = torch.as_tensor(self._offset[:1], dtype=torch.float32, device=self._device)
        return Outcome(self._context.latents[:, -1:], self._context.states[:, -1:], here[None])

    def make_search(self, seeds: np.ndarray) -> Problem:
        """Return the solver's problem (P = 1) that starts from feasible candidates (K, n, D)."""

        def gradient(knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            costs, slopes = self.gradient(knots[0])
            return costs[None], slopes[None]

        return Problem(
            repair=lambda knots: self.repair(knots[0])[None],
            cost=lambda knots: self.cost(knots[0])[None],
            seeds=seeds[None],
            seed_costs=self.cost(seeds)[None],
            gradient=gradient,
        )

    def repair(self, knots: np.ndarray) -> np.ndarray:
        """Return the candidates, limited to speed (with the speed factor), acceleration and workspace."""
        speed = self.situation.speed
        if speed < 1.0:
            knots = knots * np.minimum(1.0, speed / np.maximum(1e-9, self.space.speed_shares(knots)))
        return self.space.constrain(self._start_position, self._start_knot, knots)

    def tool_paths(self, knots: np.ndarray) -> np.ndarray:
        """Return the tool positions (S, ticks + 1, D) m of candidates (S, n, D) at the model's ticks from the frame."""
        start = np.broadcast_to(self._start_knot, (len(knots), 1, knots.shape[-1]))
        return self._offset + self._matrix @ np.concatenate([start, knots], axis=1)

    def predict(self, knots: np.ndarray) -> tuple[Outcome, torch.Tensor]:
        """Return the predicted outcome of candidates (S, n, D) and their actions (S, H, K)."""
        return self._roll_out(torch.from_numpy(self.tool_paths(knots)), self._context)

    def cost(self, knots: np.ndarray) -> np.ndarray:
        """Return the costs (S,) of candidates (S, n, D); Inf if the guardrails forbid one."""
        paths = self.tool_paths(knots)
        outcome, actions = self._roll_out(torch.from_numpy(paths), self._context)
        costs = self.objective(self.goal, outcome, self._by_tick(actions)).cpu().numpy().astype(float)
        if self.guardrails is not None:
            allowed = self.guardrails.feasible(paths)
            costs = np.where(allowed, costs + self.guardrails.price(paths), np.inf)
        least = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        if costs[least] < self._least_cost:
            kept = Outcome(*(x[least : least + 1] for x in (outcome.latents, outcome.states, outcome.tool)))
            self._least_cost, self._best = costs[least], (knots[least], kept, actions[least : least + 1])
        return costs

    def recall(self, knots: np.ndarray) -> tuple[Outcome, torch.Tensor]:
        """Return what `predict` returns for one candidate (n, D), without a rollout if it is the best one so far."""
        best = self._best
        return self.predict(knots[None]) if best is None or not np.array_equal(knots, best[0]) else best[1:]

    def gradient(self, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the costs (S,) of candidates (S, n, D) and the gradients (S, n, D) of the objective alone: guardrails
        have none."""
        costs = self.cost(knots)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.tensor(knots, requires_grad=True)
            start = torch.as_tensor(self._start_knot).expand(len(knots), 1, -1)
            moved = torch.from_numpy(self._matrix) @ torch.cat([start, x], dim=1)
            context = self._context
            context = Context(*(y.clone() for y in (context.latents, context.states, context.actions)))
            outcome, actions = self._roll_out(torch.from_numpy(self._offset) + moved, context)
            self.objective(self.goal, outcome, self._by_tick(actions)).sum().backward()
        return costs, x.grad.numpy()

    def propose(self) -> np.ndarray:
        """Return knots (K, n, D) of the policy's rollouts to the goal, not repaired; K = 0 without policy or latent."""
        goal, policy = self.goal.latent, self.checkpoint.policy
        if goal is None or policy is None:
            return np.zeros((0, self.ticks, self.space.axes))
        committed, fixed = self.committed
        actions = propose_actions(self.checkpoint, policy, self._context, goal, self.horizon, committed[:fixed])
        return self.knots_of(actions.cpu().numpy())

    @property
    def committed(self) -> tuple[torch.Tensor, int]:
        """Actions (ticks, A) of the committed reference, at rest after the hand-over, and how many of the ticks lie
        wholly before the hand-over."""
        still = np.zeros((1, self.ticks, self.space.axes))
        actions = self._actions(torch.from_numpy(self.tool_paths(still)))
        fixed = int(self.situation.hand_over / self.checkpoint.config.tick + 1e-6)
        return actions.reshape(-1, self.space.dimension), fixed

    def knots_of(self, actions: np.ndarray) -> np.ndarray:
        """Return the knots (K, n, D) of actions (K, ticks, A) at the model's ticks, not repaired.

        A knot is a velocity at a tick's end on the hand-over's grid; an action is the mean over a model tick.
        """
        tick, total = self.checkpoint.config.tick, actions.shape[1]
        times = self.situation.hand_over + tick * np.arange(1, self.ticks + 1)
        centres = np.clip(times / tick - 0.5, 0, total - 1)
        left = np.minimum(centres.astype(int), total - 2)
        weight = (centres - left)[:, None]
        return self.space.to_base_axes(actions[:, left] * (1 - weight) + actions[:, left + 1] * weight)

    def _actions(self, paths: torch.Tensor) -> torch.Tensor:
        """Return the actions (S, H, K) that the gate would report for tool paths (S, ticks + 1, D)."""
        moved = paths.diff(dim=1) / (self.space.max_speed * self.checkpoint.config.tick)
        if self._to_action is not None:
            moved = moved @ self._to_action  # as space.to_model_axes, but on tensors
        return moved.float().to(self._device).reshape(len(paths), self.horizon, -1)

    def _by_tick(self, actions: torch.Tensor) -> torch.Tensor:
        """Return blocks (S, H, K) as the actions (S, ticks, A) of single ticks."""
        return actions.unflatten(2, (-1, self.space.dimension)).flatten(1, 2)

    def _roll_out(self, paths: torch.Tensor, context: Context) -> tuple[Outcome, torch.Tensor]:
        actions, block = self._actions(paths), self.checkpoint.config.block
        latents, states = self.checkpoint.model.rollout(context.expand(len(paths)), actions)
        return Outcome(latents, states, paths[:, block::block].float().to(self._device)), actions
