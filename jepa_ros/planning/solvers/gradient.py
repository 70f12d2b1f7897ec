"""Gradient descent on the candidates, through the model, by Adam (arXiv 1412.6980)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.planning.solver import Pool, Problem, Rounds, Solution, coloured_noise

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Gradient:
    """Each iteration moves all `starts` (the best seeds, and noise around the best one) and repairs them.

    rate: learning rate in units of a knot. sigma, colour: of the noise.
    """

    starts: int = 8
    iterations: int = 10
    rate: float = 0.1
    sigma: float = 0.3
    colour: float = 2.0
    elites: int = 12

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """See Solver. A candidate without a finite gradient stays where it is. Raises InputError if the problem has no
        gradient."""
        if problem.gradient is None:
            raise InputError("solver gradient: the costs of this problem have no gradient; use another solver")
        pool, rounds = Pool(problem, self.elites), Rounds(self.iterations, budget)
        x = self._starts(problem, pool, rng)
        first, second = np.zeros_like(x), np.zeros_like(x)
        for number in rounds:
            costs, slope = problem.gradient(x)
            pool.offer(x, costs)
            known = np.isfinite(slope).all((2, 3), keepdims=True) & np.isfinite(costs)[..., None, None]
            slope = np.where(known, slope, 0.0)
            first = BETA1 * first + (1 - BETA1) * slope
            second = BETA2 * second + (1 - BETA2) * slope**2
            unbiased = first / (1 - BETA1 ** (number + 1))
            size = np.sqrt(second / (1 - BETA2 ** (number + 1))) + EPSILON
            x = problem.repair(np.where(known, x - self.rate * unbiased / size, x))
        pool.offer(x, problem.cost(x))
        return pool.solution(rounds.done)

    def _starts(self, problem: Problem, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        best = pool.candidates[:, : self.starts]
        missing = self.starts - best.shape[1]
        if missing <= 0:
            return best
        noise = coloured_noise((len(best), missing, *best.shape[2:]), self.colour, rng)
        return np.concatenate([best, problem.repair(pool.best[:, None] + self.sigma * noise)], axis=1)
