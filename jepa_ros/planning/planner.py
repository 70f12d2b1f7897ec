"""One plan: from a situation and a goal to the motion that the model predicts will reach it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.planning import POLICY_MODES
from jepa_ros.planning.goal import Goal, LatentTerm, Objective, Outcome
from jepa_ros.planning.policy import PolicyOnlyPlanner
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.planning.solver import Pool, Solution, Solver
from jepa_ros.planning.solvers.icem import ICem
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.world_model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails

ALTERNATIVES = 3
"""Candidates tried after the best one if the exact check forbids its joint path."""
WARM_START_ELITES = 4
"""Elites of a plan that the next search starts from."""

Found = tuple[Solution, Outcome, torch.Tensor]
"""Candidates with their costs, and the predicted outcome and the actions (1, H, K) of the best one."""


@dataclass(frozen=True)
class PlannedMotion:
    """A plan and the model's prediction of it.

    knots: (n, D) from the hand-over, a tick each. actions: (ticks, A) executed actions from the frame on. cost: of
    the objective; Inf if everything tried is forbidden or has no finite cost. distance: from the present state to the
    goal. predicted_distance: at the end of the horizon. tool: (H, 3) predicted tool positions, m in the base frame.
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
    """Searches over rollouts of the model. Keeps the last plan's elites as a warm start. One goal at a time.

    horizon: model steps. budget: s that one search may take. policy: one of planning.POLICY_MODES. Raises InputError
    for policy_only with a model that has no policy; the other modes then search without one.
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
        """Drop the warm start: for a new goal, a new episode, or after a jump in time."""
        self._rng = np.random.default_rng(self.seed)
        self._warm_start = np.zeros((0, 0, self.space.axes))

    @torch.inference_mode()
    def plan(
        self,
        situation: Situation,
        goal: Goal,
        elapsed: int = 0,
        allowed: Callable[[np.ndarray], bool] = lambda knots: True,
    ) -> PlannedMotion:
        """Return the best motion found within the budget.

        elapsed: ticks by which the hand-over moved since the last plan. allowed: returns whether knots (n, D) may be
        handed over; candidates are tried best first until one may.
        """
        begin = time.perf_counter()
        problem = RolloutProblem(
            self.checkpoint, self.space, situation, goal, self.objective, self.horizon, self.guardrails
        )
        if self._policy_only is not None and goal.latent is not None:
            found = self._follow_policy(problem, self._policy_only, goal.latent)
        else:
            found = self._search(problem, elapsed, begin)
        if np.isfinite(found[0].costs[0]) and not allowed(found[0].candidates[0]):
            found = self._next_feasible(problem, found[0], allowed)
        return self._describe_motion(problem, *found, begin)

    def _follow_policy(self, problem: RolloutProblem, policy: PolicyOnlyPlanner, goal: torch.Tensor) -> Found:
        """Return the policy's own motion (System 1): evaluated by the model, but not improved."""
        committed, fixed = problem.committed
        actions = policy.decide(problem.situation.context.to(committed.device), goal, committed[:fixed], self.horizon)
        candidate = problem.repair(problem.knots_of(actions[None].cpu().numpy()))
        costs = problem.cost(candidate)
        return Solution(candidate, costs, candidate[None], 1, 1), *problem.recall(candidate[0])

    def _search(self, problem: RolloutProblem, elapsed: int, begin: float) -> Found:
        seeds, first_proposal = self._make_seeds(problem, elapsed)
        search = problem.make_search(seeds)
        if self.policy == "policy_first" and self._best_seed_arrives(problem, seeds, search.seed_costs[0]):
            solution = Pool(search, len(seeds)).solution(1)
        else:
            solution = self.solver.solve(search, self.budget - (time.perf_counter() - begin), self._rng)
        self._warm_start = solution.elites[0, :WARM_START_ELITES]
        return self._fall_back_to_policy(
            problem, solution, seeds[first_proposal:], search.seed_costs[0, first_proposal:]
        )

    def _best_seed_arrives(self, problem: RolloutProblem, seeds: np.ndarray, costs: np.ndarray) -> bool:
        """Check whether the best of the seeds (K, n, D) is predicted to end within the goal's tolerances."""
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        return bool(np.isfinite(costs[best])) and bool(problem.goal.within(problem.recall(seeds[best])[0])[0, -1])

    def _fall_back_to_policy(
        self, problem: RolloutProblem, solution: Solution, proposals: np.ndarray, costs: np.ndarray
    ) -> Found:
        """Return the solution, or the best of the policy's proposals (K, n, D) with costs (K,) if the solution ends
        where the latent distance is flat.

        Latent distances saturate: far from the goal no plan within the horizon looks better than standing still.
        """
        outcome, actions = problem.recall(solution.candidates[0])
        first = problem.goal.terms[0]
        saturates = isinstance(first, LatentTerm) and first.metric != "reachability"
        if not saturates or not np.isfinite(costs).any():
            return solution, outcome, actions
        if float(first.distance(outcome)[0, -1]) <= self.checkpoint.config.distance.far:
            return solution, outcome, actions
        best = int(np.argmin(np.nan_to_num(costs, nan=np.inf)))
        self._warm_start = chosen = proposals[best : best + 1]
        fallback = replace(solution, candidates=chosen, costs=costs[best : best + 1], elites=proposals[None])
        return fallback, *problem.recall(proposals[best])

    def _next_feasible(
        self, problem: RolloutProblem, solution: Solution, allowed: Callable[[np.ndarray], bool]
    ) -> Found:
        """Return the best of the other elites that may be handed over; if none may, the cost is Inf."""
        for candidate in solution.elites[0, 1 : 1 + ALTERNATIVES]:
            cost = problem.cost(candidate[None])
            if np.isfinite(cost[0]) and allowed(candidate):
                return replace(solution, candidates=candidate[None], costs=cost), *problem.predict(candidate[None])
        return replace(solution, costs=np.array([np.inf])), *problem.recall(solution.candidates[0])

    def _make_seeds(self, problem: RolloutProblem, elapsed: int) -> tuple[np.ndarray, int]:
        """Return feasible seeds (K, n, D) and the index of the policy's first proposal among them.

        They are the last plan's elites shifted by `elapsed` ticks and ending at rest, standing still, and the
        proposals. The first seed is the default of the search.
        """
        n = problem.ticks
        shifted = np.zeros((len(self._warm_start), n, self.space.axes))
        rest = self._warm_start[:, elapsed:][:, :n]
        shifted[:, : rest.shape[1]] = rest
        seeds = [shifted, np.zeros((1, n, self.space.axes))]
        if self.policy != "none":
            seeds.append(problem.propose())
        return problem.repair(np.concatenate(seeds)), len(shifted) + 1

    def _describe_motion(
        self, problem: RolloutProblem, solution: Solution, outcome: Outcome, actions: torch.Tensor, begin: float
    ) -> PlannedMotion:
        goal, proprioception = problem.goal, self.checkpoint.config.proprioception
        tool = np.stack(np.broadcast_arrays(*self.space.to_xyz(outcome.tool[0].cpu().numpy())), axis=-1)
        if proprioception.dimension:
            states = outcome.states[0].cpu().numpy() * proprioception.std + np.array(proprioception.mean)
            tool = self.space.tool_positions(states)
        return PlannedMotion(
            knots=solution.candidates[0],
            actions=actions[0].reshape(-1, self.space.dimension).cpu().numpy(),
            cost=float(solution.costs[0]),
            distance=float(goal.distance(problem.observed)[0, 0]),
            predicted_distance=float(goal.distance(outcome)[0, -1]),
            tool=tool,
            iterations=solution.iterations,
            samples=solution.samples,
            plan_ms=1e3 * (time.perf_counter() - begin),
        )
