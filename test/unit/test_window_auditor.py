"""The window auditor: it accepts the gate's windows and finds every kind of violation."""

import math

import numpy as np
import pytest

from helpers.gate_simulation import LIMITS, NAMES, START, Bench, minimum_jerk
from jepa_ros.robot.gate.types import Cause, GateCode
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.trajectory import JointTrajectory

GOAL = np.full(7, 0.4)
WAY = minimum_jerk(np.zeros(7), GOAL, 1.5)


def changed(times=1.0, positions=0.0):
    return JointTrajectory(
        NAMES, WAY.times / times, WAY.positions + positions, WAY.velocities * times, WAY.accelerations * times**2
    )


def test_a_smooth_motion_to_rest_is_no_violation():
    auditor = WindowAuditor(LIMITS)
    assert auditor.check_window(WAY, START, START) == "" and auditor.worst == 0.0 and not auditor.violations
    assert not auditor.is_at_rest(START + 1.0) and auditor.is_at_rest(START + 1.6)


@pytest.mark.parametrize(
    "trajectory, word, size",
    [(changed(times=5.0), "velocity", 0.0), (changed(positions=1.7), "position", 0.09)],
    ids=["too fast", "out of range"],
)
def test_a_limit_violation_is_named_and_measured(trajectory, word, size):
    auditor = WindowAuditor(LIMITS)
    assert word in auditor.check_window(trajectory, START, START) or "limit" in auditor.violations[0]
    assert auditor.worst > size and math.isfinite(auditor.worst)


def test_a_moving_end_a_step_and_missing_fields_are_violations():
    moving = JointTrajectory(NAMES, WAY.times[:-4], WAY.positions[:-4], WAY.velocities[:-4], WAY.accelerations[:-4])
    auditor = WindowAuditor(LIMITS)
    assert "ends in motion" in auditor.check_window(moving, START, START)
    auditor = WindowAuditor(LIMITS)
    auditor.check_window(WAY, START, START)
    assert "step of 0.1" in auditor.check_window(changed(positions=0.1), START, START)
    bare = JointTrajectory(NAMES, WAY.times, WAY.positions)
    assert "without velocities" in WindowAuditor(LIMITS).check_window(bare, START, START)
    other = JointTrajectory(("elbow",), np.array([1.0]), np.zeros((1, 1)))
    assert "elbow" in WindowAuditor(LIMITS).check_window(other, START, START)


def test_only_at_rest_may_a_window_start_at_the_measured_position():
    elsewhere = np.full(7, 0.1)
    for when, wrong in ((0.0, True), (WAY.duration + 0.1, False)):
        auditor = WindowAuditor(LIMITS)
        auditor.check_window(WAY, START, START)
        begun = START + when
        assert bool(auditor.check_window(changed(positions=0.1), begun, begun, elsewhere + 0.04)) is wrong
    auditor = WindowAuditor(LIMITS)
    auditor.check_window(WAY, START, START)
    assert "step" in auditor.check_window(changed(positions=0.1), begun, begun, elsewhere + 0.06)


def test_windows_of_the_gate_have_no_violations():
    bench, auditor = Bench(), WindowAuditor(LIMITS)
    bench.step(0.3)
    assert bench.plan(minimum_jerk(bench.q, GOAL, 1.2))
    for _ in range(60):
        bench.step()
    bench.gate.stop_and_latch(Cause(GateCode.STOP_SERVICE, "now"), bench.now)
    for _ in range(60):
        bench.step()
    for window in bench.windows:
        now = window.start + 0.01
        assert auditor.check_window(window.trajectory, window.start, now) == ""
    assert auditor.windows == len(bench.windows) > 5
