"""The motion gate: what it lets through, and how it stops."""

import math

import numpy as np
import pytest
from gate_bench import DT, LIMITS, NAMES, START, Bench, at_rest, continuing, minimum_jerk

from jepa_ros.errors import InputError
from jepa_ros.robot.gate import Gate
from jepa_ros.robot.gate_types import GateSettings, GateState
from jepa_ros.robot.trajectory import JointTrajectory

ZERO = np.zeros(7)
WITHOUT_TIMEOUTS = dict.fromkeys(("latent_timeout", "joint_timeout", "planner_timeout"), math.inf)
GOAL = np.array([0.4, -0.3, 0.2, 0.5, -0.1, 0.2, -0.4])


def moving(after=0.4, **settings):
    """A bench in the middle of a plan to GOAL."""
    bench = Bench(**settings).ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), plan_id=7)
    bench.step(after)
    assert bench.state == GateState.TRACKING and np.abs(bench.output.reference[1]).max() > 0.1
    return bench


def test_waits_for_joint_states_then_holds_what_it_measures():
    bench = Bench(q=GOAL)
    bench.send_joints = False
    assert bench.step(0.1).state == GateState.INACTIVE and bench.output.reference is None
    bench.send_joints = True
    assert bench.step(0.02).state == GateState.HOLDING
    np.testing.assert_array_equal(bench.output.reference[0], GOAL)
    assert bench.windows == []  # nothing is sent before a plan asks for motion


def test_follows_a_plan_to_its_end_exactly():
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


def test_windows_go_out_at_the_roll_rate_and_reach_a_little_ahead():
    bench = moving(0.5)
    starts = [w.start for w in bench.windows]
    assert len(starts) == pytest.approx(0.5 / 0.05 + 1, abs=2)
    for window in bench.windows:
        assert window.trajectory.duration <= 0.75
        assert len(window.trajectory.times) < 40


def test_every_window_lies_on_the_curve_of_the_one_before():
    bench = moving(0.5)
    for old, new in zip(bench.windows, bench.windows[1:], strict=False):
        t = new.start + np.arange(0.0, 0.25, 0.01)  # the common part: before either comes to rest
        q0, _, _ = old.trajectory.sample(t - old.start)
        q1, _, _ = new.trajectory.sample(t - new.start)
        assert np.abs(q1 - q0).max() < 1e-6


def test_the_arm_stops_by_construction_when_the_gate_dies():
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


def test_a_plan_that_does_not_meet_the_reference_is_bridged():
    bench = moving(0.4)
    state = bench.gate._path.at(bench.gate._clock.time + 0.05)
    state = state + np.array([0.02, 0.1, 0.5])[:, None]
    verdict = bench.plan(continuing(state, -GOAL, 1.6), ahead=0.05)
    assert verdict and verdict.splice_error == pytest.approx(0.02, abs=1e-6)
    bench.step(2.0)
    np.testing.assert_allclose(bench.output.reference[0], -GOAL, atol=1e-9)


def test_a_plan_a_little_late_is_joined_and_one_too_late_is_refused():
    bench = moving(0.4)
    state = bench.gate._path.at(bench.gate._clock.time - 0.05)
    assert bench.plan(continuing(state, -GOAL, 1.6), ahead=-0.05)
    verdict = bench.plan(continuing(state, -GOAL, 1.6), ahead=-0.15)
    assert not verdict and "late" in verdict.text
    verdict = bench.plan(continuing(state, -GOAL, 1.6), valid=-0.01)
    assert not verdict and "expired" in verdict.text
    assert bench.step(0.1).state == GateState.TRACKING  # the plan in force goes on


@pytest.mark.parametrize("latch", [True, False])
def test_a_gross_breach_is_refused_whole_and_latches(latch):
    bench = moving(0.4, latch_on_gross=latch)
    verdict = bench.plan(continuing(bench.gate._path.at(bench.gate._clock.time), 3 * GOAL, 0.3))
    assert not verdict and "gross" in verdict.text
    bench.until(GateState.LATCHED if latch else GateState.HOLDING)
    assert bench.output.status.rejected == 1


def test_a_plan_a_little_too_fast_is_slowed_all_joints_together():
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


def test_a_plan_slightly_out_of_range_is_followed_as_far_as_a_stop_inside_allows():
    bench = Bench(q=np.full(7, 1.5)).ready()
    goal = np.full(7, 1.5)
    goal[2] = 2.1
    assert bench.plan(minimum_jerk(np.full(7, 1.5), goal, 1.2)).clipped
    bench.until(GateState.HOLDING)
    assert 1.7 < bench.output.reference[0][2] <= 2.0
    assert "limits" in bench.text and bench.output.status.stops == 1


def test_far_out_of_range_is_a_gross_breach():
    bench = Bench(q=np.full(7, 1.5)).ready()
    verdict = bench.plan(minimum_jerk(np.full(7, 1.5), np.full(7, 2.5), 2.0))
    assert not verdict and "position" in verdict.text and bench.step().state == GateState.LATCHED


def test_already_outside_only_inward_motion_is_allowed():
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
        "not finite": (nan, "finite"),
        "times": (times, "plan"),
        "unknown joint": (changed(names=(*NAMES[:6], "elbow")), "elbow"),
        "joint twice": (changed(names=(*NAMES[:6], NAMES[0])), "joint7"),
        "ends in motion": (changed(velocities=moving_end), "rest"),
        "positions only": (changed(velocities=None, accelerations=None), "accelerations"),
        "one point": (JointTrajectory(NAMES, np.zeros(1), *np.zeros((3, 1, 7))), "points"),
        "another unit": (changed(positions=good.positions * 57.3 * 2), "20 rad"),
        "elsewhere": (changed(positions=good.positions + 0.3), "from the reference"),
        "too long": (minimum_jerk(ZERO, GOAL, 40.0), "30 s"),
    }


@pytest.mark.parametrize("case", bad_plans())
def test_bad_plans_are_refused_whole_and_the_plan_in_force_goes_on(case):
    plan, word = bad_plans()[case]
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    bench.step(0.05)
    verdict = bench.plan(plan)
    assert not verdict and word in verdict.text and "\n" not in verdict.text
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], GOAL)
    assert bench.output.status.rejected == 1 and bench.output.status.last_rejection == verdict.text


def test_joints_in_another_order_are_mapped_by_name():
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


def cut_latents(bench):
    bench.send_latents = False


def cut_joints(bench):
    bench.send_joints = False


def freeze_joints(bench):
    bench.measured = bench.q.copy()


def nan_joints(bench):
    bench.measured = np.full(7, np.nan)


def jump_joints(bench):
    bench.measured = bench.q + 0.15


STALE = {
    "latents end": (cut_latents, "latent", 0.2),
    "joint states end": (cut_joints, "joint_states", 0.15),
    "joint states freeze": (freeze_joints, "frozen", 0.25),
    "joint states not finite": (nan_joints, "not finite", 0.0),
    "joint states jump": (jump_joints, "jumped", 0.0),
}


@pytest.mark.parametrize("case", STALE)
def test_stale_or_unbelievable_inputs_stop_smoothly_and_motion_resumes_with_a_new_plan_only(case):
    break_it, word, timeout = STALE[case]
    bench = moving(0.25, following_error=1.0)
    break_it(bench)
    broken = bench.now
    bench.until(GateState.STOPPING, within=timeout + 0.05)
    assert bench.now - broken <= timeout + 0.015 and word in bench.text
    bench.until(GateState.HOLDING, within=0.5)
    assert at_rest(bench.output.reference) and bench.output.status.stops == 1
    held = bench.output.reference[0].copy()
    bench.send_latents = bench.send_joints = True
    bench.measured = None
    bench.step(0.05)
    assert not bench.plan(minimum_jerk(held, ZERO, 1.2))  # not healthy for long enough yet
    bench.step(0.15)
    np.testing.assert_array_equal(bench.output.reference[0], held)
    assert bench.plan(minimum_jerk(held, ZERO, 1.2))
    bench.until(GateState.HOLDING)


def test_a_plan_that_expires_is_stopped():
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), valid=0.4)
    bench.step(0.45)
    assert bench.state == GateState.STOPPING and "expired" in bench.text
    bench.until(GateState.HOLDING, within=0.4)


def test_stamps_from_the_future_do_not_count():
    bench = moving(0.25)
    bench.send_latents = False
    for _ in range(50):
        bench.gate.latent(bench.now + 5.0, bench.now)
        bench.step()
    assert bench.state in (GateState.STOPPING, GateState.HOLDING) and "future" in bench.text
    bench = moving(0.25)
    bench.send_joints = False
    bench.send_state(bench.q, stamp=bench.now + 5.0)
    assert bench.step().state == GateState.STOPPING


def test_old_stamps_count_as_stale_however_often_they_come():
    bench = moving(0.25)
    bench.send_latents, stamp = False, bench.now
    for _ in range(110):
        bench.gate.latent(stamp, bench.now)
        bench.step()
    assert bench.state != GateState.TRACKING and "stamped" in bench.text


def test_following_error_stops_latches_and_release_starts_from_the_measured_state():
    bench = moving(0.25)
    stuck = bench.q.copy()
    for i in range(200):  # alive, but blocked
        bench.measured = stuck + 1e-5 * (i % 2)
        if bench.step().state == GateState.LATCHED:
            break
    assert bench.state == GateState.LATCHED and "following error" in bench.text
    assert not bench.plan(minimum_jerk(stuck, ZERO, 1.2))
    bench.step(0.3)
    assert bench.state == GateState.LATCHED
    bench.jump_allowed()
    done, text = bench.gate.release(bench.now)
    assert done, text
    bench.step(0.2)
    np.testing.assert_allclose(bench.output.reference[0], stuck, atol=1e-4)
    bench.measured = None
    assert bench.plan(minimum_jerk(bench.q, ZERO, 1.2))
    bench.until(GateState.HOLDING)


def test_stop_latches_until_released():
    bench = moving(0.4)
    bench.gate.stop("service", bench.now)
    assert bench.step().state == GateState.STOPPING and bench.windows[-1].start <= bench.now
    assert bench.gate.release(bench.now) == (False, "the arm is still stopping")
    bench.until(GateState.LATCHED, within=0.4)
    assert "service" in bench.text and not bench.plan(minimum_jerk(bench.q, ZERO, 1.2))
    bench.step(5.0)
    assert bench.state == GateState.LATCHED
    assert bench.gate.release(bench.now)[0]
    bench.step(0.2)
    assert bench.state == GateState.HOLDING and bench.plan(minimum_jerk(bench.q, ZERO, 1.2))


def test_release_is_refused_while_the_cause_lasts():
    bench = moving(0.4)
    bench.gate.e_stop(True, bench.now)
    bench.until(GateState.LATCHED)
    assert bench.gate.release(bench.now) == (False, "the e-stop is still on")
    bench.gate.e_stop(False, bench.now)
    assert bench.step(0.1).state == GateState.LATCHED  # False never releases
    bench.send_joints = False
    bench.step(0.3)
    done, text = bench.gate.release(bench.now)
    assert not done and "joint_states" in text
    bench.send_joints = True
    bench.step(0.01)
    assert bench.gate.release(bench.now)[0]


def test_halt_stops_without_latching():
    bench = moving(0.4)
    bench.gate.halt("deactivated", bench.now)
    bench.until(GateState.HOLDING, within=0.4)
    assert "deactivated" in bench.text


def test_a_clock_that_goes_back_is_a_stop_and_a_new_beginning():
    bench = moving(0.4)
    before = bench.q.copy()
    bench.now -= 100.0
    bench.jump_allowed()
    bench.step()
    assert bench.state == GateState.STOPPING and np.abs(bench.q - before).max() < 0.02
    assert bench.windows[-1].start == pytest.approx(bench.now, abs=0.01)
    bench.step(0.5)
    assert bench.state == GateState.HOLDING
    assert bench.plan(minimum_jerk(bench.q, ZERO, 1.2))


def test_a_clock_that_leaps_ahead_gives_no_burst():
    bench = moving(0.4)
    bench.now += 100.0
    bench.jump_allowed()
    bench.send_joints = bench.send_latents = False
    bench.step(0.05)
    assert bench.state == GateState.HOLDING and at_rest(bench.output.reference)
    assert len(bench.output.executed) <= 10


def test_an_arm_moved_while_held_starts_from_where_it_is():
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2))
    bench.until(GateState.HOLDING)
    bench.measured = GOAL + 0.5
    bench.step(1.0)
    assert bench.state == GateState.HOLDING
    bench.jump_allowed()
    assert bench.plan(minimum_jerk(GOAL + 0.5, ZERO, 1.5))
    bench.q, bench.measured = GOAL + 0.5, None
    bench.until(GateState.HOLDING)
    np.testing.assert_allclose(bench.output.reference[0], ZERO, atol=1e-9)


def test_executed_ticks_lie_on_the_grid_and_say_what_the_reference_did():
    bench = Bench(executed=lambda a, b: (b - a)[:2])
    bench.step(0.2)
    plan, begin = minimum_jerk(ZERO, GOAL, 1.2), bench.now
    assert bench.plan(plan, plan_id=5)
    bench.step(1.5)
    starts = np.array([e.start for e in bench.executed])
    np.testing.assert_allclose(np.diff(starts), 0.1, atol=1e-6)
    np.testing.assert_allclose(starts * 10, np.round(starts * 10), atol=1e-4)
    for e in bench.executed:
        q0, q1 = (plan.sample(e.start + d - begin)[0] for d in (0.0, 0.1))
        np.testing.assert_allclose(e.values, (q1 - q0)[:2], atol=1e-5)
        assert e.plan_id == (5 if begin - 1e-3 <= e.start < begin + 1.2 - 1e-3 else 0)


def test_a_plan_taken_on_the_grid_counts_from_that_tick_on():
    gate = Gate(LIMITS, GateSettings(resume_after=0.0, **WITHOUT_TIMEOUTS))
    ids = []
    for k in range(101):
        now = START + k * 0.01
        gate.joint_states(NAMES, ZERO if k == 0 else gate._reference[0], None, now, now)
        if k in (20, 60):
            state = gate._path.at(gate._clock.time)
            assert gate.plan(continuing(state, GOAL * k / 60, 1.0), now, now, now + 2, k, now)
        ids += [(round(e.start - START, 3), e.plan_id) for e in gate.tick(now).executed]
    assert ids == [(round(0.1 * i, 3), 0 if i < 2 else 20 if i < 6 else 60) for i in range(10)]


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="horizon"):
        GateSettings(horizon=-1.0)
    with pytest.raises(InputError, match="speed_scale"):
        GateSettings(speed_scale=float("nan"))


def test_speed_scale_is_a_ceiling():
    bench = Bench(speed_scale=0.25).ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.3)).clipped
    top = 0.0
    while bench.step().state == GateState.TRACKING:
        top = max(top, np.abs(bench.output.reference[1]).max())
    assert 0.5 < top <= 0.25 * 2.5 * 1.001


def test_a_hand_over_ahead_is_waited_for():
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), ahead=0.5)
    bench.step(0.45)
    assert at_rest(bench.output.reference)
    bench.step(0.6)
    assert not at_rest(bench.output.reference)
    bench.until(GateState.HOLDING)


def test_a_tick_is_cheap_in_kind():
    """No window while nothing moves, and none for every tick while something does."""
    bench = moving(0.5)
    assert len(bench.windows) < 0.5 / DT / 5
    bench.until(GateState.HOLDING)
    count = len(bench.windows)
    bench.step(1.0)
    assert len(bench.windows) == count
