"""The cross-entropy method: finds minima, keeps to its budget, survives costs that are no numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from jepa_ros.planning import cem
from jepa_ros.planning.cem import Cem
from jepa_ros.planning.solver import Problem

N, A = 6, 2
TARGET = np.linspace([0.6, -0.5], [-0.2, 0.3], N)


def quadratic(x):
    return np.square(x - TARGET).sum((1, 2))


def problem(cost=quadratic, repair=lambda x: np.clip(x, -1, 1), seeds=None):
    seeds = np.zeros((2, N, A)) if seeds is None else seeds
    return Problem(repair, cost, seeds, cost(seeds))


def solve(made, seed=0, budget=np.inf, **settings):
    return Cem(**settings).solve(made, budget, np.random.default_rng(seed))


def test_finds_the_minimum_of_a_quadratic():
    solution = solve(problem(), iterations=25)
    np.testing.assert_allclose(solution.candidate, TARGET, atol=0.1)
    assert solution.cost == pytest.approx(quadratic(solution.candidate[None])[0])
    assert solution.iterations == 25 and solution.samples == 2 + 25 * Cem().samples


def test_only_repaired_candidates_are_judged_and_returned():
    judged = []

    def cost(x):
        judged.append(np.abs(x).max())
        return np.square(x - 2.0).sum((1, 2))

    solution = solve(problem(cost, lambda x: np.clip(x, -0.3, 0.3)), iterations=20)
    assert max(judged) <= 0.3
    np.testing.assert_allclose(solution.candidate, 0.3, atol=0.03)


def test_the_seed_decides():
    one, again, other = solve(problem(), 1), solve(problem(), 1), solve(problem(), 2)
    np.testing.assert_array_equal(one.candidate, again.candidate)
    assert one.cost == again.cost
    assert np.abs(one.candidate - other.candidate).max() > 1e-6


def test_never_worse_than_its_seeds():
    seeds = np.stack([np.zeros((N, A)), TARGET + 1e-3])
    for seed in range(5):
        assert solve(problem(seeds=seeds), seed, iterations=1).cost <= quadratic(seeds).min()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_costs_that_are_no_numbers_are_passed_over(value):
    def cost(x):
        return np.where(x[:, 0, 0] > 0.2, value, quadratic(x))

    solution = solve(problem(cost), iterations=15)
    assert np.isfinite(solution.cost) and solution.candidate[0, 0] <= 0.2
    assert solution.cost < 0.5 * quadratic(np.zeros((1, N, A)))[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_seed_stands_where_no_cost_is_finite(value):
    seeds = np.random.default_rng(0).uniform(-1, 1, (3, N, A))
    solution = solve(problem(lambda x: np.full(len(x), value), seeds=seeds))
    np.testing.assert_array_equal(solution.candidate, seeds[0])
    assert solution.cost == np.inf and solution.samples == 3


def test_the_first_seed_stands_where_none_is_better():
    seeds = np.random.default_rng(0).uniform(-1, 1, (3, N, A))
    np.testing.assert_array_equal(solve(problem(lambda x: np.ones(len(x)), seeds=seeds)).candidate, seeds[0])


@pytest.mark.parametrize("cost_s, budget, rounds", [(0.03, 0.1, 3), (0.03, 0.119, 3), (0.03, 10.0, 4), (0.2, 0.1, 1)])
def test_keeps_to_its_budget(monkeypatch, cost_s, budget, rounds):
    """A slow cost on a clock of its own. One round is always judged, then what fits."""
    clock = SimpleNamespace(now=100.0, calls=0)

    def cost(x):
        clock.now, clock.calls = clock.now + cost_s, clock.calls + 1
        return quadratic(x)

    monkeypatch.setattr(cem, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    made = problem(cost)
    begin, clock.calls = clock.now, 0
    solution = solve(made, budget=budget)
    assert clock.calls == rounds == solution.iterations
    assert clock.now - begin <= max(budget, cost_s) + 1e-9


def test_noise_is_smooth_and_leaves_the_mean_itself():
    noise = Cem(samples=4000, hold=2)._noise((N, A), np.random.default_rng(0))
    assert not noise[0].any()
    spread = noise[1:].std(0)
    assert (spread > 0.6).all() and (spread < 1.1).all()
    np.testing.assert_allclose(noise[:, 1::2][:, :-1] + noise[:, 3::2] - 2 * noise[:, 2::2][:, :2], 0, atol=1e-12)
