"""One situation's maps from candidate motions to model actions, predictions and costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from jepa_ros.planning.goal import Goal, Objective, Outcome
from jepa_ros.planning.policy import propose
from jepa_ros.planning.solver import Problem
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.tool_path import travel_matrix
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails


@dataclass(frozen=True)
class Situation:
    """All that a plan starts from; times in s after the frame's stamp.

    context: B = 1, its last entry the frame's. committed: times (M,) → tool positions (M, D) m and velocities (M, D)
    m/s that are promised to the gate until the hand-over. hand_over: when the new plan takes effect. speed: factor on
    max_speed that the search stays within.
    """

    context: Context
    committed: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    hand_over: float
    speed: float = 1.0


@dataclass
class RolloutProblem:
    """Candidates are knots (S, n, D) from the hand-over on, a tick each; the model ticks begin at the frame. Knots and
    paths are in the base frame, actions in the model's axes.

    horizon: model steps. guardrails: what may not happen; infeasible candidates cost Inf.
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
        self._xy = position[-1]
        self._start = velocity[-1] / self.space.max_speed
        self._offset = position[:-1]  # where the committed part alone leads by the end of each model tick
        after = np.maximum(ends - at, 0.0)
        self._matrix = travel_matrix(self.ticks + 1, after, tick) * self.space.max_speed
        self._to_action = None if self.space.to_action is None else torch.from_numpy(self.space.to_action)
        self._device = self.checkpoint.device
        self._context = self.situation.context.to(self._device)
        self._least, self._best = np.inf, None

    @property
    def seen(self) -> Outcome:
        """What is there now, S = H = 1."""
        here = torch.as_tensor(self._offset[:1], dtype=torch.float32, device=self._device)
        return Outcome(self._context.latents[:, -1:], self._context.states[:, -1:], here[None])

    def problem(self, seeds: np.ndarray) -> Problem:
        """Of one situation (P = 1), to start from feasible candidates (K, n, D)."""
        return Problem(
            repair=lambda knots: self.repair(knots[0])[None],
            cost=lambda knots: self.cost(knots[0])[None],
            seeds=seeds[None],
            seed_costs=self.cost(seeds)[None],
            gradient=lambda knots: tuple(x[None] for x in self.gradient(knots[0])),
        )

    def repair(self, knots: np.ndarray) -> np.ndarray:
        """Candidates within speed (also the speed factor), acceleration and workspace."""
        speed = self.situation.speed
        if speed < 1.0:
            knots = knots * np.minimum(1.0, speed / np.maximum(1e-9, np.linalg.norm(knots, axis=-1, keepdims=True)))
        return self.space.constrain(self._xy, self._start, knots)

    def paths(self, knots: np.ndarray) -> np.ndarray:
        """Candidates (S, n, D) → tool positions (S, ticks + 1, D) m at the model's ticks from the frame on."""
        start = np.broadcast_to(self._start, (len(knots), 1, knots.shape[-1]))
        return self._offset + self._matrix @ np.concatenate([start, knots], axis=1)

    def predict(self, knots: np.ndarray) -> tuple[Outcome, torch.Tensor]:
        """Candidates (S, n, D) → what comes of them, and their actions (S, H, K)."""
        return self._predicted(torch.from_numpy(self.paths(knots)), self._context)

    def cost(self, knots: np.ndarray) -> np.ndarray:
        """(S,) costs of candidates (S, n, D); Inf of those that the guardrails forbid."""
        paths = self.paths(knots)
        outcome, actions = self._predicted(torch.from_numpy(paths), self._context)
        costs = self.objective(self.goal, outcome, actions.unflatten(2, (-1, self.space.dimension)).flatten(1, 2))
        costs = costs.cpu().numpy().astype(float)
        if self.guardrails is not None:
            allowed = self.guardrails.feasible(paths)
            costs = np.where(allowed, costs + self.guardrails.price(paths), np.inf)
        least = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        if costs[least] < self._least:
            kept = Outcome(*(x[least : least + 1] for x in (outcome.latents, outcome.states, outcome.tool)))
            self._least, self._best = costs[least], (knots[least], kept, actions[least : least + 1])
        return costs

    def recall(self, knots: np.ndarray) -> tuple[Outcome, torch.Tensor]:
        """As predict, of one candidate (n, D); of the best one so far it is known still."""
        known = self._best is not None and np.array_equal(knots, self._best[0])
        return self._best[1:] if known else self.predict(knots[None])

    def gradient(self, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) costs of candidates (S, n, D), as `cost`, and their gradients (S, n, D), which know no guardrails."""
        costs = self.cost(knots)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.tensor(knots, requires_grad=True)
            start = torch.as_tensor(self._start).expand(len(knots), 1, -1)
            moved = torch.from_numpy(self._matrix) @ torch.cat([start, x], dim=1)
            context = self._context
            context = Context(*(y.clone() for y in (context.latents, context.states, context.actions)))
            outcome, actions = self._predicted(torch.from_numpy(self._offset) + moved, context)
            actions = actions.unflatten(2, (-1, self.space.dimension)).flatten(1, 2)
            self.objective(self.goal, outcome, actions).sum().backward()
        return costs, x.grad.numpy()

    def proposals(self) -> np.ndarray:
        """(K, n, D) knots of the policy's imagined ways to the goal, not yet repaired; K = 0 where it knows of none."""
        goal = self.goal.latent
        if goal is None or self.checkpoint.policy is None:
            return np.zeros((0, self.ticks, self.space.axes))
        committed, fixed = self.committed
        return self.knots_of(
            propose(self.checkpoint, self._context, goal, self.horizon, committed[:fixed]).cpu().numpy()
        )

    @property
    def committed(self) -> tuple[torch.Tensor, int]:
        """(ticks, A) actions that are promised, standing still after that, and how many whole ticks are."""
        still = np.zeros((1, self.ticks, self.space.axes))
        actions = self._actions(torch.from_numpy(self.paths(still)))
        fixed = int(self.situation.hand_over / self.checkpoint.config.tick + 1e-6)
        return actions.reshape(-1, self.space.dimension), fixed

    def knots_of(self, actions: np.ndarray) -> np.ndarray:
        """Actions (K, ticks, A) at the model's ticks → knots (K, n, D), not yet repaired.

        A knot is a velocity at a tick's end on the hand-over's grid; an action is the mean over a model tick.
        """
        tick, total = self.checkpoint.config.tick, actions.shape[1]
        moments = self.situation.hand_over + tick * np.arange(1, self.ticks + 1)
        centres = np.clip(moments / tick - 0.5, 0, total - 1)
        left = np.minimum(centres.astype(int), total - 2)
        weight = (centres - left)[:, None]
        return self.space.to_base_axes(actions[:, left] * (1 - weight) + actions[:, left + 1] * weight)

    def _actions(self, paths: torch.Tensor) -> torch.Tensor:
        """Tool paths (S, ticks + 1, D) → what the gate would let through a model tick: (S, H, K)."""
        moved = paths.diff(dim=1) / (self.space.max_speed * self.checkpoint.config.tick)
        if self._to_action is not None:
            moved = moved @ self._to_action  # space.to_model_axes, which knows no tensors
        return moved.float().to(self._device).reshape(len(paths), self.horizon, -1)

    def _predicted(self, paths: torch.Tensor, context: Context) -> tuple[Outcome, torch.Tensor]:
        actions, block = self._actions(paths), self.checkpoint.config.block
        latents, states = self.checkpoint.model.rollout(context.expand(len(paths)), actions)
        return Outcome(latents, states, paths[:, block::block].float().to(self._device)), actions
