"""Nodes that die, hang or get no time to compute, and controllers that are slowed or switched off in motion."""

import time

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus
from lifecycle_msgs.srv import GetState

from helpers.fault_graph import SETTINGS, Graph
from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.nodes.simulated_controller import JointTrajectoryControllerState
from jepa_ros.robot.gate.window_auditor import WindowAuditor

DEATH_SEEN = 0.3  # s: time-outs of 0.2 s and, of the planner, 0.25 s, and a little for a test on a busy machine
UNDER_WAY = 0.2  # s that a frame may be under way from the camera to its latent
CAUGHT = 50.0  # ms


@pytest.fixture(scope="module")
def graph(start, client):
    return Graph(start, client, {"planner": {"hold_timeout": 120.0}})


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


def asleep(arm) -> None:
    """The gate's process does nothing: whatever holds the arm now is what was sent before."""
    arm.client.wait_for(lambda: arm.rests, "an arm at rest", 5.0)
    before, windows = arm.position, len(arm.windows)
    arm.client.spin(0.5)
    assert abs(arm.position - before).max() < 0.01 and len(arm.windows) == windows


@pytest.mark.fault(13)
@pytest.mark.parametrize("node", ["camera", "world_model"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_dead_or_hanging_perception_node_holds_the_arm_until_latents_return(arm, measured, node, how):
    arm.moving()
    fault = time.time()
    arm.kill(node) if how == "killed" else arm.freeze(node)
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    measured["caught_ms"] = arm.caught_ms(stopped, SETTINGS.latent_timeout)
    assert measured["caught_ms"] < CAUGHT
    assert stopped.caught - fault < DEATH_SEEN + (UNDER_WAY if node == "camera" else 0.0)
    arm.says("arm_gate: holding: no latent for 0.20 s", fault)
    arm.says("planner: no latent for 0.3 s", fault)
    healed = time.time()
    arm.launch(node) if how == "killed" else arm.thaw(node)
    arm.resumes(healed, 60.0)


@pytest.mark.fault(9)
@pytest.mark.fault(13)
def test_a_killed_planner_stops_the_arm_and_its_successor_accepts_goals(arm, measured):
    arm.moving()
    fault = time.time()
    arm.kill("planner")
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    assert stopped.caught - fault < DEATH_SEEN
    arm.another_planner()
    arm.moving()


@pytest.mark.fault(9)
@pytest.mark.fault(13)
def test_a_hanging_planner_stops_the_arm_and_resumes(arm, measured):
    arm.moving()
    fault = time.time()
    arm.freeze("planner")
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    assert stopped.caught - fault < DEATH_SEEN
    healed = time.time()
    arm.thaw("planner")
    arm.in_motion()
    sources = [to_seconds(m.source_stamp) - healed for t, m in arm.plans if t > healed]
    assert min(sources) > -0.3, f"planned from old frames: {sources}"


@pytest.mark.fault(13)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_dead_or_hanging_gate_stops_the_arm_at_the_end_of_its_window(arm, measured, how):
    arm.moving()
    fault = time.time()
    arm.kill("arm_gate") if how == "killed" else arm.freeze("arm_gate")
    asleep(arm)
    moved = [s.received for s in arm.samples if s.received >= fault and abs(s.qd).max() > 0.02]
    measured["stop_ms"] = 1e3 * (max(moved) - fault)
    gap = np.diff([s.received for s in arm.samples if s.received >= fault]).max()
    assert measured["stop_ms"] < 1e3 * (SETTINGS.window_max + 0.2), f"joint states had a gap of {gap:.2f} s"
    arm.client.spin(1.0)
    healed = time.time()
    arm.launch("arm_gate") if how == "killed" else arm.thaw("arm_gate")
    arm.client.wait_for(
        lambda: arm.gate[-1][0] > healed and arm.gate_state == GateStatus.TRACKING and arm.speed > 0.15,
        "motion by itself",
        60.0,
    )


@pytest.mark.fault(13)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_lost_robot_holds_the_gate_until_it_restarts_from_the_measured_state(arm, measured, how):
    arm.moving()
    fault = time.time()
    arm.kill("simulator") if how == "killed" else arm.freeze("simulator")
    arm.client.wait_for(lambda: arm.gate_state == GateStatus.HOLDING, "a gate that holds", 5.0)
    first = next(t for t, _, m in arm.gate if t > fault and m.state != GateStatus.TRACKING)
    measured["caught_ms"] = 1e3 * (first - arm.samples[-1].received - SETTINGS.joint_timeout)
    assert measured["caught_ms"] < CAUGHT
    arm.says("arm_gate: (stopping|holding): no joint_states for 0.15 s", fault)
    if how == "killed":
        arm.stop_listening_as_controller()
        arm.launch("simulator").says("active", 60.0)
        arm.listen_as_controller()
    else:
        # What it slept through its controllers do not follow: the next window starts where the arm is. That it does is
        # seen below.
        arm.auditor = WindowAuditor(arm.limits)
        arm.thaw("simulator")
    begun = arm.resumes(time.time(), 60.0)
    first = np.array([s.q for s in arm.samples if begun - 0.1 < s.received < begun + 0.1])
    assert np.ptp(first, axis=0).max() < 0.1, "the arm was torn to another place"  # from rest it gets nowhere in 0.1 s


@pytest.mark.fault(35)
@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "setting, code, words",
    [
        ({"controller_speed": 0.0}, GateStatus.CONTROLLER_SLOWED, "is paused"),
        ({"controller_speed": 0.5}, GateStatus.CONTROLLER_SLOWED, "runs at 50 % of its speed"),
        ({"controller_active": False}, GateStatus.CONTROLLER_SILENT, "has not reported its state"),
    ],
    ids=["paused", "slowed", "inactive"],
)
@pytest.mark.skipif(JointTrajectoryControllerState is None, reason="control_msgs is not installed")
def test_a_slowed_or_inactive_controller_is_named_and_the_goal_resumes(arm, measured, setting, code, words):
    [(name, value)] = setting.items()
    arm.moving()
    fault = time.time()
    try:
        assert arm.client.set_parameters("simulator", **setting)[0].successful
        stopped = arm.stops(fault)
        measured["stop_ms"] = 1e3 * (stopped.rest - fault)
        named = next((t for t, _, m in arm.gate if t > fault and m.code == code), None)
        assert named is not None, {m.text for t, _, m in arm.gate if t > fault}
        measured["caught_ms"] = 1e3 * (named - fault)
        arm.says(f"arm_gate: (stopping|holding): controller .* {words}", fault)
        arm.auditor = WindowAuditor(arm.limits)  # the controllers have not followed the last windows
    finally:
        assert arm.client.set_parameters("simulator", **{name: type(value)(1)})[0].successful
    before, healed = arm.position, time.time()
    begun = arm.resumes(healed)
    first = [s.q for s in arm.samples if healed < s.received < begun]
    assert not first or np.abs(np.array(first) - before).max() < 0.01, "moved before the gate did"


@pytest.mark.fault(9)
def test_a_too_slow_model_holds_the_arm_and_its_node_stays_responsive(arm, measured):
    arm.moving()
    fault = time.time()
    with arm.starved("world_model", 0.02, 0.5):
        stopped = arm.stops(fault, 20.0)
        measured["stop_ms"] = 1e3 * (stopped.rest - fault)
        arm.says("arm_gate: (stopping|holding): (no latent for|latent is stamped)", fault)
        assert arm.client.call(GetState, "world_model/get_state", GetState.Request(), 20.0, 5.0)
    arm.resumes(time.time())
