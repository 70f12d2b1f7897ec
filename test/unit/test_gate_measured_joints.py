"""Joints that turn without end, and joint states without velocities, in the gate."""

import math
from dataclasses import replace

import numpy as np
import pytest

from helpers.gate_simulation import GOAL, LIMITS, NAMES, ZERO, Bench, minimum_jerk
from jepa_ros.robot.gate.types import GateCode, GateState

FREE = np.array([True, False, True, False, False, False, True])  # joints that turn without end
ENDLESS = replace(LIMITS, lower=np.where(FREE, -math.inf, -2.0), upper=np.where(FREE, math.inf, 2.0))
NEAR_PI = np.where(FREE, 3.1, 0.0)


class WrappedBench(Bench):
    """An arm whose driver reports its endless joints within half a turn, with noise."""

    noise = 0.0

    def send_state(self, q, names=NAMES, stamp=None):
        noisy = np.asarray(q) + self.noise * np.random.default_rng(round(self.now * 1000)).normal(size=7)
        wrapped = np.where(FREE, (noisy + math.pi) % (2.0 * math.pi) - math.pi, noisy)
        super().send_state(wrapped, names, stamp)


def test_a_joint_may_rest_at_half_a_turn_with_noise():
    bench = WrappedBench(limits=ENDLESS, q=np.where(FREE, math.pi, 0.0))
    bench.noise = 2e-3
    bench.measured = np.where(FREE, math.pi, 0.0)
    bench.step(2.0)
    assert bench.state == GateState.HOLDING and bench.code == GateCode.NONE, bench.text
    assert bench.output.status.following_error < 0.02


def test_a_joint_passes_half_a_turn_in_motion():
    bench = WrappedBench(limits=ENDLESS, q=NEAR_PI).ready()
    beyond = NEAR_PI + np.where(FREE, 0.5, 0.2)
    assert bench.plan(minimum_jerk(NEAR_PI, beyond, 1.2))
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], beyond, atol=1e-9)
    assert bench.output.status.stops == 0 and bench.output.status.following_error < 0.02


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2])
def test_a_plan_from_another_turn_of_the_joint_goes_the_same_way(turns):
    bench = WrappedBench(limits=ENDLESS, q=NEAR_PI).ready()
    shift = np.where(FREE, 2.0 * math.pi * turns, 0.0)
    beyond = NEAR_PI + np.where(FREE, 0.3, 0.1)
    verdict = bench.plan(minimum_jerk(NEAR_PI + shift, beyond + shift, 1.2))
    assert verdict and not verdict.clipped and verdict.splice_error < 1e-9
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], beyond, atol=1e-9)


def test_a_limited_joint_that_reads_a_turn_further_has_jumped():
    bench = Bench().ready()
    bench.measured = np.where(np.arange(7) == 1, 2.0 * math.pi, 0.0)
    bench.step()
    assert bench.code == GateCode.JOINT_STATES_JUMPED and "joint2" in bench.text


@pytest.mark.parametrize("velocities", [[], None, [math.nan] * 7, [0.0, math.nan] * 3 + [math.nan]])
def test_velocities_that_are_not_measured_are_taken_from_positions(velocities):
    bench = Bench().ready()
    bench.send_state = lambda q, names=NAMES, stamp=None: bench.gate.update_joint_states(
        names, list(q), velocities, bench.now if stamp is None else stamp, bench.now
    )
    bench.step(0.3)
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    bench.step(0.6)
    speed = bench.gate._inputs.joints.speed
    assert speed == pytest.approx(1.875 * 0.5 / 1.2, rel=0.1)  # the fastest joint of a minimum-jerk motion
    bench.until(GateState.HOLDING)
    bench.step(0.3)
    assert bench.gate._inputs.joints.speed == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(bench.output.reference[0], GOAL, atol=1e-9)


def test_an_infinite_velocity_is_a_fault():
    bench = Bench().ready()
    bench.gate.update_joint_states(NAMES, list(ZERO), [math.inf] * 7, bench.now + 0.001, bench.now + 0.001)
    bench.tick()
    assert bench.code == GateCode.JOINT_STATES_INVALID and "infinite" in bench.text
