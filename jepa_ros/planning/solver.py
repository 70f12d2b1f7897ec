"""The seam between search algorithms and what they search for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Find the candidate (n, A) of least cost.

    repair: candidates (S, n, A) → feasible ones of the same shape; nothing else is ever evaluated or returned.
    cost: feasible candidates (S, n, A) → (S,), where NaN or Inf marks a candidate that could not be judged.
    seeds: (K, n, A) feasible candidates to start from; the first is the default, which stands if none is better.
    seed_costs: (K,) their costs.
    """

    repair: Callable[[np.ndarray], np.ndarray]
    cost: Callable[[np.ndarray], np.ndarray]
    seeds: np.ndarray
    seed_costs: np.ndarray


@dataclass(frozen=True)
class Solution:
    """The best candidate (n, A) and how it was found. cost is Inf where no candidate had a finite one."""

    candidate: np.ndarray
    cost: float
    iterations: int
    samples: int


class Solver(Protocol):
    """Anytime search: the best so far is returned when the budget is spent."""

    def solve(self, problem: Problem, budget: float, rng: np.random.Generator) -> Solution:
        """Search for at most `budget` s (steady clock); the same rng state and iterations give the same result."""
