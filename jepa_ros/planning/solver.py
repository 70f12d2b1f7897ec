"""The seam between search algorithms and what they search for.

Shapes: P problems that are solved side by side (goals, arms), S samples, n knots, A numbers of an action.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Find the candidate (n, A) of least cost, for each of P problems.

    repair: candidates (P, S, n, A) → feasible ones of the same shape; nothing else is ever evaluated or returned.
    cost: feasible candidates (P, S, n, A) → (P, S), where NaN or Inf marks a candidate that could not be judged.
    seeds: (P, K, n, A) feasible candidates to start from; the first is the default, which stands if none is better.
    seed_costs: (P, K) their costs. gradient: as cost, and the gradients (P, S, n, A); only Gradient needs it.
    """

    repair: Callable[[np.ndarray], np.ndarray]
    cost: Callable[[np.ndarray], np.ndarray]
    seeds: np.ndarray
    seed_costs: np.ndarray
    gradient: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Solution:
    """The best candidates (P, n, A), their costs (P,) and how they were found.

    A cost is Inf where no candidate had a finite one; the candidate then is the default. elites: (P, E, n, A), the best
    ones known at the end, best first. samples: of each problem.
    """

    candidates: np.ndarray
    costs: np.ndarray
    elites: np.ndarray
    iterations: int
    samples: int


class Solver(Protocol):
    """Anytime search: the best so far is returned when the budget is spent."""

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """Search for at most `budget` s (steady clock); the same rng state and iterations give the same result."""


class Rounds:
    """Iterates over rounds: one at least, then while the slowest so far still fits into `budget` s; at most `limit`."""

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
    """The best candidates so far, best first, and how many were judged: candidates (P, E, n, A), costs (P, E)."""

    def __init__(self, problem: Problem, keep: int):
        self._keep, self.judged = keep, 0
        self._default = problem.seeds[:, 0]
        self.candidates, self.costs = problem.seeds[:, :0], problem.seed_costs[:, :0]
        self.offer(problem.seeds, problem.seed_costs)

    def offer(self, candidates: np.ndarray, costs: np.ndarray) -> None:
        """Take in candidates (P, S, n, A) of costs (P, S); of equals the ones known before come first."""
        self.judged += candidates.shape[1]
        candidates = np.concatenate([self.candidates, candidates], axis=1)
        costs = np.concatenate([self.costs, np.where(np.isfinite(costs), costs, np.inf)], axis=1)
        order = np.argsort(costs, axis=1, kind="stable")[:, : self._keep]
        self.costs = np.take_along_axis(costs, order, axis=1)
        self.candidates = np.take_along_axis(candidates, order[..., None, None], axis=1)

    @property
    def best(self) -> np.ndarray:
        """(P, n, A); the default where no cost was finite."""
        known = np.isfinite(self.costs[:, 0])[:, None, None]
        return np.where(known, self.candidates[:, 0], self._default)

    @property
    def hopeless(self) -> bool:
        """Whether not one cost of any problem was finite."""
        return not np.isfinite(self.costs[:, 0]).any()

    def solution(self, rounds: int) -> Solution:
        """What has been found, after so many rounds."""
        return Solution(self.best, self.costs[:, 0].copy(), self.candidates, rounds, self.judged)


def spread(candidates: np.ndarray, costs: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (P, n, A) over those of candidates (P, E, n, A) whose costs (P, E) are finite.

    otherwise: (P, n, A), the mean where none is; the deviation then is 0.
    """
    weights = np.isfinite(costs).astype(float)
    total = weights.sum(1)[:, None, None]
    weights = weights[..., None, None] / np.maximum(total, 1.0)[:, None]
    mean = np.where(total > 0, (weights * candidates).sum(1), otherwise)
    return mean, np.sqrt((weights * np.square(candidates - mean[:, None])).sum(1))


def coloured(shape: tuple[int, int, int, int], exponent: float, rng: np.random.Generator) -> np.ndarray:
    """(P, S, n, A) Gaussian noise of unit variance whose power falls with frequency f as f^-exponent along the n knots.

    0 is white. Timmer and König 1995; used for planning by iCEM (arXiv 2008.06389, section 3.1).
    """
    problems, samples, n, actions = shape
    if exponent == 0.0 or n < 2:
        return rng.standard_normal(shape)
    frequencies = np.fft.rfftfreq(n)
    amplitude = np.maximum(frequencies, 1.0 / n) ** (-exponent / 2)
    real, imaginary = rng.standard_normal((2, problems, samples, actions, len(frequencies)))
    imaginary[..., 0] = 0.0  # the mean has no phase, nor, with even n, the highest frequency
    weight = np.full(len(frequencies), 2.0)
    weight[0] = 1.0
    real[..., 0] *= np.sqrt(2.0)
    if n % 2 == 0:
        imaginary[..., -1] = 0.0
        weight[-1] = 1.0
        real[..., -1] *= np.sqrt(2.0)
    noise = np.fft.irfft((real + 1j * imaginary) * amplitude, n=n)
    # Variance of a sample: the sum over frequencies of amplitude² times how often each is counted, twice 1 / n².
    deviation = np.sqrt(2.0 * (weight * amplitude**2).sum()) / n
    return np.moveaxis(noise / deviation, -1, 2)
