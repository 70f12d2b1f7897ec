"""Improved cross-entropy method for real-time control (arXiv 2008.06389), the default."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.planning.solver import Pool, Problem, Rounds, Solution, coloured_noise, mean_and_deviation


@dataclass(frozen=True)
class ICem:
    """Coloured noise; elites are kept from round to round. Elites of the last plan are among the problem's seeds.

    samples: of the first round; each further round has `decay` times as many, but at least twice `elites`. The first
    round samples around the best seed with deviation `sigma`, the others around the elites' mean with theirs plus
    `floor`. colour: exponent of coloured_noise.
    """

    samples: int = 48
    elites: int = 12
    iterations: int = 3
    sigma: float = 0.4
    floor: float = 0.02
    colour: float = 2.0
    decay: float = 1.0

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        pool, rounds = Pool(problem, self.elites), Rounds(self.iterations, budget)
        for number in rounds:
            mean, sigma = mean_and_deviation(pool.candidates, pool.costs, pool.best)
            if number == 0:
                mean, sigma = pool.best, np.full_like(mean, self.sigma - self.floor)
            samples = max(round(self.samples * self.decay**number), 2 * self.elites)
            noise = coloured_noise((len(mean), samples, *mean.shape[1:]), self.colour, rng)
            noise[:, 0] = 0.0
            fresh = problem.repair(mean[:, None] + (sigma + self.floor)[:, None] * noise)
            pool.offer(fresh, problem.cost(fresh))
            if pool.has_no_finite_cost:
                break
        return pool.solution(max(rounds.done, 1))
