"""Goals that are missing, swapped, wrong, out of reach or given up, and plans that do not meet."""

import copy
import re
import time

import numpy as np
import pytest
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GateStatus, GoalTerm, Plan, PlannerStatus

from helpers.fault_graph import PLACES, Graph, place, pose_goal
from jepa_ros.nodes.common.convert import float64_array, stamp_of_seconds, to_seconds
from jepa_ros.planning.codes import PlannerCode


@pytest.fixture(scope="module")
def graph(start, client):
    return Graph(start, client)


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


def outcome(arm, request, timeout=30.0):
    return arm.client.wait_for(lambda: request.outcome, "the goal's end", timeout)


@pytest.mark.fault(27)
def test_without_a_goal_the_planner_is_idle_and_nothing_moves(arm):
    statuses = arm.client.collect(PlannerStatus, "planner_status")
    arm.client.wait_for(lambda: len(statuses) > 1, "the planner's status")
    assert (statuses[-1].state, statuses[-1].code) == (PlannerStatus.IDLE, PlannerCode.NONE)
    assert arm.plans == [] and arm.windows == [] and arm.rests


@pytest.mark.fault(27)
def test_a_new_goal_takes_over_in_motion_without_a_stop(arm):
    arm.moving()
    old, swapped = arm.request, time.time()
    ended = outcome(arm, arm.ask(pose_goal((0.20, -0.30))))
    assert ended.reached, ended.reason
    assert (old.outcome.status, old.outcome.code) == ("aborted", PlannerCode.REPLACED)
    at_swap = [m.state for t, _, m in arm.gate if swapped <= t < swapped + 0.6]
    assert set(at_swap) == {GateStatus.TRACKING}, at_swap


def wrong_latent() -> ReachGoal.Goal:
    return ReachGoal.Goal(terms=[GoalTerm(kind=GoalTerm.LATENT, latent=[0.0] * 7, model_id="another")])


def wrong_joints() -> ReachGoal.Goal:
    term = GoalTerm(kind=GoalTerm.JOINTS, joints=["openarm_right_joint1"], positions=[0.0, 1.0])
    return ReachGoal.Goal(terms=[term])


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("goal", "code", "reason"),
    [
        (wrong_latent(), PlannerCode.GOAL_LATENT_INVALID, "goal latent: expected model"),
        (wrong_joints(), PlannerCode.GOAL_JOINTS_INVALID, "joints: expected"),
        (pose_goal((2.0, 2.0)), PlannerCode.GOAL_POSE_INVALID, "pose: [2.0, 2.0] m lies outside the workspace"),
    ],
    ids=["latent", "joints", "pose"],
)
def test_an_invalid_goal_is_aborted_with_the_reason_and_the_arm_stops(arm, measured, goal, code, reason):
    arm.moving()
    fault = time.time()
    ended = outcome(arm, arm.ask(goal))
    assert (ended.status, ended.code) == ("aborted", code) and reason in ended.reason
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    arm.says(f"planner: .*{re.escape(reason)}", fault)


@pytest.mark.fault(27)
def test_a_goal_timeout_aborts_the_goal(arm, measured):
    far = pose_goal(PLACES[0], via=[], timeout=0.5)
    arm.moving()
    arm.rest()
    asked = time.time()
    away = max(PLACES, key=lambda xy: abs(xy[0] - arm._tool_x()))
    far.terms = [place(away)]
    ended = outcome(arm, arm.ask(far))
    assert (ended.status, ended.code) == ("aborted", PlannerCode.GOAL_TIMEOUT)
    measured["stop_ms"] = 1e3 * (arm.stops(asked).rest - asked)


@pytest.mark.fault(30)
def test_cancelling_in_motion_stops_the_arm_smoothly(arm, measured):
    arm.moving()
    request, fault = arm.request, time.time()
    request.cancel()
    ended = outcome(arm, request)
    assert (ended.status, ended.reached, ended.code) == ("canceled", False, PlannerCode.CANCELLED)
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    arm.says("planner: cancelled", fault)
    arm.client.spin(1.0)
    assert not [t for t, _ in arm.plans if t > stopped.rest + 0.1], "plans went on after the cancel"


@pytest.mark.fault(34)
def test_a_hold_longer_than_the_hold_timeout_aborts_the_goal(arm, measured):
    assert arm.client.get_parameter("planner", "hold_timeout") == 10.0
    assert all(r.successful for r in arm.client.set_parameters("planner", hold_timeout=1.5))
    arm.moving()
    request, fault = arm.request, time.time()
    arm.images.drop()
    stopped = arm.stops(fault)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    ended = outcome(arm, request)
    assert (ended.status, ended.code) == ("aborted", PlannerCode.NO_LATENT)
    assert ended.reason == "the arm was held for 1.5 s: no latent for 0.3 s"
    assert 1.3 < time.time() - stopped.caught < 3.0  # the planner looks every 0.1 s
    healed = arm.heal()
    arm.client.wait_for(lambda: arm.latents[-1][0] > healed + 1.5, "healthy frames")
    assert arm.rests and not [t for t, _ in arm.plans if t > healed], "an aborted goal went on"
    assert all(r.successful for r in arm.client.set_parameters("planner", hold_timeout=10.0))


@pytest.mark.fault(12)
def test_rapidly_changing_goals_cause_no_jump(arm):
    arm.moving()
    for k in range(12):
        arm.ask(pose_goal(PLACES[k % 2]))
        enough = len(arm.plans) + 1 + k % 3
        arm.client.wait_for(lambda enough=enough: len(arm.plans) >= enough, "the next plan")
    assert arm.auditor.windows > 20 and arm.auditor.step < 0.005, arm.auditor.step


@pytest.mark.fault(12)
def test_a_plan_that_starts_off_the_active_plan_is_joined_smoothly(arm):
    publisher = arm.client.node.create_publisher(Plan, "plan", 10)
    arm.moving()
    arm.client.wait_for(publisher.get_subscription_count, "the gate")
    arm.client.wait_for(lambda: arm.plans, "a plan")
    beside = copy.deepcopy(arm.plans[-1][1])
    beside.plan_id += 1_000_000
    now = time.time() + 0.05
    late = now - to_seconds(beside.header.stamp)
    beside.header.stamp = stamp_of_seconds(now)
    beside.source_stamp = stamp_of_seconds(time.time())
    beside.valid_until = stamp_of_seconds(to_seconds(beside.valid_until) + late)
    for point in beside.trajectory.points:
        point.positions = float64_array(np.array(point.positions) + 0.04)
    sent = time.time()
    publisher.publish(beside)
    arm.client.wait_for(lambda: [m for t, _, m in arm.gate if m.plan_id == beside.plan_id], "the plan to be followed")
    arm.client.wait_for(lambda: [t for t, _ in arm.windows if t > sent + 0.3], "windows of it")
    assert arm.auditor.violations == [] and arm.auditor.step < 0.005, arm.auditor.step
