"""The motion gate: plans that it accepts, clips or rejects."""

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus

from helpers.gate_simulation import GOAL, NAMES, ZERO, Bench, continuing, minimum_jerk, moving
from jepa_ros.robot.gate.types import GateCode, GateState
from jepa_ros.robot.motion.trajectory import JointTrajectory


def test_gate_states_and_codes_equal_the_message_constants():
    constants = {k: getattr(GateStatus, k) for k in dir(type(GateStatus)) if k.isupper() and k[0] != "_"}
    assert constants == {member.name: member.value for kind in (GateState, GateCode) for member in kind}


def test_waits_for_joint_states_then_holds_the_measured_position():
    bench = Bench(q=GOAL)
    bench.send_joints = False
    assert bench.step(0.1).state == GateState.INACTIVE and bench.output.reference is None
    bench.send_joints = True
    assert bench.step(0.02).state == GateState.HOLDING
    np.testing.assert_array_equal(bench.output.reference[0], GOAL)
    assert bench.windows == []  # nothing is sent before a plan asks for motion


def test_the_gate_follows_a_plan_exactly_to_its_end():
    bench = Bench().ready()
    plan, begin = minimum_jerk(ZERO, GOAL, 1.2), bench.now
    assert bench.plan(plan, plan_id=3).splice_error == pytest.approx(0.0)
    worst = 0.0
    for _ in range(260):
        bench.step()
        worst = max(worst, np.abs(bench.output.reference[0] - plan.sample(bench.now - begin)[0]).max())
    assert worst < 1e-5
    assert bench.state == GateState.HOLDING and bench.output.status.stops == 0
    np.testing.assert_allclose(bench.output.reference[0], GOAL)


def test_windows_are_sent_at_the_roll_rate_and_stay_short():
    bench = moving(0.5)
    starts = [w.start for w in bench.windows]
    assert len(starts) == pytest.approx(0.5 / 0.05 + 1, abs=2)
    for window in bench.windows:
        assert window.trajectory.duration <= 0.75
        assert len(window.trajectory.times) < 40


def test_every_window_continues_the_curve_of_the_previous_one():
    bench = moving(0.5)
    for old, new in zip(bench.windows, bench.windows[1:], strict=False):
        t = new.start + np.arange(0.0, 0.25, 0.01)  # the common part: before either comes to rest
        q0, _, _ = old.trajectory.sample(t - old.start)
        q1, _, _ = new.trajectory.sample(t - new.start)
        assert np.abs(q1 - q0).max() < 1e-6


def test_the_arm_stops_at_the_end_of_the_window_if_the_gate_dies():
    bench = moving(0.5)
    last = bench.windows[-1]
    q, qd, _ = last.trajectory.sample(last.trajectory.duration + np.arange(0.0, 1.0, 0.1))
    assert np.abs(qd).max() < 1e-12 and np.ptp(q, axis=0).max() < 1e-12
    assert last.start + last.trajectory.duration < bench.now + 0.75


def test_a_newer_plan_takes_over_in_motion_without_a_jump():
    bench = moving(0.4)
    state = bench.gate._track.path.at(bench.gate._clock.time + 0.1)
    verdict = bench.plan(continuing(state, -GOAL, 1.6), ahead=0.1, plan_id=8)
    assert verdict and verdict.splice_error < 1e-6 and not verdict.clipped
    bench.step(1.9)
    assert bench.state == GateState.HOLDING
    np.testing.assert_allclose(bench.output.reference[0], -GOAL, atol=1e-9)


def test_a_plan_that_starts_off_the_reference_is_bridged():
    bench = moving(0.4)
    state = bench.gate._path.at(bench.gate._clock.time + 0.05)
    state = state + np.array([0.02, 0.1, 0.5])[:, None]
    verdict = bench.plan(continuing(state, -GOAL, 1.6), ahead=0.05)
    assert verdict and verdict.splice_error == pytest.approx(0.02, abs=1e-6)
    bench.step(2.0)
    np.testing.assert_allclose(bench.output.reference[0], -GOAL, atol=1e-9)


def test_a_slightly_late_plan_is_joined_and_a_too_late_one_refused():
    bench = moving(0.4)
    state = bench.gate._path.at(bench.gate._clock.time - 0.05)
    assert bench.plan(continuing(state, -GOAL, 1.6), ahead=-0.05)
    verdict = bench.plan(continuing(state, -GOAL, 1.6), ahead=-0.15)
    assert verdict.cause.code == GateCode.PLAN_LATE and "late" in verdict.text
    verdict = bench.plan(continuing(state, -GOAL, 1.6), valid=-0.01)
    assert verdict.cause.code == GateCode.PLAN_LATE and "expired" in verdict.text
    assert bench.step(0.1).state == GateState.TRACKING  # the plan in force goes on


@pytest.mark.parametrize("latch", [True, False])
def test_a_gross_breach_is_rejected_and_latches(latch):
    bench = moving(0.4, latch_on_gross=latch)
    verdict = bench.plan(continuing(bench.gate._path.at(bench.gate._clock.time), 3 * GOAL, 0.3))
    assert verdict.cause.code == GateCode.PLAN_GROSS_BREACH and "gross" in verdict.text
    bench.until(GateState.LATCHED if latch else GateState.HOLDING)
    assert bench.code == (GateCode.PLAN_GROSS_BREACH if latch else GateCode.NONE)
    assert bench.output.status.rejected == 1


def test_a_plan_slightly_too_fast_is_slowed_in_all_joints():
    bench = Bench().ready()
    goal = np.array([1.2, -0.9, 0.3, 0.6, -0.3, 0.6, 0.0])
    verdict = bench.plan(minimum_jerk(ZERO, goal, 0.8))  # peak 1.875 * 1.2 / 0.8 = 2.8 of 2.5 rad/s
    assert verdict and verdict.clipped and "joint1" in verdict.text
    bench.step(0.5)
    ratio = bench.output.reference[0] / np.where(goal == 0, 1, goal)
    np.testing.assert_allclose(ratio[:6], ratio[0], atol=1e-9)
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], goal, atol=1e-9)
    assert bench.output.status.clipped == 1 and bench.output.status.rejected == 0


def test_a_plan_slightly_out_of_range_is_followed_until_a_stop_inside_is_needed():
    bench = Bench(q=np.full(7, 1.5)).ready()
    goal = np.full(7, 1.5)
    goal[2] = 2.1
    assert bench.plan(minimum_jerk(np.full(7, 1.5), goal, 1.2)).clipped
    bench.until(GateState.HOLDING)
    assert 1.7 < bench.output.reference[0][2] <= 2.0
    assert "limits" in bench.text and bench.code == GateCode.LIMITS_REACHED and bench.output.status.stops == 1


def test_a_plan_far_outside_the_position_limits_is_a_gross_violation():
    bench = Bench(q=np.full(7, 1.5)).ready()
    verdict = bench.plan(minimum_jerk(np.full(7, 1.5), np.full(7, 2.5), 2.0))
    assert not verdict and "position" in verdict.text and bench.step().state == GateState.LATCHED


def test_from_outside_the_limits_only_inward_motion_is_allowed():
    out = np.full(7, 2.1)
    bench = Bench(q=out).ready()
    assert bench.state == GateState.HOLDING
    assert not bench.plan(minimum_jerk(out, np.full(7, 2.35), 1.5))
    bench = Bench(q=out).ready()
    assert bench.plan(minimum_jerk(out, np.full(7, 1.0), 1.5))
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], 1.0, atol=1e-9)


def bad_plans():
    good = minimum_jerk(ZERO, GOAL, 1.2)

    def changed(**fields):
        return JointTrajectory(**{**good.__dict__, **fields})

    nan = JointTrajectory(good.names, good.times, good.positions, good.velocities, good.accelerations)
    object.__setattr__(nan, "positions", np.where(np.arange(25)[:, None] == 3, np.nan, good.positions))
    times = JointTrajectory(good.names, good.times, good.positions, good.velocities, good.accelerations)
    object.__setattr__(times, "times", good.times[::-1])
    moving_end = good.velocities.copy()
    moving_end[-1] = 0.3
    return {
        "nan": (nan, GateCode.PLAN_INVALID, "finite"),
        "times": (times, GateCode.PLAN_IN_FUTURE, "plan"),
        "unknown joint": (changed(names=(*NAMES[:6], "elbow")), GateCode.PLAN_WRONG_JOINTS, "elbow"),
        "duplicate joint": (changed(names=(*NAMES[:6], NAMES[0])), GateCode.PLAN_WRONG_JOINTS, "joint7"),
        "ends in motion": (changed(velocities=moving_end), GateCode.PLAN_ENDS_MOVING, "rest"),
        "positions only": (changed(velocities=None, accelerations=None), GateCode.PLAN_INVALID, "accelerations"),
        "one point": (JointTrajectory(NAMES, np.zeros(1), *np.zeros((3, 1, 7))), GateCode.PLAN_INVALID, "points"),
        "positions in degrees": (changed(positions=good.positions * 57.3 * 2), GateCode.PLAN_INVALID, "20 rad"),
        "starts away from the reference": (
            changed(positions=good.positions + 0.3),
            GateCode.PLAN_STARTS_ELSEWHERE,
            "from the reference",
        ),
        "too long": (minimum_jerk(ZERO, GOAL, 40.0), GateCode.PLAN_TOO_LONG, "30 s"),
    }


@pytest.mark.parametrize("case", bad_plans())
def test_invalid_plans_are_rejected_and_the_plan_in_force_continues(case):
    plan, code, word = bad_plans()[case]
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    bench.step(0.05)
    verdict = bench.plan(plan)
    assert not verdict and verdict.cause.code == code and word in verdict.text and "\n" not in verdict.text
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], GOAL)
    assert bench.output.status.rejected == 1 and bench.output.status.last_rejection == verdict.text
    assert bench.output.status.rejection_code == code


def test_plan_joints_in_another_order_are_mapped_by_name():
    bench = Bench().ready()
    plan, order = minimum_jerk(ZERO, GOAL, 1.2), [3, 1, 0, 2, 6, 5, 4]
    mixed = JointTrajectory(
        tuple(NAMES[i] for i in order),
        plan.times,
        plan.positions[:, order],
        plan.velocities[:, order],
        plan.accelerations[:, order],
    )
    assert bench.plan(mixed)
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], GOAL)
