"""Paths, and the motions that ruckig makes for the gate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_ros.robot.gate.jerk_limited import MotionMaker
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import MAX_SEGMENT, Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

RNG = np.random.default_rng(4)


def random_path(n=6, j=3, step=0.05, start=2.0):
    times = start + np.concatenate(([0.0], np.cumsum(RNG.uniform(0.5, 1.0, n - 1) * step)))
    states = RNG.normal(size=(n, 3, j))
    states[-1, 1:] = 0.0
    return Path(times, states)


def test_a_path_is_the_curve_that_controllers_follow():
    path = random_path()
    same = JointTrajectory(("a", "b", "c"), path.times - path.start, *path.states.transpose(1, 0, 2))
    for t in np.linspace(path.start, path.end - 1e-6, 40):
        np.testing.assert_allclose(path.at(t), same.sample(t - path.start), atol=1e-6)


def test_cutting_a_path_keeps_its_curve():
    path = random_path(step=0.3).divided()
    assert np.diff(path.times).max() <= MAX_SEGMENT * 1.01
    t0, t1 = path.start + 0.111, path.start + 0.3333
    for part in (path.between(t0, t1), path.after(t0), path.between(t0, t0 + 0.2).then(path.after(t0 + 0.2))):
        for t in np.linspace(t0, t1 - 1e-6, 30):
            np.testing.assert_allclose(part.at(t), path.at(t), atol=1e-5)
    assert path.between(t0, t1).start <= t0 and path.between(t0, t1).end == t1


def test_a_path_is_at_rest_before_its_start_and_after_its_end():
    path = random_path()
    assert not path.at(path.end + 1)[1:].any() and not path.at(path.start - 1)[1:].any()
    held = path.between(path.end + 1.0, path.end + 1.12)
    assert (held.start, held.end) == (path.end + 1.0, path.end + 1.12) and np.abs(held.samples()[1:]).max() < 1e-8
    across = path.between(path.end - 0.01, path.end + 0.12)
    np.testing.assert_allclose(across.at(path.end + 0.06), path.at(path.end), atol=1e-9)


def test_sampled_velocity_and_acceleration_are_the_derivatives():
    path = random_path(step=0.05)
    samples = path.samples(0.0005)
    h = np.diff(path.times)[:, None] / (samples.shape[1] - 1)
    for d in range(3):
        slope = np.diff(samples[d], axis=0) / h[None]
        middle = (samples[d + 1, 1:] + samples[d + 1, :-1]) / 2
        np.testing.assert_allclose(slope, middle, atol=np.abs(samples[d + 1]).max() * 1e-2)


def test_slowing_keeps_the_geometry():
    path = random_path()
    slow = path.slowed(2.0)
    for t in np.linspace(0.0, path.end - path.start - 1e-6, 20):
        np.testing.assert_allclose(slow.at(path.start + 2 * t)[0], path.at(path.start + t)[0], atol=1e-9)


def maker(acceleration=20.0, jerk=1000.0, velocity=2.5):
    limits = JointLimits(
        ("a", "b", "c"), *np.full((2, 3), [[-99], [99]]), *np.full((3, 3), [[velocity], [acceleration], [jerk]])
    )
    return MotionMaker(limits), limits


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_stops_respect_acceleration_and_jerk_limits_from_any_state(seed, acceleration, jerk):
    rng = np.random.default_rng(seed)
    motion, limits = maker(10**acceleration, 10 ** (jerk + acceleration))
    state = rng.uniform(-1, 1, (3, 3)) * np.array([[1.0], [2.5], [10**acceleration * rng.integers(0, 2)]])
    stop = motion.stop(state, 5.0)
    use = limits.compute_usage(stop)
    assert use.acceleration <= 1.0001 and use.jerk <= 1.0001
    np.testing.assert_array_equal(stop.states[0], state)
    assert not stop.states[-1, 1:].any() and stop.start == 5.0


def test_a_stop_at_rest_does_not_move():
    motion, _ = maker()
    state = np.array([[1.0, 2.0, 3.0], [0.0] * 3, [0.0] * 3])
    np.testing.assert_array_equal(motion.stop(state, 0.0).states[-1], state)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.06, 0.2, 0.6]))
def test_bridges_reach_the_target_in_time_or_are_none(seed, duration):
    rng = np.random.default_rng(seed)
    motion, limits = maker()
    state = rng.uniform(-1, 1, (3, 3)) * np.array([[1.0], [1.0], [5.0]])
    target = state + rng.uniform(-1, 1, (3, 3)) * np.array([[0.05], [0.3], [2.0]])
    target[0] += state[1] * duration
    bridge = motion.bridge(state, target, 1.0, duration)
    if bridge is None:
        return
    assert bridge.end == pytest.approx(1.0 + duration)
    np.testing.assert_array_equal(bridge.states[[0, -1]], np.stack((state, target)))
    use = limits.compute_usage(bridge)
    assert use.acceleration <= 1.001 and use.jerk <= 1.0


def test_motions_that_ruckig_rejects_are_none():
    motion, _ = maker()
    wild = np.full((3, 3), np.nan)
    assert motion.stop(wild, 0.0) is None
    assert motion.bridge(np.zeros((3, 3)), wild, 0.0, 0.2) is None
    assert motion.bridge(np.zeros((3, 3)), np.full((3, 3), 5.0), 0.0, 0.2) is None
