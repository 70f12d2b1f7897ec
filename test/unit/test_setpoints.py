"""Set-points for controllers that take one position in each cycle, in simulated time."""

import math

import numpy as np
import pytest

from helpers.gate_simulation import GOAL, LIMITS, ZERO, minimum_jerk
from jepa_ros.robot.gate.controller_cycles import ControllerCycles, SetpointSchedule
from jepa_ros.robot.gate.setpoints import SetpointStream
from jepa_ros.robot.motion.path import Path

EPOCH = 1_700_000_000.0


def path_of(trajectory, start):
    states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
    return Path(start + trajectory.times, states)


class Loop:
    """A gate's set-points, a transport with delays, and a controller that takes the newest set-point in each cycle.

    Times in s from EPOCH; the controllers' clock is `skew` s behind the gate's.
    """

    def __init__(self, rate, phase, seed=0, skew=0.0, given=None, learn=1.0):
        self.period, self.phase, self.skew = 1.0 / rate, phase / rate, skew
        self.random = np.random.default_rng(seed)
        self.cycles = ControllerCycles(given)
        self.schedule = SetpointSchedule(self.cycles, 200.0)
        self.stream = SetpointStream(LIMITS, 0.1)
        self.taken, self.held, self.asleep = [], ZERO, (math.inf, math.inf)
        self.run(0.0, learn)

    def run(self, begin, end, path=None):
        """Simulate; from `begin` on the stream follows `path`. Records the set-point of each cycle."""
        k = math.ceil((begin - self.phase) / self.period)
        cycle = self.phase + k * self.period
        slot, messages, states = self.schedule.next(EPOCH + begin), [], []
        if path is not None:
            self.stream.follow(path, begin)
        while cycle < end:
            now = min(slot.send - EPOCH, cycle, *(s[0] for s in states[:1]))
            if states and now == states[0][0]:
                arrives, stamp = states.pop(0)
                self.cycles.observe(EPOCH + stamp - self.skew, EPOCH + arrives)
            elif now == cycle:
                arrived = [m for m in messages if m[0] <= cycle]
                self.held = arrived[-1][1] if arrived else self.held
                messages = [m for m in messages if m[0] > cycle]
                self.taken.append((cycle, self.held))
                states.append((cycle + self.random.uniform(2e-4, 1e-3), cycle))
                k += 1
                cycle = self.phase + k * self.period
            else:
                woke = now + self.random.uniform(0.0, 0.3 * self.period)
                if self.asleep[0] <= woke < self.asleep[1]:
                    woke = self.asleep[1]
                if woke <= slot.cycle - EPOCH:
                    setpoint = self.stream.next(slot.cycle - EPOCH, slot.period)
                    if setpoint is not None:
                        messages.append((woke + self.random.uniform(1e-4, 0.1 * self.period), setpoint))
                slot = self.schedule.next(EPOCH + max(woke, now + 1e-6))
        return self

    @property
    def acceleration(self):
        """(N, J) rad/s² of the set-points, by cycle."""
        return np.diff([q for _, q in self.taken], n=2, axis=0) / self.period**2

    @property
    def steps(self):
        """(N, J) rad between set-points, by cycle."""
        return np.diff([q for _, q in self.taken], axis=0)


@pytest.mark.parametrize("rate", [100, 125, 200, 250, 500])
@pytest.mark.parametrize("phase", [0.0, 0.37, 0.8])
def test_every_cycle_of_the_controllers_gets_the_set_point_of_its_time(rate, phase):
    path = path_of(minimum_jerk(ZERO, GOAL, 1.2), 1.0)
    loop = Loop(rate, phase).run(1.0, 2.6, path)
    planned = np.abs(path.samples(0.002)[2]).max()
    assert np.abs(loop.acceleration).max() <= 1.5 * planned
    np.testing.assert_allclose(loop.taken[-1][1], GOAL, atol=1e-9)


def test_without_known_cycles_the_set_points_beat_with_the_controllers():
    """The measure can fail: sent at the gate's own rate, set-points are anything but smooth."""
    path = path_of(minimum_jerk(ZERO, GOAL, 1.2), 1.0)
    loop = Loop(90, 0.3, learn=0.0)
    loop.cycles.observe = lambda *_: None
    loop.run(1.0, 2.6, path)
    assert np.abs(loop.acceleration).max() > 5.0 * np.abs(path.samples(0.002)[2]).max()


def test_controllers_faster_than_their_joint_states_are_served_by_the_rate_given():
    path = path_of(minimum_jerk(ZERO, GOAL, 1.2), 1.0)
    loop = Loop(500, 0.4, given=0.002).run(1.0, 2.6, path)
    assert np.abs(loop.acceleration).max() <= 1.5 * np.abs(path.samples(0.002)[2]).max()


def test_the_controllers_clock_may_differ():
    loop = Loop(100, 0.2, skew=0.05)
    assert loop.cycles.offset == pytest.approx(0.05, abs=0.006)
    path = path_of(minimum_jerk(ZERO, GOAL, 1.2), 1.0)
    loop.run(1.0, 2.6, path)
    assert np.abs(loop.acceleration).max() <= 1.5 * np.abs(path.samples(0.002)[2]).max()


@pytest.mark.parametrize("gap", [0.02, 0.05, 0.09, 0.2, 3.0])
def test_after_a_gap_no_set_point_is_further_from_the_last_one_than_the_limits_allow(gap):
    path = path_of(minimum_jerk(ZERO, 2 * GOAL, 1.0), 1.0)
    loop = Loop(100, 0.2)
    loop.asleep = (1.4, 1.4 + gap)
    loop.run(1.0, 1.4 + gap + 1.5, path)
    assert (np.abs(loop.steps) <= LIMITS.velocity * loop.period * (1 + 1e-6)).all()
    woke = next(i for i, (t, _) in enumerate(loop.taken) if t > 1.4 + gap - 0.011)
    after = loop.acceleration[woke - 1 :]
    assert (np.abs(after) <= 1.5 * LIMITS.acceleration).all()
    if gap <= 0.1:
        np.testing.assert_allclose(loop.taken[-1][1], 2 * GOAL, atol=1e-9)
    else:
        assert loop.stream.held_up and np.ptp([q for t, q in loop.taken if t > 1.42], axis=0).max() == 0.0


def test_joint_states_without_a_regular_stamp_say_nothing_of_cycles():
    cycles, random = ControllerCycles(), np.random.default_rng(0)
    stamp = EPOCH
    for _ in range(100):
        stamp += random.uniform(0.001, 0.04)
        cycles.observe(stamp, stamp + 0.001)
    assert cycles.next_slot(stamp) is None
    slow = ControllerCycles()
    for k in range(100):
        slow.observe(EPOCH + 0.1 * k, EPOCH + 0.1 * k)
    assert slow.next_slot(EPOCH + 10.0) is None
