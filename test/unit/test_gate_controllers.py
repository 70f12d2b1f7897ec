"""No set-point steps, whatever controllers, arm and gate do: the gate against controllers as ros2_control has them."""

import numpy as np
import pytest

from helpers.controller_loop import CONTROLLER, ControllerLoop
from helpers.gate_simulation import GOAL, LIMITS, NAMES, ZERO, minimum_jerk
from jepa_ros.robot.gate.controller_watch import ControllerReport
from jepa_ros.robot.gate.types import Cause, GateCode, GateState
from jepa_ros.robot.motion.trajectory_points import Points

INTERFACES = ("joint_trajectory", "forward_position")
LARGEST_STEP = 1.0 + 1e-6  # over the velocity limit
LARGEST_ACCELERATION = 1.5  # over the limit
FAST = 2.0 * GOAL


def goes_on(loop, goal=ZERO):
    """The arm can be moved again, to the goal, without a step."""
    end = loop.now + 3.0
    while not loop.follow(goal, plan_id=9):
        assert loop.now < end, loop.output.status
        loop.run(0.1)
    loop.run(0.1).until(GateState.HOLDING)
    loop.run(0.5)
    np.testing.assert_allclose(loop.peer.measured, goal, atol=5e-3)


@pytest.mark.parametrize("kind", INTERFACES)
@pytest.mark.parametrize("skew", [0.0, 0.06, -0.06])
def test_a_motion_takes_no_more_than_its_own_acceleration(kind, skew):
    loop = ControllerLoop(kind, skew=skew).ready()
    assert loop.follow(FAST)
    loop.run(1.8)
    np.testing.assert_allclose(loop.peer.q, FAST, atol=1e-6)
    planned = 5.774 * np.abs(FAST).max() / 1.2**2  # of a minimum-jerk motion
    assert loop.acceleration <= 1.5 * planned / LIMITS.acceleration[0]


@pytest.mark.parametrize("speed", [0.0, 0.1, 0.5])
def test_a_controller_that_is_slowed_or_paused_in_motion_is_not_moved_against_it(speed):
    loop = ControllerLoop().moving(FAST)
    loop.peer.speed, began = speed, loop.now
    loop.run(0.3)
    assert loop.first(GateCode.CONTROLLER_SLOWED, began) < 0.2
    assert ("paused" if speed == 0.0 else f"{100 * speed:.0f} %") in loop.text
    at = loop.peer.q.copy()
    loop.run(5.0 if speed > 0.0 else 1.0)
    assert np.abs(loop.peer.q - at).max() < (0.01 if speed == 0.0 else 0.6), "more than the window that it had"
    assert loop.state == GateState.HOLDING
    assert loop.follow(ZERO).cause.code == GateCode.CONTROLLER_SLOWED
    assert loop.step <= LARGEST_STEP
    before = loop.peer.q.copy()
    loop.peer.speed = 1.0
    loop.run(1.0)
    assert loop.code == GateCode.NONE
    assert np.abs(loop.peer.q - before).max() < 1e-3, "moved by itself when the speed was set back"
    goes_on(loop)
    assert loop.step <= LARGEST_STEP


@pytest.mark.parametrize("kind", INTERFACES)
@pytest.mark.parametrize("gap", [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 3.0, 10.0])
def test_a_gate_that_was_held_up_sends_no_step(kind, gap):
    loop = ControllerLoop(kind).moving(FAST)
    loop.gate_sleeps = (loop.now, loop.now + gap)
    loop.run(gap + 1.0)
    if gap > (0.11 if kind == "forward_position" else 0.31):  # windows go on for 0.3 s
        assert loop.state == GateState.HOLDING
        codes = {status.code for t, status in loop.statuses if t > loop.gate_sleeps[1]}
        assert codes & {GateCode.GATE_HELD_UP, GateCode.PLANNER_SILENT}
        assert loop.step <= LARGEST_STEP
    goes_on(loop)
    assert loop.step <= LARGEST_STEP


# kind, whether the controller manager tells, cycles between reports, s switched off. Without the controller manager
# only a silence tells, and nothing of an interruption that is shorter.
SWITCHED = [
    *(
        (kind, True, every, off)
        for kind in INTERFACES
        for every in (0, 1)
        for off in (0.01, 0.037, 0.083, 0.19, 0.24, 1)
    ),
    *(("joint_trajectory", False, every, off) for every in (1, 2) for off in (0.24, 1.0)),
]


@pytest.mark.parametrize("kind, activity, report_every, off", SWITCHED)
def test_a_controller_switched_off_and_on_in_motion_gets_no_step(kind, activity, report_every, off):
    loop = ControllerLoop(kind, report_every, activity).moving(FAST)
    began = loop.now
    loop.switch(False)
    loop.run(off)
    loop.switch(True)
    loop.run(1.5)
    code = GateCode.CONTROLLER_INACTIVE if activity else GateCode.CONTROLLER_SILENT
    assert loop.first(code, began) < 0.2
    assert loop.state == GateState.HOLDING
    goes_on(loop)
    assert loop.step <= LARGEST_STEP


@pytest.mark.parametrize("kind", INTERFACES)
def test_with_an_inactive_controller_nothing_is_followed(kind):
    loop = ControllerLoop(kind).ready()
    loop.switch(False)
    loop.run(0.5)
    verdict = loop.follow(GOAL)
    assert verdict.cause.code == GateCode.CONTROLLER_INACTIVE and "arm_controller" in verdict.text
    assert loop.run(1.0).sent == 0
    loop.switch(True)
    loop.run(0.5)
    assert loop.code == GateCode.NONE, "goals would be refused for good"
    goes_on(loop, GOAL)
    assert loop.step <= LARGEST_STEP


@pytest.mark.parametrize("kind", INTERFACES)
@pytest.mark.parametrize("stall", [0.03, 0.12, 0.5, 3.0])
def test_a_control_loop_that_stalls_steps_by_no_more_than_the_limits_in_that_time(kind, stall):
    loop = ControllerLoop(kind).moving(FAST)
    before = loop.peer.q.copy()
    loop.peer.stall(stall)
    loop.run(stall + 0.02)
    assert (np.abs(loop.peer.q - before) <= LIMITS.velocity * (stall + 0.02)).all()
    loop.peer.setpoints.clear()
    loop.run(1.0)
    if stall >= 0.2:
        assert loop.state == GateState.HOLDING
    goes_on(loop)
    assert loop.step <= LARGEST_STEP


@pytest.mark.parametrize("sag", [-0.03, -0.06, 0.09])
def test_an_arm_that_sags_gets_no_step_and_does_not_sink(sag):
    loop = ControllerLoop(sag=sag).ready()
    for k in range(20):
        goal = FAST if k % 2 == 0 else ZERO
        goes_on(loop, goal)
    for _ in range(100):  # plans that stay where they are
        assert loop.follow(loop.peer.measured, 0.3)
        loop.run(0.7)
    np.testing.assert_allclose(loop.peer.measured, ZERO, atol=5e-3)
    assert loop.step <= LARGEST_STEP and loop.acceleration <= LARGEST_ACCELERATION


def test_an_arm_further_from_its_set_point_than_it_may_sag_is_not_moved():
    loop = ControllerLoop(sag=-0.2).ready()
    verdict = loop.follow(GOAL)
    assert verdict.cause.code == GateCode.ARM_DISPLACED and "0.20 rad from the arm" in verdict.text
    assert loop.run(1.0).sent == 0


@pytest.mark.parametrize("kind, report_every", [("joint_trajectory", 0), ("forward_position", 0)])
def test_without_reports_a_sagging_arm_gets_no_step_after_the_first_motion(kind, report_every):
    loop = ControllerLoop(kind, report_every, sag=-0.06).ready()
    assert loop.follow(FAST)
    loop.run(2.5)
    loop.peer.setpoints.clear()
    for k in range(10):
        goes_on(loop, ZERO if k % 2 == 0 else FAST)
    for _ in range(30):
        assert loop.follow(loop.peer.measured, 0.3)
        loop.run(0.7)
    np.testing.assert_allclose(loop.peer.measured, FAST, atol=5e-3)
    assert loop.step <= LARGEST_STEP and loop.acceleration <= LARGEST_ACCELERATION


@pytest.mark.parametrize("kind", INTERFACES)
def test_a_release_makes_no_step(kind):
    loop = ControllerLoop(kind, sag=0.0 if kind == "forward_position" else -0.05).moving(FAST)
    loop.gate.update_e_stop(True, loop.clock)
    loop.until(GateState.LATCHED)
    loop.gate.update_e_stop(False, loop.clock)
    loop.run(0.5)
    assert not loop.gate.release(loop.clock)
    loop.run(0.5)
    goes_on(loop)
    assert loop.step <= LARGEST_STEP and loop.acceleration <= LARGEST_ACCELERATION


@pytest.mark.parametrize("kind", INTERFACES)
def test_a_stop_that_is_lost_is_sent_again(kind):
    loop = ControllerLoop(kind).moving(GOAL)
    loop.peer.lost = 1
    loop.gate.stop_and_latch(Cause(GateCode.STOP_SERVICE, "the service stop was called"), loop.clock)
    loop.until(GateState.LATCHED)
    loop.run(0.3)
    np.testing.assert_allclose(loop.peer.q, loop.output.reference[0], atol=1e-6)
    assert loop.step <= LARGEST_STEP
    assert loop.gate.stop_is_confirmed is (True if kind == "joint_trajectory" else None)


def test_another_program_that_commands_the_controller_is_noticed():
    loop = ControllerLoop(report_every=1).moving(FAST)
    loop.peer.receive(Points.from_trajectory(minimum_jerk(loop.peer.q, ZERO, 1.0), loop.now), loop.now)
    loop.peer.lost = 1000
    loop.run(0.4)
    assert loop.code == GateCode.CONTROLLER_ELSEWHERE and "another program" in loop.text


def test_reports_that_cannot_be_true_are_not_believed():
    loop = ControllerLoop().ready()
    for wrong in (ZERO + 0.09, ZERO - 0.09, ZERO + 0.5, np.full(7, np.nan)) * 10:
        loop.gate.update_controller(ControllerReport(CONTROLLER, NAMES, wrong, 1.0, loop.clock), loop.clock)
        loop.run(0.013)
    loop.follow(FAST)
    loop.run(1.5)
    assert loop.step <= LARGEST_STEP
