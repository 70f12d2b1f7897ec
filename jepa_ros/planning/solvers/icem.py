"""The cross-entropy method (Rubinstein 1999), seeded and anytime."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from jepa_ros.planning.solver import Problem, Solution


@dataclass(frozen=True)
class Cem:
    """samples a round, of which `elites` shape the next; at most `iterations` rounds.

    sigma: first standard deviation of a knot. floor: least one. hold: ticks over which the noise is joined linearly, so
    that samples are smooth enough to move the arm instead of shaking it.
    """

    samples: int = 48
    elites: int = 12
    iterations: int = 3
    sigma: float = 0.4
    floor: float = 0.02
    hold: int = 2

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """See Solver. Elites come from finite costs only; with none left the default (the first seed) is returned."""
        begin = time.perf_counter()
        pool, costs = problem.seeds, _finite(problem.seed_costs)
        evaluated, rounds, sigma, slowest = len(pool), 0, None, 0.0
        while rounds < self.iterations and np.isfinite(costs).any():
            started = time.perf_counter()
            if rounds and started - begin + slowest > budget:
                break
            order = np.argsort(costs, kind="stable")[: self.elites]
            order = order[np.isfinite(costs[order])]
            elites, elite_costs = pool[order], costs[order]
            mean = elites[0] if sigma is None else elites.mean(axis=0)
            sigma = np.full_like(mean, self.sigma) if sigma is None else elites.std(axis=0) + self.floor
            fresh = problem.repair(mean + sigma * self._noise(mean.shape, rng))
            pool = np.concatenate([elites, fresh])
            costs = np.concatenate([elite_costs, _finite(problem.cost(fresh))])
            evaluated, rounds = evaluated + len(fresh), rounds + 1
            slowest = max(slowest, time.perf_counter() - started)
        best = int(np.argmin(costs))
        return Solution(pool[best], float(costs[best]), rounds, evaluated)

    def _noise(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """(samples, n, A) unit noise, drawn every `hold` ticks and joined linearly; the first sample is the mean."""
        n, dimension = shape
        anchors = np.arange(0, n + self.hold, self.hold)
        coarse = rng.standard_normal((self.samples, len(anchors), dimension))
        position = (np.arange(n) + self.hold - 1) / self.hold
        left = np.minimum(position.astype(int), len(anchors) - 2)
        weight = (position - left)[:, None]
        noise = coarse[:, left] * (1 - weight) + coarse[:, left + 1] * weight
        noise[0] = 0.0
        return noise


def _finite(costs: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(costs), costs, np.inf)
