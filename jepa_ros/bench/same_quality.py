"""The shipped model driven by the reference's search and by our planner as it ships: who arrives, and at what price.

Both go through the same controller, gate and physics, with the same simulated delays, though the reference's plans take
longer than these allow. It searches knots that are made feasible as ours are, by the squared L2 of the last latent to
the goal's, and its whole plan is executed before the next one, as published: with only the last latent to go by, a
search that begins anew all the time puts its arrival off for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from jepa_ros.bench.pairs import Times
from jepa_ros.bench.peer import Costs, Peer, ReferenceCem
from jepa_ros.bench.twins import Search
from jepa_ros.evaluation.closed_loop import ModelActor, Timing, Trial, expect_one_camera, run_trial
from jepa_ros.planning.imagination import Situation
from jepa_ros.planning.objective import Objective
from jepa_ros.planning.planner import Imagined, LatentPlanner
from jepa_ros.planning.reach import ReachController, ReachSettings
from jepa_ros.planning.solver import Problem, Solution
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.tasks.reach import make_goals
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot

EVERY = 5
"""Of so many of our plans one is timed, and the reference's beside it."""


@dataclass
class SameQuality:
    """Trials by side on the same starts and goals; times of plans on the same situations, as executed, and of the
    reference also bare (its solver and the model's roll-outs alone); squared L2 that is predicted of them."""

    ours: list[Trial] = field(default_factory=list)
    theirs: list[Trial] = field(default_factory=list)
    our_times: Times = field(default_factory=Times)
    their_times: Times = field(default_factory=Times)
    bare_times: Times = field(default_factory=Times)
    our_costs: list[float] = field(default_factory=list)
    their_costs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class PeerSolver:
    """The reference's CEM behind planning.solver.Solver; it has no budget. One problem at a time."""

    peer: Peer
    search: Search
    seed: int = 0

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """See Solver. What it ends with is its mean, as a feasible candidate."""

        def cost(candidates: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(problem.cost(problem.repair(candidates[None].numpy().astype(float)))[0]).float()

        s, (_, _, n, actions) = self.search, problem.seeds.shape
        solver = ReferenceCem(self.peer, Costs(cost), n, actions, s.samples, s.iterations, s.elites, self.seed)
        start = torch.from_numpy(problem.seeds[:, 0]).float()
        mean = solver.solve({"start": start}, start).numpy().astype(float)
        best = problem.repair(mean[None, None])
        return Solution(best[:, 0], problem.cost(best)[:, 0], best, s.iterations, s.iterations * s.samples)


def bare_plan(peer: Peer, search: Search, checkpoint: Checkpoint, situation: Situation, goal: torch.Tensor) -> None:
    """The reference's search over action blocks (H, K) within bounds, on nothing of ours but the model."""
    context, s = situation.context, search

    def cost(candidates: torch.Tensor) -> torch.Tensor:
        latents, _ = checkpoint.model.rollout(context.expand(len(candidates)), candidates.clamp(-1.0, 1.0))
        return (latents[:, -1] - goal).square().flatten(1).sum(1)

    block = checkpoint.config.action_block
    solver = ReferenceCem(peer, Costs(cost), s.horizon, block, s.samples, s.iterations, s.elites, 0)
    solver.solve({"latent": context.latents})


class BesidePlanner:
    """Our planner, which is timed now and then, and the reference on the same situation before or after it."""

    def __init__(
        self,
        ours: LatentPlanner,
        theirs: LatentPlanner,
        bare: Callable[[Situation, torch.Tensor], None],
        found: SameQuality,
    ):
        self._planner, self._theirs, self._bare, self._found, self._count = ours, theirs, bare, found, 0

    def reset(self) -> None:
        """See LatentPlanner."""
        self._planner.reset()

    def plan(self, situation: Situation, goal, *more) -> Imagined:
        """See LatentPlanner."""
        self._count += 1
        if self._count % EVERY:
            return self._planner.plan(situation, goal, *more)
        results: dict[str, Imagined] = {}
        self._theirs.reset()
        sides = [
            (self._found.our_times, lambda: results.update(ours=self._planner.plan(situation, goal, *more))),
            (self._found.their_times, lambda: results.update(theirs=self._theirs.plan(situation, goal))),
            (self._found.bare_times, lambda: self._bare(situation, goal.latent)),
        ]
        first = self._count // EVERY % len(sides)
        for times, work in sides[first:] + sides[:first]:
            times.take(work)
        for name, costs in (("ours", self._found.our_costs), ("theirs", self._found.their_costs)):
            costs.append(results[name].predicted_distance * goal.latent.numel())  # of a mean square, a sum
        return results["ours"]


def same_quality(
    peer: Peer,
    checkpoint: Checkpoint,
    starts: int,
    seed: int,
    search: Search,
    done: Callable[[int, str], None] = lambda count, note: None,
    robot_name: str = "openarm",
    timing: Timing | None = None,
) -> SameQuality:
    """Each start tried by both. done: is told of each finished start, and how it stands.

    Raises InputError for a model of another robot or of several cameras.
    """
    robot, found, timing = load_robot(robot_name), SameQuality(), timing or Timing()
    check_robot(checkpoint.config, robot)
    expect_one_camera(checkpoint.config)
    cell = ArmCell(Scene(), robot)
    ours, theirs = _actors(peer, checkpoint, cell, found, search, seed, timing)
    for number, goal in enumerate(make_goals(cell.scene, robot, cell.space, starts, seed), 1):
        for actor, trials in ((ours, found.ours), (theirs, found.theirs)):
            actor.start(goal)
            trial = run_trial(cell, goal, actor, timing, executed=actor.executed)
            trial.plans = len(actor.plans)
            trials.append(trial)
        note = ", ".join(
            f"{name} {sum(t.reached for t in x)}" for name, x in (("ours", found.ours), ("reference", found.theirs))
        )
        done(number, f"reached: {note}")
    return found


def _actors(
    peer: Peer, checkpoint: Checkpoint, cell: ArmCell, found: SameQuality, search: Search, seed: int, timing: Timing
) -> tuple[ModelActor, ModelActor]:
    """Ours as it ships, but for rounds that are counted, not timed; and the reference's search in the same place."""
    whole = search.horizon * checkpoint.config.block
    ours = ReachController(checkpoint, cell.space, ReachSettings(budget=math.inf, seed=seed))
    theirs = ReachController(
        checkpoint, cell.space, ReachSettings(budget=math.inf, seed=seed, plan_ticks=whole, horizon=search.horizon)
    )
    theirs.planner, beside = (_their_planner(peer, checkpoint, cell, search, seed) for _ in range(2))
    ours.planner = BesidePlanner(
        ours.planner, beside, lambda situation, goal: bare_plan(peer, search, checkpoint, situation, goal), found
    )
    seldom = replace(timing, replan=whole * checkpoint.config.tick)
    return ModelActor(cell, checkpoint, ours, timing), ModelActor(cell, checkpoint, theirs, seldom)


def _their_planner(peer: Peer, checkpoint: Checkpoint, cell: ArmCell, search: Search, seed: int) -> LatentPlanner:
    return LatentPlanner(
        checkpoint,
        cell.space,
        horizon=search.horizon,
        budget=math.inf,
        solver=PeerSolver(peer, search, seed),
        objective=Objective(along=0.0, effort=0.0),
        policy="none",
        seed=seed,
    )
