"""The controllers of the gate's tests behave as those of ros2_control, in simulated time and without ROS."""

import dataclasses
import math

import numpy as np
import pytest

from helpers.controller_peers import PositionPeer, TrajectoryPeer, limits
from helpers.gate_plans import GOAL, START, minimum_jerk
from jepa_ros.robot.motion.trajectory_points import Points

NOW = 1_700_000_000.0  # s
T = 0.01


def window(stamp=0.0, trajectory=None):
    return Points.from_trajectory(trajectory or minimum_jerk(START, GOAL), stamp)


def run(peer, begin, seconds):
    """Cycles of so many seconds; when they end."""
    end = begin + seconds
    for k in range(round(seconds / T) + 1):
        peer.update(begin + k * T)
    return end


def ramp(peer, begin, seconds, speed=0.5):
    """Set-points at 100 Hz that move all joints at `speed` rad/s from where the peer is."""
    first = peer.q
    for k in range(1, round(seconds / T) + 1):
        peer.receive(first + speed * k * T, begin + k * T)
    return begin + seconds


@pytest.fixture
def peer():
    made = TrajectoryPeer()
    made.update(NOW)
    return made


@pytest.fixture
def forward():
    made = PositionPeer()
    made.update(NOW)
    return made


def test_each_cycle_s_set_point_is_recorded_however_rarely_the_peer_is_asked(peer):
    peer.receive(window(), NOW)
    peer.update(NOW + 2.0)
    times = np.array([t for t, _ in peer.setpoints])
    np.testing.assert_allclose(np.diff(times), T, atol=1e-6)
    assert len(times) == 201
    np.testing.assert_allclose(peer.q, GOAL, atol=1e-9)


def test_a_smooth_motion_is_within_the_limits_and_a_jump_is_not(peer):
    now = run(peer, NOW, 0.1)
    peer.receive(window(now), now)
    now = run(peer, now, 1.5)
    fastest, way = limits(), np.abs(GOAL - START)
    assert peer.largest_step() == pytest.approx((15 / 8 / 1.2 * way / fastest.velocity).max(), rel=0.01)
    assert peer.largest_acceleration() == pytest.approx((5.77 / 1.2**2 * way / fastest.acceleration).max(), rel=0.02)
    peer.receive(window(now - 0.6), now)  # entered in the middle
    run(peer, now, 0.1)
    assert peer.largest_step() > 3.0 and peer.largest_acceleration() > 10.0


def test_nan_set_points_are_recorded_and_ignored_by_the_hardware(peer):
    points = list(window().points)
    points[-1] = dataclasses.replace(points[-1], positions=[math.nan, *GOAL[1:]])
    peer.receive(Points(peer.limits.names, tuple(points)), NOW)
    run(peer, NOW, 1.5)
    assert peer.largest_step() == math.inf and np.isfinite(peer.q).all()
    assert len(peer.auditor.violations) == 1


def test_a_rejected_window_is_a_violation_and_is_not_followed(peer):
    points = tuple(dataclasses.replace(p, effort=0 * START) for p in window().points)
    peer.receive(Points(peer.limits.names, points), NOW)
    run(peer, NOW, 1.5)
    assert "effort" in peer.rejected[0] and peer.auditor.violations == peer.rejected
    np.testing.assert_array_equal(peer.q, START)


@pytest.mark.parametrize("count", [1, 3])
def test_lost_messages_are_not_followed(peer, count):
    peer.lost = count
    for _ in range(count):
        peer.receive(window(), NOW)
    now = run(peer, NOW, 1.5)
    np.testing.assert_array_equal(peer.q, START)
    assert peer.auditor.windows == 0
    peer.receive(window(), now)
    run(peer, now, 1.5)
    np.testing.assert_allclose(peer.q, GOAL, atol=1e-9)


def test_sag_is_in_what_is_measured_only(peer, forward):
    for each in (peer, forward):
        each.sag = np.full(7, -0.03)
        np.testing.assert_allclose(each.update(NOW + 0.1), START - 0.03)
        np.testing.assert_array_equal(each.q, START)
    peer.receive(window(trajectory=minimum_jerk(START - 0.03, GOAL)), NOW + 0.1)  # from the measured arm
    run(peer, NOW + 0.1, 0.2)
    assert peer.largest_step() == pytest.approx(1.0, abs=0.05), "0.03 rad in a cycle"


def test_speed_scaling_of_the_peer_stretches_the_motion(peer):
    peer.speed = 0.5
    peer.receive(window(), NOW)
    run(peer, NOW, 1.0)
    assert np.abs(peer.q - GOAL).max() > 0.05
    run(peer, NOW + 1.0, 1.5)
    np.testing.assert_allclose(peer.q, GOAL, atol=1e-9)


def test_a_deactivated_trajectory_controller_holds_and_forgets(peer):
    peer.receive(window(), NOW)
    now = run(peer, NOW, 0.5)
    peer.active, here = False, peer.q
    peer.receive(window(), now)
    now = run(peer, now, 1.0)
    peer.active = True
    now = run(peer, now, 1.0)
    np.testing.assert_array_equal(peer.q, here)
    assert peer.rejected == []
    peer.receive(window(trajectory=minimum_jerk(here, START)), now)
    run(peer, now, 1.5)
    np.testing.assert_allclose(peer.q, START, atol=1e-9)


def test_a_stalled_control_loop_skips_cycles_and_catches_up_in_one(peer):
    peer.receive(window(), NOW)
    now = run(peer, NOW, 0.5)
    count, before = len(peer.setpoints), peer.q
    peer.stall(0.12)
    assert peer.stalls(now + 0.05)
    run(peer, now, 0.1)
    assert len(peer.setpoints) == count
    np.testing.assert_array_equal(peer.q, before)
    run(peer, now + 0.1, 0.1)
    steps = np.abs(np.diff([q for _, q in peer.setpoints], axis=0)).max(axis=1)
    assert steps.max() > 8 * steps[count - 3] and not peer.stalls(now + 0.2)


def test_of_the_commands_of_a_stall_the_newest_is_received_afterwards(peer, forward):
    for each in (peer, forward):
        each.stall(0.5)
    for k in range(3):
        forward.receive(START + 0.01 * k, NOW + 0.1 * (k + 1))
    peer.receive(window(NOW - 1.0), NOW + 0.1)  # ends at NOW + 0.2, within the stall
    for each in (peer, forward):
        run(each, NOW + 0.3, 0.3)
    np.testing.assert_array_equal(forward.q, START + 0.02)
    np.testing.assert_array_equal(peer.q, START)
    assert "in the past" in peer.rejected[0] and peer.auditor.violations == []


def test_a_forward_controller_follows_anything_finite(forward):
    now = ramp(forward, NOW, 1.0)
    run(forward, now, 1.0)
    np.testing.assert_allclose(forward.q, START + 0.5)
    assert forward.auditor.violations == [] and forward.largest_step() == pytest.approx(0.5 / 3, rel=1e-3)
    outside = START + 10.0
    forward.receive(outside, now + 1.0)
    run(forward, now + 1.0, 0.1)
    np.testing.assert_array_equal(forward.q, outside)
    assert len(forward.auditor.violations) == 1


def test_a_forward_controller_drops_nan_and_keeps_the_set_point_before(forward):
    ramp(forward, NOW, 0.2)
    before = forward.q
    forward.receive([*before[:6], math.nan], NOW + 0.2)
    run(forward, NOW + 0.2, 0.1)
    assert len(forward.dropped) == 1 and forward.active
    assert np.abs(forward.q - before).max() < 0.01


def test_a_command_of_wrong_length_deactivates_a_forward_controller(forward):
    forward.receive(START[:6], NOW + 0.001)
    forward.update(NOW + 0.02)
    assert not forward.active and "6 values for 7 joints" in forward.failures
    now = ramp(forward, NOW + 0.02, 0.5)
    np.testing.assert_array_equal(forward.q, START)
    forward.active = True
    run(forward, now, 0.5)
    np.testing.assert_array_equal(forward.q, START)
    assert forward.failures == ["6 values for 7 joints"]


def test_an_empty_command_is_ignored(forward):
    forward.receive([], NOW + 0.001)
    run(forward, NOW, 0.1)
    assert forward.active and forward.failures == []


def test_a_forward_controller_forgets_its_set_point_when_activated_again(forward):
    now = ramp(forward, NOW, 0.3)
    forward.active, here = False, forward.q
    now = ramp(forward, now, 0.3)
    forward.active = True
    now = run(forward, now, 0.3)
    np.testing.assert_array_equal(forward.q, here)
    forward.receive(here + 0.01, now)
    run(forward, now, 0.1)
    np.testing.assert_array_equal(forward.q, here + 0.01)


@pytest.mark.parametrize("kind", [TrajectoryPeer, PositionPeer])
def test_an_arm_that_is_put_somewhere_stays_there_and_that_step_is_not_recorded(kind):
    peer = kind()
    run(peer, NOW, 0.2)
    peer.put(GOAL)
    run(peer, NOW + 0.2, 0.5)
    np.testing.assert_array_equal(peer.measured, GOAL)
    assert peer.largest_step() == 0.0 and peer.largest_step(limits()) == 0.0
