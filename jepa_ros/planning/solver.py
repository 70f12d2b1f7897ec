"""The interface of search algorithms, and the parts that they share: rounds, the pool of candidates, noise.

Shapes: P problems that are solved side by side (goals, arms), S samples, n knots, A numbers of a knot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass
from typing import ClassVar, Protocol

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Minimise the cost of a candidate (n, A), for each of P problems.

    repair: candidates (P, S, n, A) -> feasible ones of the same shape; only these are evaluated and returned.
    cost: feasible candidates (P, S, n, A) -> costs (P, S); NaN and Inf mark candidates without a valid cost.
    seeds: (P, K, n, A) feasible candidates to start from; the first is the default, returned if none is better.
    seed_costs: (P, K) their costs. gradient: as cost, and the gradients (P, S, n, A); only Gradient needs it.
    """

    repair: Callable[[np.ndarray], np.ndarray]
    cost: Callable[[np.ndarray], np.ndarray]
    seeds: np.ndarray
    seed_costs: np.ndarray
    gradient: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Solution:
    """The best candidates (P, n, A) and their costs (P,).

    A cost is Inf if no candidate had a finite one; the candidate is then the default. elites: (P, E, n, A), the best
    candidates found, best first. samples: evaluated candidates of each problem.
    """

    candidates: np.ndarray
    costs: np.ndarray
    elites: np.ndarray
    iterations: int
    samples: int


class Solver(Protocol):
    """Anytime search: returns the best candidates so far when the budget is spent.

    Implementations are frozen dataclasses, whose fields are the settings of make_solver.
    """

    __dataclass_fields__: ClassVar[dict[str, Field]]

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """Search for at most `budget` s (steady clock). The same rng state and iterations give the same result; elites
        come from finite costs only."""


class Rounds:
    """Iterate over rounds: at least one, at most `limit`, while the slowest one so far still fits into `budget` s."""

    def __init__(self, limit: int, budget: float):
        self._limit, self._budget, self.done = limit, budget, 0

    def __iter__(self) -> Iterator[int]:
        begin, slowest = time.perf_counter(), 0.0
        while self.done < self._limit:
            started = time.perf_counter()
            if self.done and started - begin + slowest > self._budget:
                return
            yield self.done
            self.done += 1
            slowest = max(slowest, time.perf_counter() - started)


class Pool:
    """The best candidates (P, E, n, A) so far, best first, and their costs (P, E). evaluated: how many were offered."""

    def __init__(self, problem: Problem, keep: int):
        self._keep, self.evaluated = keep, 0
        self._default = problem.seeds[:, 0]
        self.candidates, self.costs = problem.seeds[:, :0], problem.seed_costs[:, :0]
        self.offer(problem.seeds, problem.seed_costs)

    def offer(self, candidates: np.ndarray, costs: np.ndarray) -> None:
        """Add candidates (P, S, n, A) with costs (P, S); among equal costs the earlier candidates come first."""
        self.evaluated += candidates.shape[1]
        candidates = np.concatenate([self.candidates, candidates], axis=1)
        costs = np.concatenate([self.costs, np.where(np.isfinite(costs), costs, np.inf)], axis=1)
        order = np.argsort(costs, axis=1, kind="stable")[:, : self._keep]
        self.costs = np.take_along_axis(costs, order, axis=1)
        self.candidates = np.take_along_axis(candidates, order[..., None, None], axis=1)

    @property
    def best(self) -> np.ndarray:
        """The best candidates (P, n, A); the default if no cost was finite."""
        known = np.isfinite(self.costs[:, 0])[:, None, None]
        return np.where(known, self.candidates[:, 0], self._default)

    @property
    def has_no_finite_cost(self) -> bool:
        """Whether no cost of any problem was finite."""
        return not np.isfinite(self.costs[:, 0]).any()

    def solution(self, rounds: int) -> Solution:
        """Return the solution found in this number of rounds."""
        return Solution(self.best, self.costs[:, 0].copy(), self.candidates, rounds, self.evaluated)


def mean_and_deviation(candidates: np.ndarray, costs: np.ndarray, default: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (P, n, A) of the candidates (P, E, n, A) whose costs (P, E) are finite.

    default: (P, n, A), the mean if no cost is finite; the deviation is then 0.
    """
    weights = np.isfinite(costs).astype(float)
    total = weights.sum(1)[:, None, None]
    weights = weights[..., None, None] / np.maximum(total, 1.0)[:, None]
    mean = np.where(total > 0, (weights * candidates).sum(1), default)
    return mean, np.sqrt((weights * np.square(candidates - mean[:, None])).sum(1))


def coloured_noise(shape: tuple[int, int, int, int], exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise (P, S, n, A) of unit variance whose power falls with frequency as f^-exponent over n.

    Smooth noise moves the arm instead of shaking it; exponent 0 is white noise. Timmer and König 1995; used for
    planning by iCEM (arXiv 2008.06389, section 3.1).
    """
    problems, samples, n, actions = shape
    if exponent == 0.0 or n < 2:
        return rng.standard_normal(shape)
    frequencies = np.fft.rfftfreq(n)
    amplitude = np.maximum(frequencies, 1.0 / n) ** (-exponent / 2)
    real, imaginary = rng.standard_normal((2, problems, samples, actions, len(frequencies)))
    imaginary[..., 0] = 0.0  # the mean has no phase; neither has the highest frequency if n is even
    weight = np.full(len(frequencies), 2.0)
    weight[0] = 1.0
    real[..., 0] *= np.sqrt(2.0)
    if n % 2 == 0:
        imaginary[..., -1] = 0.0
        weight[-1] = 1.0
        real[..., -1] *= np.sqrt(2.0)
    noise = np.fft.irfft((real + 1j * imaginary) * amplitude, n=n)
    # Variance of a sample: 2 / n² times the sum over frequencies of amplitude² times its number of occurrences.
    deviation = np.sqrt(2.0 * (weight * amplitude**2).sum()) / n
    return np.moveaxis(noise / deviation, -1, 2)
