"""Cross-entropy method as in LeWM (Rubinstein 1999; arXiv 2603.19312, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.planning.solver import Pool, Problem, Rounds, Solution, mean_and_deviation


@dataclass(frozen=True)
class Cem:
    """Each round draws `samples` and fits mean and deviation to the best `elites`; at most `iterations` rounds.

    sigma: initial standard deviation of a knot. The first sample of a round is the mean.
    """

    samples: int = 300
    elites: int = 30
    iterations: int = 10
    sigma: float = 1.0

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        pool, rounds = Pool(problem, self.elites), Rounds(self.iterations, budget)
        mean, sigma = pool.best, np.full_like(pool.best, self.sigma)
        for _ in rounds:
            noise = rng.standard_normal((len(mean), self.samples, *mean.shape[1:]))
            noise[:, 0] = 0.0
            fresh = problem.repair(mean[:, None] + sigma[:, None] * noise)
            costs = problem.cost(fresh)
            pool.offer(fresh, costs)
            order = np.argsort(np.where(np.isfinite(costs), costs, np.inf), axis=1)[:, : self.elites]
            best = np.take_along_axis(fresh, order[..., None, None], axis=1)
            mean, sigma = mean_and_deviation(best, np.take_along_axis(costs, order, axis=1), mean)
        return pool.solution(rounds.done)
