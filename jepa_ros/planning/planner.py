"""From a latent state and a goal to the motion that the model predicts will reach it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.planning import POLICY_MODES
from jepa_ros.planning.goal import Goal, Objective, Outcome
from jepa_ros.planning.policy import PolicyOnlyPlanner
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.planning.solver import Pool, Solution, Solver
from jepa_ros.planning.solvers.icem import ICem
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.world_model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails

ALTERNATIVES = 3
"""Candidates tried after the best one, where the exact check of its joint path forbids it."""
KEPT = 4
"""Elites that the next plan starts from."""


@dataclass(frozen=True)
class PlannedMotion:
    """A plan and what the model predicts of it.

    knots: (n, D) from the hand-over, a tick each. actions: (ticks, A) executed actions from the frame on. cost: of
    the objective; Inf where everything that was tried is forbidden or could not be judged. distance: of what is seen to
    the goal. predicted_distance: at the horizon's end. tool: (H, 3) m in the base frame, where it is expected.
    """

    knots: np.ndarray
    actions: np.ndarray
    cost: float
    distance: float
    predicted_distance: float
    tool: np.ndarray
    iterations: int
    samples: int
    plan_ms: float


@dataclass
class LatentPlanner:
    """Searches in the model's imagination; keeps the last plan's elites as a warm start. One goal at a time.

    horizon: model steps. budget: s that one search may take. policy: one of planning.POLICY_MODES. Raises InputError
    for policy_only with a model that has no policy; other modes then plan without one.
    """

    checkpoint: Checkpoint
    space: MotionSpace
    horizon: int = 5
    budget: float = 0.08
    solver: Solver = field(default_factory=ICem)
    objective: Objective = field(default_factory=Objective)
    guardrails: Guardrails | None = None
    policy: str = "policy_first"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICY_MODES:
            raise InputError(f"policy: expected one of {', '.join(POLICY_MODES)}, found '{self.policy}'")
        self._policy_only = PolicyOnlyPlanner(self.checkpoint) if self.policy == "policy_only" else None
        self.reset()

    def reset(self) -> None:
        """Forget the warm start: new goal, new episode, time that jumped."""
        self._rng = np.random.default_rng(self.seed)
        self._last = np.zeros((0, 0, self.space.axes))

    @torch.inference_mode()
    def plan(
        self,
        situation: Situation,
        goal: Goal,
        elapsed: int = 0,
        allowed: Callable[[np.ndarray], bool] = lambda knots: True,
    ) -> PlannedMotion:
        """The best motion found in the budget. `elapsed`: ticks by which the hand-over moved since the last plan.

        allowed: whether knots (n, D) may be handed over; what was found is passed through until one may, best first.
        """
        begin = time.perf_counter()
        imagination = RolloutProblem(
            self.checkpoint, self.space, situation, goal, self.objective, self.horizon, self.guardrails
        )
        if self._policy_only is not None and goal.latent is not None:
            solution, outcome, actions = self._plan_policy_only(imagination)
        else:
            solution, outcome, actions = self._search(imagination, elapsed, begin)
        if np.isfinite(solution.costs[0]) and not allowed(solution.candidates[0]):
            solution, outcome, actions = self._next_feasible(imagination, solution, allowed)
        return self._describe_motion(imagination, solution, outcome, actions, begin)

    def _plan_policy_only(self, imagination: RolloutProblem) -> tuple[Solution, Outcome, torch.Tensor]:
        """System 1: what the policy does, judged by the model but not improved."""
        committed, fixed = imagination.committed
        actions = self._policy_only.decide(
            imagination.situation.context.to(committed.device), imagination.goal.latent, committed[:fixed], self.horizon
        )
        candidate = imagination.repair(imagination.knots_of(actions[None].cpu().numpy()))
        costs = imagination.cost(candidate)
        return Solution(candidate, costs, candidate[None], 1, 1), *imagination.recall(candidate[0])

    def _search(
        self, imagination: RolloutProblem, elapsed: int, begin: float
    ) -> tuple[Solution, Outcome, torch.Tensor]:
        seeds, ways = self._seeds(imagination, elapsed)
        problem = imagination.problem(seeds)
        if self.policy == "policy_first" and self._arrives(imagination, problem.seeds[0], problem.seed_costs[0]):
            solution = Pool(problem, len(seeds)).solution(1)
        else:
            solution = self.solver.solve(problem, self.budget - (time.perf_counter() - begin), self._rng)
        self._last = solution.elites[0, :KEPT]
        return self._fall_back_to_policy(imagination, solution, seeds[ways:], problem.seed_costs[0, ways:])

    def _arrives(self, imagination: RolloutProblem, seeds: np.ndarray, costs: np.ndarray) -> bool:
        """Whether the best of the seeds (K, n, D) is predicted to end within the goal's tolerances."""
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        return bool(np.isfinite(costs[best])) and bool(
            imagination.goal.within(imagination.recall(seeds[best])[0])[0, -1]
        )

    def _fall_back_to_policy(
        self, imagination: RolloutProblem, solution: Solution, ways: np.ndarray, costs: np.ndarray
    ) -> tuple[Solution, Outcome, torch.Tensor]:
        """What was found, and what is predicted of it; but where that ends in the flat part of the latent distance, the
        best of the policy's `ways` (K, n, D), which cost (K,), goes on.

        Latent distances saturate: from far away no plan within the horizon looks better than standing still.
        """
        outcome, actions = imagination.recall(solution.candidates[0])
        first = imagination.goal.terms[0]
        far = getattr(first, "metric", "") in ("l2", "l1") and np.isfinite(costs).any()
        if not far or float(first.distance(outcome)[0, -1]) <= self.checkpoint.config.distance.far:
            return solution, outcome, actions
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        self._last = ways[best : best + 1]
        led = Solution(ways[best : best + 1], costs[best : best + 1], ways[None], solution.iterations, solution.samples)
        return led, *imagination.recall(ways[best])

    def _next_feasible(
        self, imagination: RolloutProblem, solution: Solution, allowed: Callable[[np.ndarray], bool]
    ) -> tuple[Solution, Outcome, torch.Tensor]:
        """The best of the other elites that may be handed over; with none the cost is Inf."""
        for candidate in solution.elites[0, 1 : 1 + ALTERNATIVES]:
            cost = imagination.cost(candidate[None])
            if np.isfinite(cost[0]) and allowed(candidate):
                return replace(solution, candidates=candidate[None], costs=cost), *imagination.predict(candidate[None])
        return replace(solution, costs=np.array([np.inf])), *imagination.recall(solution.candidates[0])

    def _seeds(self, imagination: RolloutProblem, elapsed: int) -> tuple[np.ndarray, int]:
        """(K, n, D): the last plan's elites moved on in time (else: stop), stop, and from which on what the policy
        proposes."""
        n = imagination.ticks
        kept = np.zeros((len(self._last), n, self.space.axes))
        rest = self._last[:, elapsed:][:, :n]
        kept[:, : rest.shape[1]] = rest
        seeds = [kept, np.zeros((1, n, self.space.axes))]
        if self.policy != "none":
            seeds.append(imagination.proposals())
        return imagination.repair(np.concatenate(seeds)), len(kept) + 1

    def _describe_motion(
        self, imagination: RolloutProblem, solution: Solution, outcome: Outcome, actions: torch.Tensor, begin: float
    ) -> PlannedMotion:
        goal, proprioception = imagination.goal, self.checkpoint.config.proprioception
        tool = np.stack(np.broadcast_arrays(*self.space.to_xyz(outcome.tool[0].cpu().numpy())), axis=-1)
        if proprioception.dimension:
            states = outcome.states[0].cpu().numpy() * proprioception.std + np.array(proprioception.mean)
            tool = self.space.tool_positions(states)
        return PlannedMotion(
            knots=solution.candidates[0],
            actions=actions[0].reshape(-1, self.space.dimension).cpu().numpy(),
            cost=float(solution.costs[0]),
            distance=float(goal.distance(imagination.seen)[0, 0]),
            predicted_distance=float(goal.distance(outcome)[0, -1]),
            tool=tool,
            iterations=solution.iterations,
            samples=solution.samples,
            plan_ms=1e3 * (time.perf_counter() - begin),
        )
