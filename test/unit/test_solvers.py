"""Search algorithms: each finds minima, keeps to its budget and survives costs that are no numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.planning import SOLVERS
from jepa_ros.planning import solver as seam
from jepa_ros.planning.solver import Problem, coloured_noise
from jepa_ros.planning.solvers import make_solver

N, A = 6, 2
TARGET = np.linspace([0.6, -0.5], [-0.2, 0.3], N)
ITERATIONS = dict.fromkeys(SOLVERS, 60) | {"icem": 30, "cem": 12, "shooting": 400}
"""Iterations within which a solver finds the minimum; shooting comes near it only."""


def quadratic(x):
    return np.square(x - TARGET).sum((2, 3))


def problem(cost=quadratic, repair=lambda x: np.clip(x, -1, 1), seeds=None, problems=1):
    seeds = np.zeros((problems, 2, N, A)) if seeds is None else seeds
    return Problem(repair, cost, seeds, cost(seeds), lambda x: (cost(x), 2 * (x - TARGET)))


def solve(name, made, seed=0, budget=np.inf, **settings):
    return make_solver(name, **settings).solve(made, budget, np.random.default_rng(seed))


@pytest.fixture(params=SOLVERS)
def name(request):
    return request.param


def test_a_solver_finds_the_minimum_of_a_quadratic(name):
    solution = solve(name, problem(), iterations=ITERATIONS[name])
    near = 0.6 if name == "shooting" else 0.1
    np.testing.assert_allclose(solution.candidates[0], TARGET, atol=near)
    assert solution.costs == pytest.approx(quadratic(solution.candidates[:, None])[:, 0])
    assert solution.iterations == ITERATIONS[name]


def test_only_repaired_candidates_are_evaluated_and_returned(name):
    judged = []

    def cost(x):
        judged.append(np.abs(x).max())
        return np.square(x - 2.0).sum((2, 3))

    solution = solve(name, problem(cost, lambda x: np.clip(x, -0.3, 0.3)), iterations=8)
    assert max(judged) <= 0.3
    assert np.abs(solution.candidates).max() <= 0.3 and np.abs(solution.elites).max() <= 0.3


def test_the_seed_determines_the_result(name):
    one, again, other = (solve(name, problem(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.candidates, again.candidates)
    assert one.costs == again.costs
    assert np.abs(one.candidates - other.candidates).max() > 1e-6


def test_a_solution_is_never_worse_than_its_seeds(name):
    seeds = np.stack([np.zeros((N, A)), TARGET + 1e-3])[None]
    for seed in range(3):
        assert solve(name, problem(seeds=seeds), seed, iterations=1).costs <= quadratic(seeds).min()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_costs_are_ignored(name, value):
    def cost(x):
        return np.where(x[..., 0, 0] > 0.2, value, quadratic(x))

    solution = solve(name, problem(cost), iterations=ITERATIONS[name])
    assert np.isfinite(solution.costs).all() and solution.candidates[0, 0, 0] <= 0.2
    assert np.isfinite(solution.candidates).all()
    assert solution.costs < quadratic(np.zeros((1, 1, N, A)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_without_finite_costs_the_default_is_returned(name, value):
    seeds = np.random.default_rng(0).uniform(-1, 1, (1, 3, N, A))
    solution = solve(name, problem(lambda x: np.full(x.shape[:2], value), seeds=seeds))
    assert solution.costs == np.inf
    np.testing.assert_array_equal(solution.candidates[0], seeds[0, 0])


def test_the_first_seed_is_returned_if_none_is_better(name):
    seeds = np.random.default_rng(0).uniform(-1, 1, (1, 3, N, A))
    solution = solve(name, problem(lambda x: np.ones(x.shape[:2]), seeds=seeds))
    np.testing.assert_array_equal(solution.candidates[0], seeds[0, 0])


def test_batched_problems_have_their_own_goals(name):
    targets = np.stack([TARGET, -TARGET, 0.5 * TARGET])

    def cost(x):
        return np.square(x - targets[:, None]).sum((2, 3))

    seeds = np.zeros((3, 1, N, A))
    made = Problem(lambda x: x, cost, seeds, cost(seeds), lambda x: (cost(x), 2 * (x - targets[:, None])))
    solution = solve(name, made, iterations=ITERATIONS[name])
    assert solution.candidates.shape == (3, N, A) and solution.elites.shape[0] == 3
    start = np.square(targets).sum((1, 2))
    assert (solution.costs <= (1.0 if name == "shooting" else 0.1) * start).all()


def test_a_problem_without_finite_costs_does_not_disturb_the_batch(name):
    def cost(x):
        return np.stack([np.full(x.shape[1], np.nan), quadratic(x)[1]])

    solution = solve(name, problem(cost, problems=2), iterations=ITERATIONS[name])
    assert solution.costs[0] == np.inf and not solution.candidates[0].any()
    assert solution.costs[1] < 0.5 * quadratic(np.zeros((1, 1, N, A)))


@pytest.mark.parametrize("cost_s, budget, rounds", [(0.03, 0.1, 3), (0.03, 0.119, 3), (0.2, 0.1, 1)])
def test_a_solver_keeps_to_its_time_budget(monkeypatch, name, cost_s, budget, rounds):
    """A slow cost on a clock of its own. One round is always judged, then what fits."""
    clock = SimpleNamespace(now=50.0)

    def cost(x):
        clock.now += cost_s
        return quadratic(x)

    monkeypatch.setattr(seam, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    solution = solve(name, problem(cost), budget=budget, iterations=50)
    assert solution.iterations == rounds


def test_elites_are_sorted_by_cost(name):
    solution = solve(name, problem())
    costs = quadratic(solution.elites)[0]
    assert (np.diff(costs) >= 0).all() and len(costs) > 3
    np.testing.assert_array_equal(solution.elites[0, 0], solution.candidates[0])


def test_noise_has_unit_variance_and_is_smoother_with_a_larger_exponent():
    rough = []
    for exponent in (0.0, 1.0, 2.0, 3.0):
        for n in (17, 18):
            noise = coloured_noise((2, 4000, n, 2), exponent, np.random.default_rng(0))
            assert noise.shape == (2, 4000, n, 2) and noise.std() == pytest.approx(1.0, abs=0.02)
        rough.append(np.abs(np.diff(noise, axis=2)).mean())
    assert rough == sorted(rough, reverse=True) and rough[-1] < 0.4 * rough[0]


def test_coloured_noise_of_one_knot_has_unit_variance():
    assert coloured_noise((1, 100, 1, 2), 2.0, np.random.default_rng(0)).std() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: make_solver("annealing"),
            f"solver: expected one of {', '.join(SOLVERS)}, found 'ann",
        ),
        (lambda: make_solver("cem", colour=2.0), "solver cem: expected settings of elites, .*, found colour"),
        (
            lambda: make_solver("gradient").solve(
                Problem(lambda x: x, quadratic, np.zeros((1, 1, N, A)), np.ones((1, 1))), 1.0, np.random.default_rng(0)
            ),
            "solver gradient: the costs of this problem have no gradient",
        ),
    ],
)
def test_invalid_input_is_reported(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
