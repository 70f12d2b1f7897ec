"""The same search on the same model: how long the reference and our code take, and whether their costs agree.

Sides are timed in turns, so that a machine that becomes slower affects all of them equally.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import spearmanr

from jepa_ros.bench.matched_models import MatchedModels, final_costs
from jepa_ros.bench.reference import CemSettings, Reference, ReferenceCem
from jepa_ros.errors import InputError
from jepa_ros.planning.solver import Problem
from jepa_ros.planning.solvers.cem import Cem
from jepa_ros.world_model.lewm.model import LeWM

GPU_SEARCH = CemSettings(iterations=30)


@dataclass
class SideTimes:
    """Times of one side in s, one entry a round: wall time, and processor time of this process (less than the wall time
    where other processes interfere)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def measure(self, work: Callable[[], object]) -> None:
        """Call `work` once and add the time that it took."""
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


@dataclass(frozen=True)
class TimeRatio:
    """Median, smallest and largest ratio of paired times."""

    median: float
    min: float
    max: float
    pairs: int


def time_in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, done: Callable[[int], None] = lambda count: None
) -> dict[str, SideTimes]:
    """Time each side once a round; every round starts with another side. done: called after each round."""
    times = {name: SideTimes() for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].measure(sides[name])
        done(number + 1)
    return times


def compare_times(theirs: list[float], ours: list[float]) -> TimeRatio:
    """Return how many times longer theirs took, pair by pair; both lists have the same length of at least 1."""
    quotients = np.array(theirs) / np.array(ours)
    return TimeRatio(float(np.median(quotients)), float(quotients.min()), float(quotients.max()), len(quotients))


@dataclass(frozen=True)
class CostComparison:
    """max_difference: relative, in float32. rank_correlation: Spearman's, of bfloat16. costs (S,): by side."""

    max_difference: float
    rank_correlation: float
    costs: dict[str, np.ndarray]


@torch.inference_mode()
def compare_costs(models: MatchedModels, horizon: int, count: int, seed: int) -> CostComparison:
    """Compare costs of `count` standard normal action sequences, as the first round of a search draws them."""
    actions = torch.randn(count, horizon, models.sizes.actions, generator=torch.Generator().manual_seed(seed))
    costs = {
        "reference": models.their_costs(actions),
        "float32": models.our_costs(models.ours, actions),
        "bfloat16": models.our_costs(models.rounded, actions),
    }
    costs = {name: x.double().numpy() for name, x in costs.items()}
    apart = np.abs(costs["float32"] - costs["reference"]) / np.abs(costs["reference"])
    return CostComparison(float(apart.max()), float(spearmanr(costs["reference"], costs["bfloat16"]).statistic), costs)


def time_same_search(
    reference: Reference,
    models: MatchedModels,
    search: CemSettings,
    rounds: int,
    seed: int,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, SideTimes]:
    """Return the times of whole plans of reference, float32 and bfloat16, in turns, after a warm-up round of one
    iteration. done: called after each round."""
    time_in_turns(_sides(reference, models, search._replace(iterations=1), seed), 1)
    return time_in_turns(_sides(reference, models, search, seed), rounds, done)


def _sides(
    reference: Reference, models: MatchedModels, search: CemSettings, seed: int
) -> dict[str, Callable[[], object]]:
    theirs = ReferenceCem(reference, models.theirs, search, models.sizes.actions, seed)

    def plan_with(model: LeWM) -> np.ndarray:
        return plan_with_our_cem(lambda actions: models.our_costs(model, actions), models, search, seed)

    return {
        "reference": lambda: theirs.solve(models.info()),
        "float32": lambda: plan_with(models.ours),
        "bfloat16": lambda: plan_with(models.rounded),
    }


@torch.inference_mode()
def plan_with_our_cem(
    cost: Callable[[torch.Tensor], torch.Tensor], models: MatchedModels, search: CemSettings, seed: int
) -> np.ndarray:
    """Return the plan (H, K) of our CEM from zeros, with every candidate feasible; cost: (S, H, K) → (S,)."""
    problem = Problem(
        repair=lambda candidates: candidates,
        cost=lambda candidates: cost(torch.from_numpy(candidates[0]).float()).numpy()[None],
        seeds=np.zeros((1, 1, search.horizon, models.sizes.actions)),
        seed_costs=np.full((1, 1), np.inf),  # not evaluated, as in the reference
    )
    solver = Cem(search.samples, search.elites, search.iterations)
    return solver.solve(problem, math.inf, np.random.default_rng(seed)).candidates[0]


def check_device(device: str) -> None:
    """Raise InputError unless `device` is cpu, or cuda and torch can use a GPU."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: give cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU on this machine; give --device cpu")


def time_gpu_plans(models: MatchedModels, rounds: int, seed: int, search: CemSettings = GPU_SEARCH) -> list[float]:
    """Return the ms of each of `rounds` plans in bfloat16, from a latent on the GPU to actions in host memory.

    The rollouts of a round are one CUDA graph, which is recorded once.
    """
    cost = _record_cuda_graph(models, search)
    plan_with_our_cem(cost, models, search._replace(iterations=2), seed)
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        plan_with_our_cem(cost, models, search, seed)
        found.append(1e3 * (time.perf_counter() - begin))
    return found


@torch.inference_mode()
def _record_cuda_graph(models: MatchedModels, search: CemSettings) -> Callable[[torch.Tensor], torch.Tensor]:
    model = models.rounded.cuda()
    latent, goal = models.latent.cuda(), models.goal[0, 0].cuda()
    actions = torch.zeros(search.samples, search.horizon, models.sizes.actions, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels must be chosen before the graph is recorded
        for _ in range(3):
            final_costs(model, latent, goal, actions)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        costs = final_costs(model, latent, goal, actions)

    def cost(candidates: torch.Tensor) -> torch.Tensor:
        actions.copy_(candidates)
        graph.replay()
        return costs.cpu()

    return cost
