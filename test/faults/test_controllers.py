"""Controllers that are slowed, paused, switched off, stalled or restarted, arms that sag, and gates that are held up.

What must not happen in any of these is a step of the set-point: each command is judged by the step in the controller's
next cycle.
"""

import itertools
import math
import signal

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger

from helpers.controller_bench import ControllerBench, ControllerManagerActivity
from helpers.gate_peers import GOAL, JOINTS, START, JointTrajectoryControllerState, minimum_jerk, urdf
from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits

TRAJECTORIES = "joint_trajectory_controller/JointTrajectoryController"
SET_POINTS = "forward_command_controller/ForwardCommandController"
SOON = 1000.0  # ms, for a test that plays all the other nodes itself; unit tests hold 200 ms

with_activity = pytest.mark.skipif(ControllerManagerActivity is None, reason="controller_manager_msgs is not installed")
with_state = pytest.mark.skipif(JointTrajectoryControllerState is None, reason="control_msgs is not installed")


@pytest.fixture(scope="module", params=[TRAJECTORIES, SET_POINTS], ids=["joint_trajectory", "forward_position"])
def any_bench(request, start, client):
    kind = request.param
    made = ControllerBench(start, client, f"gate_{kind.split('_')[0]}", kind)
    made.begin()
    if ControllerManagerActivity is not None:
        made.add_manager()
    yield made
    made.close()


@pytest.fixture
def bench(any_bench, measured):
    """The arm holds; after the test no command was wrong."""
    bench, began = any_bench, any_bench.now()
    bench.heal()
    bench.client.wait_for(lambda: bench.status.state == GateStatus.HOLDING, "a gate that holds", 20.0)
    yield bench
    bench.judge(began, measured)


@pytest.fixture
def trajectories(bench):
    if bench.kind != TRAJECTORIES:
        pytest.skip("joint_trajectory_controller alone has this")
    return bench


@pytest.mark.fault(35)
@pytest.mark.parametrize("speed, word", [(0.0, "paused"), (0.5, "50 %")])
@with_state
def test_a_slowed_or_paused_controller_stops_the_arm_until_its_speed_is_set_back(trajectories, measured, speed, word):
    bench = trajectories
    began = bench.leave()
    bench.peer.speed = speed
    named = bench.named({GateStatus.CONTROLLER_SLOWED}, began)
    assert word in named.text and bench.controller in named.text
    bench.came_to_rest(began, measured, named)
    assert measured["caught_ms"] < SOON
    at, rejected = bench.measured_now, bench.status.rejected
    bench.plan(minimum_jerk(at, GOAL))
    bench.client.wait_for(lambda: bench.status.rejected > rejected, "the plan to be refused")
    assert bench.status.rejection_code == GateStatus.CONTROLLER_SLOWED
    bench.peer.speed = 1.0
    bench.client.spin(0.3)
    assert np.abs(bench.measured_now - at).max() < 1e-3, "moved by itself when the speed was set back"
    bench.arrive()


@pytest.mark.fault(13)
@pytest.mark.fault(36)
@pytest.mark.parametrize("gap", [0.05, 0.3, 2.0])
def test_a_gate_suspended_in_motion_sends_no_step_when_it_is_woken(bench, measured, gap):
    began = bench.leave()
    bench.process.signal(signal.SIGSTOP)
    bench.client.spin(gap)
    woken = bench.now()
    bench.process.signal(signal.SIGCONT)
    if gap > 0.1:
        silent = {GateStatus.GATE_HELD_UP, GateStatus.PLANNER_SILENT, GateStatus.LATENT_STALE}
        silent |= {GateStatus.JOINT_STATES_STALE, GateStatus.CONTROLLER_SILENT}
        measured["caught_ms"] = 1e3 * (to_seconds(bench.named(silent, woken).header.stamp) - woken)
        assert measured["caught_ms"] < SOON
    bench.came_to_rest(began, measured)
    bench.arrive()


@pytest.mark.fault(37)
@pytest.mark.parametrize("off", [0.1, 1.0])
@with_activity
def test_a_controller_switched_off_and_on_in_motion_is_named_and_gets_no_step(bench, measured, off):
    began = bench.leave()
    bench.switch(False)
    bench.client.spin(off)
    bench.switch(True)
    named = bench.named({GateStatus.CONTROLLER_INACTIVE}, began)
    assert bench.controller in named.text
    bench.came_to_rest(began, measured, named)
    assert measured["caught_ms"] < SOON
    bench.arrive()


@pytest.mark.fault(38)
@with_activity
def test_with_an_inactive_controller_a_plan_is_refused_with_that_cause(bench, measured):
    began = bench.now()
    bench.switch(False)
    bench.named({GateStatus.CONTROLLER_INACTIVE}, began)
    rejected, sent = bench.status.rejected, len(bench.windows)
    bench.plan(minimum_jerk(bench.measured_now, bench.measured_now + 0.1))
    bench.client.wait_for(lambda: bench.status.rejected > rejected, "the plan to be refused")
    assert bench.status.rejection_code == GateStatus.CONTROLLER_INACTIVE
    bench.client.spin(0.3)
    assert len(bench.windows) == sent and bench.status.state == GateStatus.HOLDING
    bench.switch(True)
    bench.arrive()


@pytest.mark.fault(39)
@pytest.mark.parametrize("stall", [0.12, 0.6])
def test_a_control_loop_that_stalls_steps_by_no_more_than_the_limits_in_that_time(bench, measured, stall):
    peer, began = bench.peer, bench.leave()
    before = len(peer.setpoints)
    peer.stall(stall)
    bench.client.spin(stall)
    bench.came_to_rest(began, measured)
    cycles = peer.setpoints[before - 2 :]
    (t, q), (after, woken) = next((a, b) for a, b in itertools.pairwise(cycles) if b[0] - a[0] > 0.5 * stall)
    assert (np.abs(woken - q) <= peer.limits.velocity * (after - t + peer.period)).all()
    if stall > 0.4:
        codes = {s.code for s in bench.statuses if to_seconds(s.header.stamp) > began}
        assert codes & {GateStatus.JOINT_STATES_STALE, GateStatus.CONTROLLER_SILENT}
    bench.steps.clear()  # what was sent in the stall waited for its end
    bench.arrive()


@pytest.mark.fault(39)
def test_a_controller_manager_that_ends_and_restarts_gets_no_step(bench, measured):
    had_manager, began = bench.manager is not None, bench.leave()
    bench.remove_manager()
    bench.switch(False)
    bench.send_joints = False
    bench.client.spin(1.0)
    bench.switch(True)
    bench.send_joints = True
    if had_manager:
        bench.add_manager()
    codes = {GateStatus.JOINT_STATES_STALE, GateStatus.CONTROLLER_SILENT, GateStatus.CONTROLLER_INACTIVE}
    bench.came_to_rest(began, measured, bench.named(codes, began))
    assert measured["caught_ms"] < SOON
    bench.arrive()


@pytest.mark.fault(40)
def test_an_arm_that_sags_gets_no_step_and_does_not_sink(bench, measured):
    peer = bench.peer
    bench.arrive()
    for share in np.linspace(0.0, 1.0, 15):
        peer.sag = np.full(len(JOINTS), -0.06 * share)
        bench.client.spin(0.02)
    try:
        bench.client.spin(0.6)
        bench.go()  # at rest the weight was not known; it is after a motion
        bench.until("HOLDING")
        bench.client.spin(0.6)
        bench.arrive()
        began = bench.leave()
        assert bench.client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
        bench.until("LATCHED")
        bench.came_to_rest(began, measured)
        bench.release()
        bench.arrive()
        held = peer.q.copy()
        for plan_id in (20, 21):  # plans that stay where they are
            bench.client.spin(0.5)
            bench.follow(minimum_jerk(bench.measured_now, bench.measured_now, 0.3), plan_id)
            bench.until("HOLDING")
        assert bench.rests()
        np.testing.assert_allclose(peer.q, held, atol=5e-3)
    finally:
        for share in np.linspace(1.0, 0.0, 15):
            peer.sag = np.full(len(JOINTS), -0.06 * share)
            bench.client.spin(0.02)


@pytest.mark.fault(41)
def test_set_points_come_at_the_controllers_own_rate(bench):
    if bench.kind != SET_POINTS:
        pytest.skip("of controllers that take set-points one by one")
    bench.sent.clear()
    bench.arrive()
    times = np.array([t for t, _ in bench.sent])
    share = len(times) * bench.peer.period / (times[-1] - times[0])
    assert 0.7 < share < 1.5, f"{share:.2f} set-points a cycle; 2 at the gate's own rate"
    np.testing.assert_allclose(bench.sent[-1][1], bench.peer.q, atol=1e-3)


@pytest.mark.fault(43)
@pytest.mark.parametrize("lost", [1, 1000])
def test_a_lost_stop_is_sent_again_and_without_any_the_arm_rests_all_the_same(trajectories, measured, lost):
    bench = trajectories
    began = bench.leave()
    bench.peer.lost = lost
    assert bench.client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
    bench.until("LATCHED")
    bench.came_to_rest(began, measured)
    bench.peer.lost = 0
    bench.release()
    bench.arrive()


@pytest.mark.fault(45)
def test_the_gate_works_without_measured_velocities_and_efforts(bench, measured):
    def spoil(velocity):
        bench.spoil = lambda m: (setattr(m, "velocity", velocity), setattr(m, "effort", velocity))

    spoil([math.nan] * 8)
    bench.arrive()
    spoil([])
    began = bench.leave()
    bench.send_latents = False
    bench.came_to_rest(began, measured, bench.named({GateStatus.LATENT_STALE}, began))
    bench.send_latents = True
    bench.arrive()
    spoil([0.0] * 8)


@pytest.mark.fault(42)
@pytest.mark.parametrize("behind", [0.08, 0.3])
def test_with_clocks_that_disagree_windows_are_stamped_in_the_controllers_clock(start, client, measured, behind):
    bench = ControllerBench(start, client, f"behind_{1e3 * behind:.0f}", behind=behind, command_stamps="zero")
    try:
        bench.begin()
        bench.client.spin(0.5)  # the clock is known
        began = bench.now()
        bench.arrive()
        ahead = [to_seconds(m.header.stamp) - came for came, m in bench.windows]
        assert -0.15 < min(ahead) and max(ahead) < 0.05
        assert bench.status.stops == 0
        bench.judge(began, measured)
    finally:
        bench.close()


@pytest.mark.fault(44)
def test_a_continuous_joint_passes_half_a_turn(start, client, measured):
    """Its joint states are within half a turn, as many drivers have them."""
    description = urdf().replace('type="revolute"', 'type="continuous"', 1)
    bench = ControllerBench(start, client, "turning")
    bench.peer.limits = JointLimits.from_robot(load_robot("openarm"), description)
    bench.peer.auditor = WindowAuditor(bench.peer.limits)
    bench.spoil = lambda m: m.position.__setitem__(1, math.remainder(m.position[1], 2.0 * math.pi))
    bench.describe = lambda: String(data=description)
    near, past = START.copy(), START.copy()
    near[0], past[0] = math.pi - 0.2, math.pi + 0.2
    bench.peer.put(near)
    bench.begin()
    back = (past - [2.0 * math.pi, *[0.0] * 6], near - [2.0 * math.pi, *[0.0] * 6])  # as measured there
    for k, (begin, end) in enumerate([(near, past), back]):
        bench.follow(minimum_jerk(begin, end, 0.7), 30 + k)
        bench.until("HOLDING")
        off = np.remainder(bench.measured_now - end + math.pi, 2.0 * math.pi) - math.pi
        np.testing.assert_allclose(off, 0.0, atol=5e-3)
    assert bench.status.stops == 0
    bench.judge(0.0, measured)
    bench.close()
