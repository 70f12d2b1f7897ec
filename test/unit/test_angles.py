"""Positions of continuous joints: compared and moved by whole turns."""

import math

import numpy as np
import pytest

from jepa_ros.robot.motion.angles import TURN, difference, nearest_turn

MASK = np.array([True, False])


@pytest.mark.parametrize("turns", [-3, -1, 0, 1, 2])
def test_an_angle_of_a_continuous_joint_is_moved_to_the_turn_nearest_to_the_reference(turns):
    moved = nearest_turn(np.array([0.4, 9.0]), np.array([0.1 + turns * TURN, 0.0]), MASK)
    np.testing.assert_allclose(moved, [0.4 + turns * TURN, 9.0])


def test_angles_that_are_near_already_are_returned_exactly():
    angles = np.array([[math.pi - 1e-9, 7.0], [0.1, -7.0]])
    np.testing.assert_array_equal(nearest_turn(angles, np.zeros(2), MASK), angles)


def test_the_difference_goes_the_short_way_over_half_a_turn():
    np.testing.assert_allclose(difference(np.array([-3.1, -3.1]), np.array([3.1, 3.1]), MASK), [TURN - 6.2, -6.2])


def test_values_that_are_not_finite_stay_so():
    moved = nearest_turn(np.array([np.nan, np.inf]), np.zeros(2), np.array([True, True]))
    np.testing.assert_array_equal(moved, [np.nan, np.inf])
    assert np.isnan(difference(np.zeros(1), np.array([np.nan]), np.array([True])))
