"""A joint of the simulated arm is held in motion: the arm does not follow."""

import time

import pytest
from jepa_msgs.msg import GateStatus
from std_srvs.srv import Trigger

from helpers.fault_graph import ROBOT, Graph


@pytest.fixture(scope="module")
def graph(start, client):
    return Graph(start, client)


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


def block(arm, joint: str) -> None:
    assert arm.client.set_parameters("simulator", blocked_joint=joint)[0].successful


@pytest.mark.fault(31)
def test_a_blocked_joint_latches_and_release_starts_from_the_measured_state(arm, measured):
    arm.moving()
    fault = time.time()
    block(arm, ROBOT.joints[3])
    stopped = arm.stops(fault, state=GateStatus.LATCHED)
    measured["stop_ms"] = 1e3 * (stopped.rest - fault)
    arm.says("following error", fault)
    blocked = arm.position
    block(arm, "")
    sprung = lambda: abs(arm.position - blocked).max() > 0.05 and arm.speed < 0.02  # noqa: E731
    arm.client.wait_for(sprung, "the joint to spring back and rest")
    before, arm.auditor.path = arm.position, None  # the arm is not where the last window ended, and so told
    assert arm.client.call(Trigger, "release", Trigger.Request()).success
    arm.client.wait_for(lambda: arm.gate_state != GateStatus.LATCHED, "the release")
    assert abs(arm.position - before).max() < 0.05, "it starts from the measured state"
    arm.moving()
