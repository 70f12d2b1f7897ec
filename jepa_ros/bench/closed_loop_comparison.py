"""The shipped model driven by our planner as shipped and by the reference's search: success and planning time.

Both use the same controller, gate and physics, with the same simulated delays, although the reference's plans take
longer than these. The reference searches knots that are made feasible as ours are, with the squared L2 distance of the
last latent to the goal's as cost. As published, its whole plan is executed before it replans: a cost of the last latent
alone lets a search that replans often postpone its arrival indefinitely.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from jepa_ros.bench.reference import CemSettings, CostModel, Reference, ReferenceCem
from jepa_ros.bench.same_search import SideTimes
from jepa_ros.evaluation.closed_loop import ModelActor, Timing, Trial, run_trial
from jepa_ros.planning.goal import Objective
from jepa_ros.planning.planner import LatentPlanner, PlannedMotion
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.planning.rollout_problem import Situation
from jepa_ros.planning.solver import Problem, Solution
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.tasks import choose_task, make_task
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot, choose_robot

TIMED_EVERY = 5
"""Of our plans one in TIMED_EVERY is timed, together with the reference's plan for the same situation."""


@dataclass
class SideResult:
    """Results of one side. times, costs: of plans for the same situations, the costs as squared L2 distance that a plan
    predicts."""

    trials: list[Trial] = field(default_factory=list)
    times: SideTimes = field(default_factory=SideTimes)
    costs: list[float] = field(default_factory=list)


@dataclass
class ClosedLoopComparison:
    """Both sides from the same starts to the same goals. bare_times: of the reference's solver and rollouts alone."""

    ours: SideResult = field(default_factory=SideResult)
    theirs: SideResult = field(default_factory=SideResult)
    bare_times: SideTimes = field(default_factory=SideTimes)


@dataclass(frozen=True)
class ReferenceSolver:
    """The reference's CEM as a planning.solver.Solver, for one problem at a time. It ignores the time budget."""

    reference: Reference
    search: CemSettings
    seed: int = 0

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """Solve a problem as Solver does; the solution is the final mean, made feasible."""

        def cost(candidates: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(problem.cost(problem.repair(candidates[None].numpy().astype(float)))[0]).float()

        s, (_, _, n, actions) = self.search, problem.seeds.shape
        solver = ReferenceCem(self.reference, CostModel(cost), s._replace(horizon=n), actions, self.seed)
        start = torch.from_numpy(problem.seeds[:, 0]).float()
        mean = solver.solve({"start": start}, start).numpy().astype(float)
        best = problem.repair(mean[None, None])
        return Solution(best[:, 0], problem.cost(best)[:, 0], best, s.iterations, s.iterations * s.samples)


def plan_bare(
    reference: Reference, search: CemSettings, checkpoint: Checkpoint, situation: Situation, goal: torch.Tensor
) -> None:
    """Plan with the reference's search over action blocks (H, K) in [-1, 1]; of our code only the model is used."""
    context = situation.context

    def cost(candidates: torch.Tensor) -> torch.Tensor:
        latents, _ = checkpoint.model.rollout(context.expand(len(candidates)), candidates.clamp(-1.0, 1.0))
        return (latents[:, -1] - goal).square().flatten(1).sum(1)

    block = checkpoint.config.action_block
    solver = ReferenceCem(reference, CostModel(cost), search, block, 0)
    solver.solve({"latent": context.latents})


class TimedPlanner:
    """Our planner; every few plans it is timed, and the reference's plan for the same situation before or after it."""

    def __init__(
        self,
        ours: LatentPlanner,
        theirs: LatentPlanner,
        bare: Callable[[Situation, torch.Tensor], None],
        found: ClosedLoopComparison,
    ):
        self._planner, self._theirs, self._bare, self._found, self._count = ours, theirs, bare, found, 0

    def reset(self) -> None:
        """Reset our planner."""
        self._planner.reset()

    def plan(self, situation: Situation, goal, *more) -> PlannedMotion:
        """Return our planner's motion."""
        self._count += 1
        if self._count % TIMED_EVERY:
            return self._planner.plan(situation, goal, *more)
        results: dict[str, PlannedMotion] = {}
        found = self._found
        self._theirs.reset()
        sides = [
            (found.ours.times, lambda: results.update(ours=self._planner.plan(situation, goal, *more))),
            (found.theirs.times, lambda: results.update(theirs=self._theirs.plan(situation, goal))),
            (found.bare_times, lambda: self._bare(situation, goal.latent)),
        ]
        first = self._count // TIMED_EVERY % len(sides)
        for times, work in sides[first:] + sides[:first]:
            times.measure(work)
        for name, side in (("ours", found.ours), ("theirs", found.theirs)):
            side.costs.append(results[name].predicted_distance * goal.latent.numel())  # from the mean square to the sum
        return results["ours"]


def compare_in_closed_loop(
    reference: Reference,
    checkpoint: Checkpoint,
    starts: int,
    seed: int,
    search: CemSettings,
    done: Callable[[int, str], None],
) -> ClosedLoopComparison:
    """Try each start with both planners. done: called after each start with the count and a note on successes.

    Raises InputError for a model of another robot or with several cameras.
    """
    robot, found, timing = choose_robot(checkpoint.config, None), ClosedLoopComparison(), Timing()
    check_robot(checkpoint.config, robot)
    task = make_task(choose_task(robot), robot)
    cell = ArmCell(Scene(add_objects=task.add_objects), robot)
    ours, theirs = _make_actors(reference, checkpoint, cell, found, search, seed, timing)
    for number, goal in enumerate(task.sample_goals(cell, starts, seed), 1):
        for actor, side in ((ours, found.ours), (theirs, found.theirs)):
            actor.start(goal)
            trial = run_trial(cell, task, goal, actor, timing, executed=actor.add_executed)
            trial.plans = len(actor.plans)
            side.trials.append(trial)
        ours_reached, theirs_reached = (sum(t.reached for t in side.trials) for side in (found.ours, found.theirs))
        done(number, f"reached: ours {ours_reached}, reference {theirs_reached}")
    return found


def _make_actors(
    reference: Reference,
    checkpoint: Checkpoint,
    cell: ArmCell,
    found: ClosedLoopComparison,
    search: CemSettings,
    seed: int,
    timing: Timing,
) -> tuple[ModelActor, ModelActor]:
    """Return our actor as shipped, but with search rounds counted, not timed; and one with the reference's search."""
    settings, ticks = PlanningSettings(budget=math.inf, seed=seed), search.horizon * checkpoint.config.block
    ours = RecedingHorizonController(checkpoint, cell.space, settings)
    whole_plans = replace(settings, plan_ticks=ticks, horizon=search.horizon)
    theirs = RecedingHorizonController(checkpoint, cell.space, whole_plans)

    def reference_planner() -> LatentPlanner:
        return LatentPlanner(
            checkpoint,
            cell.space,
            horizon=search.horizon,
            budget=math.inf,
            solver=ReferenceSolver(reference, search, seed),
            objective=Objective(along=0.0, effort=0.0),
            policy="none",
            seed=seed,
        )

    def bare(situation: Situation, goal: torch.Tensor) -> None:
        plan_bare(reference, search, checkpoint, situation, goal)

    theirs.planner = reference_planner()
    ours.planner = TimedPlanner(ours.planner, reference_planner(), bare, found)
    slow = replace(timing, replan=ticks * checkpoint.config.tick)
    return ModelActor(cell, checkpoint, ours, timing), ModelActor(cell, checkpoint, theirs, slow)
