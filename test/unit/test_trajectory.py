"""Joint trajectories: interpolation and validation."""

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory import JointTrajectory

NAMES = ("a", "b")
TIMES = np.array([0.2, 0.5, 1.1, 1.4])
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(3, 4, 2))  # positions, velocities, accelerations
KINDS = {"linear": 1, "cubic": 2, "quintic": 3}


def trajectory(kind):
    return JointTrajectory(NAMES, TIMES, *POINTS[: KINDS[kind]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trajectory_passes_through_its_points(kind):
    sampled = trajectory(kind).sample(TIMES)
    for given, found in zip(POINTS[: KINDS[kind]], sampled, strict=False):
        np.testing.assert_allclose(found, given, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_velocity_and_acceleration_are_the_derivatives(kind):
    inside = np.array([0.25, 0.33, 0.6, 0.95, 1.2, 1.37])
    h = 1e-5
    moving = trajectory(kind)
    _, qd, qdd = moving.sample(inside)
    before, after = moving.sample(inside - h), moving.sample(inside + h)
    np.testing.assert_allclose(qd, (after[0] - before[0]) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(qdd, (after[1] - before[1]) / (2 * h), atol=1e-4)


def test_positions_without_velocities_are_interpolated_linearly():
    q, qd, qdd = trajectory("linear").sample(0.35)
    np.testing.assert_allclose(q, POINTS[0, :2].mean(0))
    np.testing.assert_allclose(qd, (POINTS[0, 1] - POINTS[0, 0]) / 0.3)
    assert not qdd.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t, index", [(-1.0, 0), (0.1999, 0), (1.4001, -1), (1e9, -1)])
def test_a_trajectory_is_at_rest_before_its_start_and_after_its_end(kind, t, index):
    q, qd, qdd = trajectory(kind).sample(t)
    np.testing.assert_array_equal(q, POINTS[0, index])
    assert not qd.any() and not qdd.any()


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_many_times_equals_sampling_each_time(kind):
    times = np.linspace(0.0, 1.6, 33)
    many = trajectory(kind).sample(times)
    for i, t in enumerate(times):
        for one, all_ in zip(trajectory(kind).sample(float(t)), many, strict=True):
            assert one.shape == (2,)
            np.testing.assert_array_equal(one, all_[i])


def test_a_trajectory_of_one_point_is_held():
    still = JointTrajectory(NAMES, np.array([0.3]), np.array([[1.0, 2.0]]))
    q, qd, qdd = still.sample(np.array([0.0, 0.3, 5.0]))
    np.testing.assert_array_equal(q, [[1.0, 2.0]] * 3)
    assert not qd.any() and not qdd.any() and still.duration == 0.3


P = np.zeros((2, 2))


@pytest.mark.parametrize(
    "times, arrays, words",
    [
        ([], (np.zeros((0, 2)),), "at least one point"),
        ([0.0, 1.0], (np.zeros((2, 3)),), r"positions.*\(2, 2\).*\(2, 3\)"),
        ([0.0, 1.0], (P, np.zeros((1, 2))), r"velocities.*\(2, 2\).*\(1, 2\)"),
        ([0.0, 1.0], (P, P, np.full((2, 2), np.nan)), "accelerations.*finite"),
        ([0.0, 1.0], (P + np.inf,), "positions.*finite"),
        ([0.0, 0.0], (P,), "times.*increasing"),
        ([1.0, 0.5], (P,), "times.*increasing"),
        ([-0.1, 0.5], (P,), "times.*from 0"),
        ([0.0, np.nan], (P,), "times.*finite"),
        ([0.0, 1.0], (P, None, P), "without velocities"),
    ],
)
def test_invalid_points_are_refused_in_one_line(times, arrays, words):
    with pytest.raises(InputError, match=words) as error:
        JointTrajectory(NAMES, np.array(times), *arrays)
    assert "\n" not in str(error.value)
