"""CommittedReference: where the reference is and will be, plan after plan."""

import numpy as np
import pytest

from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory

T0 = 1_700_000_000.0


def plan(q, duration=1.0, xy=(0.0, 0.0), speed=(0.1, 0.0)):
    """One joint from q by 1 rad in `duration` s; its tool by `speed` m/s."""
    rest = np.zeros((2, 1))
    knots = np.tile(np.array(speed, float), (11, 1))
    return ToolPath(np.array(xy, float), knots, 0.1), JointTrajectory(
        ("a",), np.array([0.0, duration]), np.array([[q], [q + 1.0]]), rest, rest
    )


@pytest.fixture
def reference():
    made = CommittedReference()
    made.hold(T0, np.array([0.5]), ("a",), np.array([0.1, 0.2]))
    return made


def test_an_empty_reference():
    assert not CommittedReference()


def test_a_hold_is_at_rest(reference):
    assert reference and reference.end == T0
    for t in (T0 - 3, T0, T0 + 100):
        q, qd, qdd = reference.joints_at(t)
        assert q == [0.5] and not qd.any() and not qdd.any()
    position, velocity = reference.tool_at(np.array([T0, T0 + 9]))
    np.testing.assert_array_equal(position, [[0.1, 0.2]] * 2)
    assert not velocity.any()


def test_a_plan_takes_effect_at_its_start(reference):
    path, trajectory = plan(0.5)
    reference.add_plan(T0 + 1, path, trajectory)
    assert reference.joints_at(T0 + 0.99)[0] == [0.5]
    assert reference.joints_at(T0 + 1.5)[0] == pytest.approx([1.0])
    assert reference.joints_at(T0 + 5)[0] == pytest.approx([1.5])
    assert reference.end == T0 + 2
    position, velocity = reference.tool_at(np.array([T0 + 0.5, T0 + 1.2]))
    np.testing.assert_allclose(position, [[0.1, 0.2], [0.02, 0.0]], atol=1e-6)
    np.testing.assert_allclose(velocity, [[0, 0], [0.1, 0.0]], atol=1e-6)


def test_a_later_plan_takes_over_at_its_start_time(reference):
    reference.add_plan(T0 + 1, *plan(0.5, duration=2.0))
    before = reference.joints_at(T0 + 1.5)[0]
    reference.add_plan(T0 + 2, *plan(7.0))
    assert reference.joints_at(T0 + 1.5)[0] == before
    assert reference.joints_at(T0 + 2)[0] == pytest.approx([7.0])
    assert reference.end == T0 + 3


def test_a_plan_replaces_plans_with_a_later_start_time(reference):
    reference.add_plan(T0 + 3, *plan(3.0))
    reference.add_plan(T0 + 2, *plan(2.0))
    assert reference.joints_at(T0 + 3.5)[0] == pytest.approx(
        [3.0]
    )  # the end of the second, not the middle of the first
    assert reference.end == T0 + 3


def test_old_plans_are_removed_but_not_the_active_one():
    made = CommittedReference(keep=5.0)
    made.hold(T0, np.array([0.5]), ("a",), np.zeros(2))
    for k in range(100):
        made.add_plan(T0 + k, *plan(float(k)))
    assert len(made._plans) < 10
    assert made.joints_at(T0 + 95.0)[0] == pytest.approx([95.0])
