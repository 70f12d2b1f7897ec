"""Random goals, obstacles, models, solvers and seeds: no plan breaks a constraint, and what can be gets a plan.

The same trials as test/benchmarks/plan_properties.py, fewer.
"""

import pytest

from benchmarks import plan_properties


@pytest.fixture(scope="module")
def found():
    world = plan_properties.World()
    return [plan_properties.trial(world, index) for index in range(30)]


def test_no_plan_violates_a_constraint(found):
    assert [f["violation"] for f in found if f["violation"]] == []


def test_feasible_goals_get_a_plan_that_ends_nearer(found):
    feasible = [f for f in found if f["feasible"]]
    assert 5 < len(feasible) < 25
    assert all(f["planned"] and f["moved"] > 0.005 and f["nearer"] > 0.0 for f in feasible)
    assert {f["solver"] for f in found} == {"icem", "cem", "mppi", "gradient", "shooting"}


def test_a_forbidden_goal_position_is_refused_with_the_reason(found):
    held = [f["text"] for f in found if not f["planned"]]
    assert held and all("too near to a keep-out box" in text or "no plan is allowed" in text for text in held)
