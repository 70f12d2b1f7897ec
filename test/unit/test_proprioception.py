"""Proprioception from joint states of hardware that measures positions alone, or within half a turn."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.angles import remove_wraps
from jepa_ros.world_model.config import ProprioceptionConfig
from jepa_ros.world_model.proprioception import ProprioceptionReader

CONFIG = ProprioceptionConfig(kind="joints", joints=("a", "b"), gripper=("g",), mean=(0.0,) * 5, std=(1.0,) * 5)


def message(t, q, velocity):
    stamp = SimpleNamespace(sec=int(t), nanosec=round((t % 1.0) * 1e9))
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), name=["g", "b", "a"], position=[0.5, q[1], q[0]], velocity=velocity
    )


def read_turning(velocity, seconds=3.0, rate=100.0):
    """States of joint a, turning at 1 rad/s from 2 rad on and reported within half a turn."""
    reader = ProprioceptionReader(CONFIG)
    times = 10.0 + np.arange(0.0, seconds, 1.0 / rate)
    turned = [math.remainder(2.0 + t - 10.0, 2.0 * math.pi) for t in times]
    return np.array([reader.read(message(t, (a, 0.3), velocity))[1] for t, a in zip(times, turned, strict=True)])


@pytest.mark.parametrize("velocity", [[], [math.nan] * 3, [0.0, 0.0, math.nan]])
def test_velocities_that_are_not_measured_are_differences(velocity):
    states = read_turning(velocity)
    np.testing.assert_allclose(states[1:, 2], 1.0, atol=1e-6)
    np.testing.assert_allclose(states[:, 3], 0.0, atol=1e-9)
    assert states[0, 2] == 0.0


def test_measured_velocities_are_kept():
    assert (read_turning([0.0, 0.2, 0.7])[:, 2:4] == [0.7, 0.2]).all()


def test_a_joint_that_passes_half_a_turn_does_not_jump():
    np.testing.assert_allclose(np.diff(read_turning([0.0] * 3)[:, 0]), 0.01, atol=1e-6)


def test_after_a_gap_or_a_step_back_in_time_nothing_is_compared():
    reader = ProprioceptionReader(CONFIG)
    reader.read(message(10.0, (0.0, 0.0), []))
    assert reader.read(message(12.0, (4.0, 0.0), []))[1].tolist() == [4.0, 0.0, 0.0, 0.0, 0.5]
    assert reader.read(message(11.0, (-4.0, 0.0), []))[1].tolist() == [-4.0, 0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_an_infinite_velocity_is_refused(bad):
    with pytest.raises(InputError, match="NaN or Inf"):
        ProprioceptionReader(CONFIG).read(message(1.0, (0.0, 0.0), [0.0, bad, 0.0]))


def test_wraps_are_removed_but_not_over_gaps():
    q = np.array([[3.1], [-3.1], [-3.0], [3.1]])
    found = remove_wraps(q, np.array([0.0, 0.1, 0.2, 0.9]))
    np.testing.assert_allclose(found[:, 0], [3.1, 2 * math.pi - 3.1, 2 * math.pi - 3.0, 2 * math.pi + 3.1])
