"""Planar paths from velocity knots."""

import numpy as np
import pytest

from jepa_ros.robot.motion.tool_path import ToolPath, travel_matrix

PERIOD = 0.1
RNG = np.random.default_rng(1)
KNOTS = RNG.uniform(-0.2, 0.2, (7, 2))
PATH = ToolPath(np.array([0.3, -0.2]), KNOTS, PERIOD)
TIMES = np.sort(np.concatenate([RNG.uniform(0, 0.9, 40), np.arange(8) * PERIOD]))


def test_the_travel_matrix_gives_the_sampled_positions():
    moved = travel_matrix(len(KNOTS), TIMES, PERIOD) @ KNOTS
    np.testing.assert_allclose(PATH.sample(TIMES)[0], PATH.start + moved, atol=1e-12)


def test_position_is_the_integral_of_velocity():
    fine = np.linspace(0.0, 0.9, 9001)
    position, velocity, _ = PATH.sample(fine)
    steps = 0.5 * (velocity[1:] + velocity[:-1]) * np.diff(fine)[:, None]
    integral = PATH.start + np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])
    np.testing.assert_allclose(position, integral, atol=1e-8)


def test_acceleration_is_the_derivative_of_velocity():
    h = 1e-6
    times = TIMES[(TIMES > h) & (TIMES < PATH.duration - h)]
    slope = (PATH.sample(times + h)[1] - PATH.sample(times - h)[1]) / (2 * h)
    np.testing.assert_allclose(PATH.sample(times)[2], slope, atol=1e-3)


@pytest.mark.parametrize("knot", range(len(KNOTS)))
def test_acceleration_is_zero_at_knots(knot):
    _, velocity, acceleration = PATH.sample(np.array([knot * PERIOD]))
    np.testing.assert_allclose(velocity[0], KNOTS[knot], atol=1e-12)
    np.testing.assert_allclose(acceleration[0], 0.0, atol=1e-9)


def test_a_whole_tick_moves_by_the_mean_of_its_knots():
    position = PATH.sample(np.arange(len(KNOTS)) * PERIOD)[0]
    np.testing.assert_allclose(np.diff(position, axis=0), 0.5 * (KNOTS[1:] + KNOTS[:-1]) * PERIOD, atol=1e-12)


def test_the_last_velocity_continues():
    end, later = PATH.sample(np.array([PATH.duration, PATH.duration + 0.7]))[0]
    np.testing.assert_allclose(later - end, 0.7 * KNOTS[-1], atol=1e-12)
    np.testing.assert_allclose(PATH.sample(np.array([5.0]))[1][0], KNOTS[-1])
