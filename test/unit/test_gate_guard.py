"""The motion gate: planner heartbeat, e-stop, dead-man switch, speed scale and clearance."""

import numpy as np
import pytest

from helpers.gate_simulation import DT, LIMITS, Bench, minimum_jerk
from jepa_ros.robot.gate.types import Cause, GateCode, GateState
from jepa_ros.robot.motion.path import Path

ZERO = np.zeros(7)
GOAL = np.array([0.4, -0.3, 0.2, 0.5, -0.1, 0.2, -0.4])


def moving(**settings):
    """A bench in the middle of a plan to GOAL."""
    bench = Bench(**settings).ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    return bench.step(0.4)


def test_stops_when_the_planner_is_silent():
    bench = moving()
    bench.planner_lives = False
    bench.until(GateState.STOPPING, 0.3)
    assert "sign of life" in bench.text and bench.code == GateCode.PLANNER_SILENT
    bench.until(GateState.HOLDING)
    bench.planner_lives = True
    bench.step(0.2)
    assert bench.plan(minimum_jerk(bench.q, GOAL, 1.0), plan_id=8), "it resumes by itself"


def test_lowering_the_speed_scale_in_motion_stops_the_arm_first():
    bench = moving()
    bench.gate.set_speed_scale(0.1, bench.now)
    assert bench.step().state == GateState.STOPPING and "0.10" in bench.text
    assert bench.code == GateCode.SPEED_SCALE_LOWERED
    bench.until(GateState.HOLDING)
    verdict = bench.plan(minimum_jerk(bench.q, bench.q + 0.4, 1.2), plan_id=8)
    assert verdict.accepted and verdict.clipped, "slowed, and no gross breach: it is within the robot's own limits"
    bench.limits = LIMITS.scaled(0.1)
    bench.until(GateState.TRACKING).step(0.8)
    assert np.abs(bench.output.reference[1]).max() > 0.1
    assert bench.output.status.speed_scale == pytest.approx(0.1)


def test_a_displaced_arm_starts_from_the_measured_position_once_at_rest():
    bench, elsewhere = Bench().ready(), ZERO + 0.12
    bench.measured = elsewhere
    bench.step(0.2)
    refused = bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    assert not refused and "0.12 rad from where it is held" in refused.text
    assert refused.cause.code == GateCode.ARM_DISPLACED
    bench.step(0.5)
    bench.jump_allowed()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=8), "bridged from where the arm is"
    bench.tick()
    np.testing.assert_allclose(bench.output.reference[0], elsewhere, atol=1e-3)


def test_after_stop_and_hold_inputs_must_be_healthy_again():
    bench = Bench(resume_after=0.5).step(0.7)
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    bench.step(0.4)
    bench.gate.stop_and_hold(Cause(GateCode.CLOCK_STOPPED, "the clock stands still"), bench.now)
    bench.until(GateState.HOLDING)
    refused = bench.plan(minimum_jerk(bench.q, GOAL, 1.2), plan_id=8)
    assert refused.cause.code == GateCode.INPUTS_RECOVERING and "healthy" in refused.text
    assert bench.step(0.5).plan(minimum_jerk(bench.q, GOAL, 1.2), plan_id=9)


def test_an_arm_that_sags_slightly_continues_from_the_reference():
    bench = Bench().ready()
    bench.measured = ZERO + 0.04
    bench.step(0.7)
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    bench.tick()
    np.testing.assert_allclose(bench.output.reference[0], ZERO, atol=1e-3)


def test_raising_the_speed_scale_takes_effect_immediately():
    bench = Bench(speed_scale=0.1).ready()
    bench.gate.set_speed_scale(1.0, bench.now)
    assert not bench.plan(minimum_jerk(ZERO, GOAL, 1.2)).clipped


def test_exceeding_the_robot_limits_is_a_gross_violation_at_any_speed_scale():
    for scale in (0.1, 1.0):
        bench = Bench(speed_scale=scale).ready()
        verdict = bench.plan(minimum_jerk(ZERO, GOAL, 0.15))
        assert verdict.cause.code == GateCode.PLAN_GROSS_BREACH and "gross" in verdict.text
        assert bench.step().state == GateState.LATCHED


def test_a_required_e_stop_must_be_published():
    bench = Bench(require_e_stop=True).ready()
    assert (
        bench.code == GateCode.E_STOP_MISSING
        and "e_stop" in bench.text
        and not bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    )
    bench.gate.update_e_stop(False, bench.now)
    bench.step(0.15)
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    bench.step(0.3)
    bench.gate.report_e_stop_absent()
    bench.until(GateState.STOPPING, 0.05)
    assert "e_stop" in bench.text and bench.code == GateCode.E_STOP_MISSING


def test_a_required_dead_man_switch_must_be_held():
    bench = Bench(require_deadman=True).ready()
    assert (
        bench.code == GateCode.DEADMAN_STALE
        and "dead-man" in bench.text
        and not bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    )

    def hold(seconds, held=True):
        for _ in range(round(seconds / DT)):
            bench.gate.update_deadman(held, bench.now)
            bench.step()

    hold(0.2)
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.5))
    hold(0.3)
    assert bench.state == GateState.TRACKING
    hold(2 * DT, held=False)
    assert bench.state == GateState.STOPPING and bench.code == GateCode.DEADMAN_RELEASED and "not held" in bench.text
    bench.until(GateState.HOLDING)
    hold(0.2)
    assert bench.plan(minimum_jerk(bench.q, GOAL, 1.5), plan_id=2)
    bench.until(GateState.STOPPING, 0.6)
    assert "no dead-man switch for" in bench.text and bench.code == GateCode.DEADMAN_STALE


class Wall:
    """Stands in for robot/collision/clearance.py: the sum of all joints is kept below `at` - margin."""

    def __init__(self, at, margin=0.05):
        self.at, self.margin, self.shift = at, margin, 0.0

    def update_other_joints(self, names, positions):
        pass

    def distance(self, q):
        return self.at - self.shift - float(np.sum(q))

    def check_path(self, path):
        samples = path.samples()[0]
        near = min(self.distance(q) for q in samples.reshape(-1, samples.shape[-1]))
        return (
            ""
            if near >= min(self.margin, self.distance(path.states[0, 0]) - 1e-4)
            else f"the wall is {near:.3f} m near"
        )


def test_a_plan_too_close_to_an_obstacle_is_rejected_with_the_distance():
    bench = Bench(clearance=Wall(1.0)).ready()
    assert bench.output.status.min_distance == pytest.approx(1.0)
    refused = bench.plan(minimum_jerk(ZERO, np.full(7, 0.2), 1.2))
    assert refused.cause.code == GateCode.PLAN_TOO_CLOSE and "wall" in refused.text
    assert bench.step().state == GateState.HOLDING
    assert bench.plan(minimum_jerk(ZERO, np.full(7, 0.1), 1.2))
    bench.until(GateState.HOLDING)
    assert bench.output.status.min_distance == pytest.approx(0.3, abs=1e-4)


def test_an_approaching_obstacle_stops_the_arm():
    wall = Wall(1.0)
    bench = Bench(clearance=wall).ready()
    assert bench.plan(minimum_jerk(ZERO, np.full(7, 0.1), 1.2))
    bench.step(0.5)
    wall.shift = 0.62  # the other arm
    bench.until(GateState.STOPPING, 0.3)
    assert "the margin is 0.050 m" in bench.text and bench.code == GateCode.TOO_CLOSE
    bench.until(GateState.HOLDING)
    assert bench.q.sum() < 0.5


def test_no_stop_leads_into_a_keep_out_box():
    """Each window's own stop is judged: the arm stops with the window before the first whose stop would not pass."""
    wall = Wall(0.5, margin=0.05)
    bench = Bench(clearance=wall).ready()
    plan = minimum_jerk(ZERO, np.full(7, 0.06), 1.0)
    assert bench.plan(plan)
    bench.until(GateState.HOLDING)
    for window in bench.windows:
        t = window.trajectory
        path = Path(t.times, np.stack((t.positions, t.velocities, t.accelerations), axis=1))
        assert wall.check_path(path) == ""
    assert len(bench.windows) > 5
