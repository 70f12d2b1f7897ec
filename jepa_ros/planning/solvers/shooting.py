"""Random shooting: the baseline of the other solvers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.planning.solver import Pool, Problem, Rounds, Solution, coloured_noise


@dataclass(frozen=True)
class Shooting:
    """`iterations` rounds of `samples` draws with deviation `sigma` around standing still."""

    samples: int = 64
    iterations: int = 4
    sigma: float = 0.6
    colour: float = 2.0
    elites: int = 12

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        pool, rounds = Pool(problem, self.elites), Rounds(self.iterations, budget)
        shape = (len(problem.seeds), self.samples, *problem.seeds.shape[2:])
        for _ in rounds:
            fresh = problem.repair(self.sigma * coloured_noise(shape, self.colour, rng))
            pool.offer(fresh, problem.cost(fresh))
        return pool.solution(rounds.done)
