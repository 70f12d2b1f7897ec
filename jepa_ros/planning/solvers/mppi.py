"""Model predictive path integral control (Williams et al. 2017, arXiv 1707.02342)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.planning.solver import Pool, Problem, Rounds, Solution, coloured_noise


@dataclass(frozen=True)
class Mppi:
    """Each round moves the mean to the average of all samples, weighted by exp(-cost / temperature).

    temperature: in standard deviations of the round's costs, so that it does not depend on the model. colour: exponent
    of coloured_noise.
    """

    samples: int = 64
    iterations: int = 4
    sigma: float = 0.3
    temperature: float = 0.2
    colour: float = 2.0
    elites: int = 12

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """See Solver. Samples without a finite cost weigh 0; the first sample of a round is the mean."""
        pool, rounds = Pool(problem, self.elites), Rounds(self.iterations, budget)
        mean = pool.best
        for _ in rounds:
            noise = coloured_noise((len(mean), self.samples, *mean.shape[1:]), self.colour, rng)
            noise[:, 0] = 0.0
            fresh = problem.repair(mean[:, None] + self.sigma * noise)
            costs = problem.cost(fresh)
            pool.offer(fresh, costs)
            mean = self._average(fresh, costs, mean)
        # The last mean has no cost yet, and only repaired candidates may be evaluated.
        last = problem.repair(mean[:, None])
        pool.offer(last, problem.cost(last))
        return pool.solution(rounds.done)

    def _average(self, candidates: np.ndarray, costs: np.ndarray, default: np.ndarray) -> np.ndarray:
        known = np.isfinite(costs)
        least = np.where(known, costs, np.inf).min(1, keepdims=True)
        above = np.where(known, costs - np.where(np.isfinite(least), least, 0.0), np.inf)
        count = np.maximum(known.sum(1, keepdims=True), 1)
        centre = np.where(known, above, 0.0).sum(1, keepdims=True) / count
        deviation = np.sqrt(np.square(np.where(known, above - centre, 0.0)).sum(1, keepdims=True) / count)
        weights = np.exp(-above / np.maximum(self.temperature * deviation, 1e-12))
        total = weights.sum(1)[:, None, None]
        average = (weights[..., None, None] * candidates).sum(1) / np.maximum(total, 1e-12)
        return np.where(total > 0, average, default)
