"""The motion gate: stops, latches, holding, and resuming afterwards."""

import numpy as np
import pytest

from helpers.gate_simulation import (
    DT,
    GOAL,
    LIMITS,
    NAMES,
    START,
    WITHOUT_TIMEOUTS,
    ZERO,
    Bench,
    at_rest,
    continuing,
    minimum_jerk,
    moving,
)
from jepa_ros.errors import InputError
from jepa_ros.robot.gate.gate import Gate
from jepa_ros.robot.gate.types import Cause, GateCode, GateSettings, GateState


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
    "latents stop": (cut_latents, GateCode.LATENT_STALE, "latent", 0.2),
    "joint states stop": (cut_joints, GateCode.JOINT_STATES_STALE, "joint_states", 0.15),
    "frozen joint states": (freeze_joints, GateCode.JOINT_STATES_FROZEN, "frozen", 0.25),
    "joint states with nan": (nan_joints, GateCode.JOINT_STATES_INVALID, "not finite", 0.0),
    "jumping joint states": (jump_joints, GateCode.JOINT_STATES_JUMPED, "jumped", 0.0),
}


@pytest.mark.parametrize("case", STALE)
def test_stale_or_implausible_inputs_stop_the_arm_until_a_new_plan(case):
    break_it, code, word, timeout = STALE[case]
    bench = moving(0.25, following_error=1.0)
    break_it(bench)
    broken = bench.now
    bench.until(GateState.STOPPING, within=timeout + 0.05)
    assert bench.now - broken <= timeout + 0.015 and bench.code == code and word in bench.text
    bench.until(GateState.HOLDING, within=0.5)
    assert at_rest(bench.output.reference) and bench.output.status.stops == 1
    held = bench.output.reference[0].copy()
    bench.send_latents = bench.send_joints = True
    bench.measured = None
    bench.step(0.05)
    assert bench.plan(minimum_jerk(held, ZERO, 1.2)).cause.code == GateCode.INPUTS_RECOVERING
    bench.step(0.15)
    np.testing.assert_array_equal(bench.output.reference[0], held)
    assert bench.plan(minimum_jerk(held, ZERO, 1.2))
    bench.until(GateState.HOLDING)


def test_the_gate_stops_when_a_plan_expires():
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), valid=0.4)
    bench.step(0.45)
    assert bench.state == GateState.STOPPING and bench.code == GateCode.PLAN_EXPIRED and "expired" in bench.text
    bench.until(GateState.HOLDING, within=0.4)


def test_inputs_stamped_in_the_future_are_ignored():
    bench = moving(0.25)
    bench.send_latents = False
    for _ in range(50):
        bench.gate.record_latent(bench.now + 5.0, bench.now)
        bench.step()
    assert bench.state in (GateState.STOPPING, GateState.HOLDING) and "future" in bench.text
    assert bench.code == GateCode.LATENT_IN_FUTURE
    bench = moving(0.25)
    bench.send_joints = False
    bench.send_state(bench.q, stamp=bench.now + 5.0)
    assert bench.step().state == GateState.STOPPING


def test_old_stamps_are_stale_at_any_message_rate():
    bench = moving(0.25)
    bench.send_latents, stamp = False, bench.now
    for _ in range(110):
        bench.gate.record_latent(stamp, bench.now)
        bench.step()
    assert bench.state != GateState.TRACKING and "stamped" in bench.text and bench.code == GateCode.LATENT_STALE


def test_a_following_error_latches_and_release_starts_from_the_measured_state():
    bench = moving(0.25)
    stuck = bench.q.copy()
    for i in range(200):  # alive, but blocked
        bench.measured = stuck + 1e-5 * (i % 2)
        if bench.step().state == GateState.LATCHED:
            break
    assert bench.state == GateState.LATCHED and "following error" in bench.text
    assert bench.code == bench.plan(minimum_jerk(stuck, ZERO, 1.2)).cause.code == GateCode.FOLLOWING_ERROR
    bench.step(0.3)
    assert bench.state == GateState.LATCHED
    bench.jump_allowed()
    assert bench.gate.release(bench.now) == Cause(text="released after: following error 0.20 rad, limit 0.20")
    bench.step(0.2)
    np.testing.assert_allclose(bench.output.reference[0], stuck, atol=1e-4)
    bench.measured = None
    assert bench.plan(minimum_jerk(bench.q, ZERO, 1.2))
    bench.until(GateState.HOLDING)


def test_a_pressed_e_stop_latches_again_after_a_reset():
    bench = moving(0.4)
    bench.gate.update_e_stop(True, bench.now)
    bench.until(GateState.LATCHED)
    bench.gate.reset()
    bench.jump_allowed()
    bench.gate.update_e_stop(True, bench.now)
    assert bench.step(0.2).state == GateState.LATCHED and bench.code == GateCode.E_STOP
    assert not bench.plan(minimum_jerk(bench.q, ZERO, 1.2))
    bench.gate.update_e_stop(False, bench.now)
    assert bench.step().state == GateState.LATCHED and not bench.gate.release(bench.now)
    assert bench.step().state == GateState.HOLDING


def test_stop_latches_until_released():
    bench = moving(0.4)
    bench.gate.stop_and_latch(Cause(GateCode.STOP_SERVICE, "service"), bench.now)
    assert bench.step().state == GateState.STOPPING and bench.windows[-1].start <= bench.now
    assert bench.gate.release(bench.now) == Cause(GateCode.ARM_MOVING, "the arm is still stopping")
    bench.until(GateState.LATCHED, within=0.4)
    assert "service" in bench.text and not bench.plan(minimum_jerk(bench.q, ZERO, 1.2))
    assert bench.code == bench.gate.last_rejection.code == GateCode.STOP_SERVICE
    bench.step(5.0)
    assert bench.state == GateState.LATCHED
    assert not bench.gate.release(bench.now)
    bench.step(0.2)
    assert bench.state == GateState.HOLDING and bench.plan(minimum_jerk(bench.q, ZERO, 1.2))


def test_release_is_rejected_while_the_cause_lasts():
    bench = moving(0.4)
    bench.gate.update_e_stop(True, bench.now)
    bench.until(GateState.LATCHED)
    assert bench.gate.release(bench.now) == Cause(GateCode.E_STOP, "the e-stop is still pressed")
    bench.gate.update_e_stop(False, bench.now)
    assert bench.step(0.1).state == GateState.LATCHED  # False never releases
    bench.send_joints = False
    bench.step(0.3)
    refused = bench.gate.release(bench.now)
    assert refused.code == GateCode.JOINT_STATES_STALE and "joint_states" in refused.text
    bench.send_joints = True
    bench.step(0.01)
    assert not bench.gate.release(bench.now)


def test_stop_and_hold_does_not_latch():
    bench = moving(0.4)
    bench.gate.stop_and_hold(Cause(GateCode.DEACTIVATED, "deactivated"), bench.now)
    bench.until(GateState.HOLDING, within=0.4)
    assert "deactivated" in bench.text and bench.code == GateCode.DEACTIVATED


def test_a_clock_that_goes_back_stops_the_arm_and_restarts_the_gate():
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


def test_a_clock_that_jumps_ahead_gives_no_burst_of_ticks():
    bench = moving(0.4)
    bench.now += 100.0
    bench.jump_allowed()
    bench.send_joints = bench.send_latents = False
    bench.step(0.05)
    assert bench.state == GateState.HOLDING and at_rest(bench.output.reference)
    assert len(bench.output.executed) <= 10


def test_an_arm_moved_while_held_starts_from_the_measured_position():
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


def test_executed_ticks_lie_on_the_grid_and_match_the_reference():
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


def test_a_plan_accepted_on_the_grid_owns_that_tick():
    gate = Gate(LIMITS, GateSettings(resume_after=0.0, **WITHOUT_TIMEOUTS))
    ids = []
    for k in range(101):
        now = START + k * 0.01
        gate.update_joint_states(NAMES, ZERO if k == 0 else gate._reference[0], None, now, now)
        if k in (20, 60):
            state = gate._path.at(gate._clock.time)
            assert gate.submit_plan(continuing(state, GOAL * k / 60, 1.0), now, now, now + 2, k, now)
        ids += [(round(e.start - START, 3), e.plan_id) for e in gate.tick(now).executed]
    assert ids == [(round(0.1 * i, 3), 0 if i < 2 else 20 if i < 6 else 60) for i in range(10)]


def test_gate_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="horizon"):
        GateSettings(horizon=-1.0)
    with pytest.raises(InputError, match="speed_scale"):
        GateSettings(speed_scale=float("nan"))


def test_the_speed_scale_limits_the_joint_velocity():
    bench = Bench(speed_scale=0.25).ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.3)).clipped
    top = 0.0
    while bench.step().state == GateState.TRACKING:
        top = max(top, np.abs(bench.output.reference[1]).max())
    assert 0.5 < top <= 0.25 * 2.5 * 1.001


def test_a_hand_over_in_the_future_is_waited_for():
    bench = Bench().ready()
    assert bench.plan(minimum_jerk(ZERO, GOAL, 1.2), ahead=0.5)
    bench.step(0.45)
    assert at_rest(bench.output.reference)
    bench.step(0.6)
    assert not at_rest(bench.output.reference)
    bench.until(GateState.HOLDING)


def test_windows_are_made_only_in_motion_and_not_every_tick():
    """No window while nothing moves, and none for every tick while something does."""
    bench = moving(0.5)
    assert len(bench.windows) < 0.5 / DT / 5
    bench.until(GateState.HOLDING)
    count = len(bench.windows)
    bench.step(1.0)
    assert len(bench.windows) == count
