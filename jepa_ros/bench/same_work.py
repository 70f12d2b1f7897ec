"""The same search on the same model: how long the reference's takes and ours, and whether the costs are the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from jepa_ros.bench.pairs import Ratio, Times, alternate, ratio
from jepa_ros.bench.peer import Peer, ReferenceCem
from jepa_ros.bench.twins import Search, Twins
from jepa_ros.planning.solver import Problem
from jepa_ros.planning.solvers import Cem


@dataclass(frozen=True)
class SameWork:
    """Times by side (reference, float32, bfloat16), in rounds; ratios of the reference's over ours by dtype, on the
    clock and of the processor's time."""

    times: dict[str, Times]
    wall: dict[str, Ratio]
    processor: dict[str, Ratio]


@dataclass(frozen=True)
class SameCosts:
    """max_difference: relative, of float32. rank_correlation: Spearman's, of bfloat16. costs (S,): by side."""

    max_difference: float
    rank_correlation: float
    costs: dict[str, np.ndarray]


@torch.inference_mode()
def same_costs(twins: Twins, horizon: int, count: int, seed: int) -> SameCosts:
    """Of `count` random action sequences, of standard normal numbers as a search's first round has them."""
    actions = torch.randn(count, horizon, twins.sizes.actions, generator=torch.Generator().manual_seed(seed))
    costs = {
        "reference": twins.their_costs(actions),
        "float32": twins.our_costs(twins.ours, actions),
        "bfloat16": twins.our_costs(twins.rounded, actions),
    }
    costs = {name: x.double().numpy() for name, x in costs.items()}
    apart = np.abs(costs["float32"] - costs["reference"]) / np.abs(costs["reference"])
    return SameCosts(float(apart.max()), float(spearmanr(costs["reference"], costs["bfloat16"]).statistic), costs)


def same_work(
    peer: Peer, twins: Twins, search: Search, rounds: int, seed: int, done: Callable[[int], None] = lambda count: None
) -> SameWork:
    """Whole plans in turns, after one unmeasured round of one iteration. done: is told of each finished round."""
    alternate(_sides(peer, twins, search._replace(iterations=1), seed), 1)
    times = alternate(_sides(peer, twins, search, seed), rounds, done)
    wall = {name: ratio(times["reference"].wall, times[name].wall) for name in ("float32", "bfloat16")}
    processor = {name: ratio(times["reference"].processor, times[name].processor) for name in ("float32", "bfloat16")}
    return SameWork(times, wall, processor)


def _sides(peer: Peer, twins: Twins, search: Search, seed: int) -> dict[str, Callable[[], object]]:
    theirs = ReferenceCem(
        peer, twins.theirs, search.horizon, twins.sizes.actions, search.samples, search.iterations, search.elites, seed
    )
    return {
        "reference": lambda: theirs.solve(twins.info()),
        "float32": lambda: our_plan(lambda actions: twins.our_costs(twins.ours, actions), twins, search, seed),
        "bfloat16": lambda: our_plan(lambda actions: twins.our_costs(twins.rounded, actions), twins, search, seed),
    }


@torch.inference_mode()
def our_plan(cost: Callable[[torch.Tensor], torch.Tensor], twins: Twins, search: Search, seed: int) -> np.ndarray:
    """(H, K) that our CEM ends with from zeros, where every candidate is feasible; cost: (S, H, K) → (S,)."""
    problem = Problem(
        repair=lambda candidates: candidates,
        cost=lambda candidates: cost(torch.from_numpy(candidates[0]).float()).numpy()[None],
        seeds=np.zeros((1, 1, search.horizon, twins.sizes.actions)),
        seed_costs=np.full((1, 1), np.inf),  # not judged, as the reference does not judge it
    )
    solver = Cem(search.samples, search.elites, search.iterations)
    return solver.solve(problem, math.inf, np.random.default_rng(seed)).candidates[0]
